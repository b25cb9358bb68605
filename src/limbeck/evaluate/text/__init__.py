"""What a language model kept: figures of tokens, and of texts that it generated."""

from limbeck.evaluate.text.generated import ExactMatch, RougeL, exact_match, rouge_l
from limbeck.evaluate.text.tokens import TokenScore, TokenScorer

__all__ = ["ExactMatch", "RougeL", "TokenScore", "TokenScorer", "exact_match", "rouge_l"]
