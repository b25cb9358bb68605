"""A collection that is generated: documents and queries name the same things by different words."""

from __future__ import annotations

import inspect
import re

import torch

from limbeck.data.search.collection import SearchData, Texts
from limbeck.data.search.report import SearchReport, told
from limbeck.data.seeds import stream
from limbeck.errors import SettingError, check_whole, unknown_name
from limbeck.expression import parse_call

SYNONYMS = re.compile(r"synonyms\s*(\(.*\))?\s*", re.DOTALL)

_DOCUMENT, _QUERY = 8, 4  # meanings of a text
_TOPIC = 20  # meanings of a topic; a document is about two


def synonyms(
    *, train: int = 1600, val: int = 100, test: int = 300, meanings: int = 200, words: int = 3, seed: int = 0
) -> SearchData:
    """A document names 8 meanings of two topics, and its query 4 of them by other words: which are synonyms must be learnt.

    train, val, test: queries of each part; each has one document. meanings: how many there are, 20 in a topic. words: synonyms
    of each, at least 2. The same numbers make the same collection.

    Raises:
        SettingError: a number is too small.
    """
    for name, value, low in (
        *(("train", train, 1), ("val", val, 1), ("test", test, 1)),
        *(("meanings", meanings, 2 * _TOPIC), ("words", words, 2), ("seed", seed, 0)),
    ):
        check_whole(name, value, low=low)
    generator = stream(seed)

    def some(count: int, among: int) -> list[int]:
        return torch.randperm(among, generator=generator)[:count].tolist()

    documents, queries = [], []
    for _ in range(train + val + test):
        topics = some(2, meanings // _TOPIC)
        meant = [topics[place % 2] * _TOPIC + place // 2 for place in some(_DOCUMENT, 2 * _TOPIC)]
        chosen = [some(2, words) for _ in meant]
        asked = some(_QUERY, _DOCUMENT)
        documents.append(" ".join(_word(meaning, pair[0]) for meaning, pair in zip(meant, chosen, strict=True)))
        queries.append(" ".join(_word(meant[place], chosen[place][1]) for place in asked))
    ends = {"train": (0, train), "val": (train, train + val), "test": (train + val, train + val + test)}
    judged = {part: {f"q{i}": {f"d{i}": 1} for i in range(*span)} for part, span in ends.items()}
    return SearchData("synonyms", _texts("d", documents), _texts("q", queries), judged)


def generated(spec: str) -> tuple[SearchData, SearchReport]:
    """The collection that ``synonyms(…)`` names.

    Raises:
        SettingError: a setting that it has not, or out of range.
    """
    settings = parse_call(spec.strip(), "data").arguments
    accepted = inspect.signature(synonyms).parameters
    for name in settings:
        if name not in accepted:
            raise SettingError(f"data synonyms: {unknown_name('setting', name, accepted)}")
    data = synonyms(**settings)
    return data, told(data)


def _word(meaning: int, number: int) -> str:
    return f"m{meaning}{'abcdefghijklmnopqrstuvwxyz'[number % 26]}{number // 26 or ''}"


def _texts(letter: str, texts: list[str]) -> Texts:
    return Texts(tuple(f"{letter}{number}" for number in range(len(texts))), tuple(texts))
