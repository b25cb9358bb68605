"""Text: sources, tokenising and batches of tokens."""

from limbeck.data.text.arithmetic import ALPHABET, arithmetic
from limbeck.data.text.batches import EvalTokenBatches, TokenBatches
from limbeck.data.text.classify import encode_classification
from limbeck.data.text.corpus import TokenData, text_of, tokenised
from limbeck.data.text.encode import encode
from limbeck.data.text.examples import Example, Message, TextData
from limbeck.data.text.load import load_text
from limbeck.data.text.only_prompts import only_prompts
from limbeck.data.text.report import Report
from limbeck.data.text.tokenizer import ByteTokenizer, CharacterTokenizer, SpecialTokens, Tokenizer, special_tokens
from limbeck.data.text.tokens import TokenSplit

__all__ = [
    "ALPHABET",
    "ByteTokenizer",
    "CharacterTokenizer",
    "EvalTokenBatches",
    "Example",
    "Message",
    "Report",
    "SpecialTokens",
    "TextData",
    "TokenBatches",
    "TokenData",
    "TokenSplit",
    "Tokenizer",
    "arithmetic",
    "encode",
    "encode_classification",
    "load_text",
    "only_prompts",
    "special_tokens",
    "text_of",
    "tokenised",
]
