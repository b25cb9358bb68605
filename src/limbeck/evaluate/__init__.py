"""What the student kept and what it lost.

Each file here is one part and takes what networks said, as ``collect`` gathers it. ``suite`` puts them together; it knows
data sets and model sources, so it is imported from its own module.
"""

from limbeck.evaluate.accuracy import Score, score, score_of, scores

__all__ = ["Score", "score", "score_of", "scores"]
