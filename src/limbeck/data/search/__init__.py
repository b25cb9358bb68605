"""Search: collections of documents, queries and judgements, batches of pairs, negatives."""

from limbeck.data.search.batches import PairBatch, PairBatches, PairTexts, PairTokens
from limbeck.data.search.bm25 import bm25
from limbeck.data.search.collection import Example, Judgements, SearchData, Texts, split_queries
from limbeck.data.search.found import Found
from limbeck.data.search.load import load_search
from limbeck.data.search.negatives import Mined, hard_negatives
from limbeck.data.search.pairs import Pairs, training_pairs
from limbeck.data.search.report import SearchReport
from limbeck.data.search.scores import ScoreCache
from limbeck.data.search.tokens import TextBatch, Tokenising, TokenRows

__all__ = [
    "Example",
    "Found",
    "Judgements",
    "Mined",
    "PairBatch",
    "PairBatches",
    "PairTexts",
    "PairTokens",
    "Pairs",
    "ScoreCache",
    "SearchData",
    "SearchReport",
    "TextBatch",
    "Texts",
    "TokenRows",
    "Tokenising",
    "bm25",
    "hard_negatives",
    "load_search",
    "split_queries",
    "training_pairs",
]
