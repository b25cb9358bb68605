"""What the student kept and what it lost."""

from limbeck.evaluate.accuracy import Score, score, scores

__all__ = ["Score", "score", "scores"]
