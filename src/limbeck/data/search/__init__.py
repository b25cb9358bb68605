"""Search: collections of documents, queries and judgements, batches of pairs, negatives."""

from limbeck.data.search.batches import EvalPairBatches, PairBatch, PairBatches, PairTexts, PairTokens
from limbeck.data.search.bm25 import bm25
from limbeck.data.search.collection import Example, Judgements, SearchData, Texts, split_queries
from limbeck.data.search.corpus import BM25, Miner, Reading, SearchCorpus, corpus_of
from limbeck.data.search.divide import Limits, divided
from limbeck.data.search.extra import ExtraQueries, read_queries, with_extra
from limbeck.data.search.found import Found
from limbeck.data.search.known import KnownTexts, TextEmbeddings
from limbeck.data.search.load import load_search, search_of
from limbeck.data.search.negatives import Mined, hard_negatives
from limbeck.data.search.pairs import Pairs, training_pairs
from limbeck.data.search.report import SearchReport, told
from limbeck.data.search.scores import ScoreCache
from limbeck.data.search.tokens import TextBatch, Tokenising, TokenRows
from limbeck.data.search.words import tokenizer_facts, tokenizer_of, word_tokenizer

__all__ = [
    "BM25",
    "EvalPairBatches",
    "Example",
    "ExtraQueries",
    "Found",
    "Judgements",
    "KnownTexts",
    "Limits",
    "Mined",
    "Miner",
    "PairBatch",
    "PairBatches",
    "PairTexts",
    "PairTokens",
    "Pairs",
    "Reading",
    "ScoreCache",
    "SearchCorpus",
    "SearchData",
    "SearchReport",
    "TextBatch",
    "TextEmbeddings",
    "Texts",
    "TokenRows",
    "Tokenising",
    "bm25",
    "corpus_of",
    "divided",
    "hard_negatives",
    "load_search",
    "read_queries",
    "search_of",
    "split_queries",
    "tokenizer_facts",
    "tokenizer_of",
    "told",
    "training_pairs",
    "with_extra",
    "word_tokenizer",
]
