"""What the student kept and what it lost."""

from limbeck.evaluate.accuracy import Score, score

__all__ = ["Score", "score"]
