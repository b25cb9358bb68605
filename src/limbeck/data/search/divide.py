"""A collection's queries for training, validation and test, where its files do not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from limbeck.data.search.collection import SearchData, split_queries
from limbeck.data.seeds import stream
from limbeck.errors import DataError

T = TypeVar("T")

_VAL, _TRAIN, _TEST = 1, 2, 3  # streams of the seed


@dataclass(frozen=True)
class Limits:
    """How many training examples and test queries at most; None for all."""

    train: int | None = None
    test: int | None = None


def divided(data: SearchData, seed: int, *, val: float, test: float, limits: Limits | None = None) -> SearchData:
    """The collection with parts for training and validation, and a test where there is one.

    A collection whose judgements name no part ``train`` is drawn anew by :func:`split_queries`, whatever its parts are
    called. Otherwise its parts stay as they are, and where there is no ``val``, the share ``val`` of the training queries
    becomes it, with all their documents. What is drawn depends on the seed alone.

    Raises:
        SettingError, DataError: shares out of range, or too few queries.
    """
    limits = limits or Limits()
    if not data.examples and "train" not in data.judgements:
        data = split_queries(data, seed, val=val, test=test)
    elif "val" not in data.judgements and val > 0:
        data = _with_validation(data, seed, val)
    if limits.test is not None and "test" in data.judgements:
        judged = data.part("test")
        kept = _some(list(judged), limits.test, seed, _TEST)
        data = replace(data, judgements={**data.judgements, "test": {query: judged[query] for query in kept}})
    if limits.train is not None:
        # As examples they keep their order, and other documents of their queries stay known as answers.
        data = replace(data, examples=tuple(_some(data.training(), limits.train, seed, _TRAIN)))
    return data


def _with_validation(data: SearchData, seed: int, share: float) -> SearchData:
    examples = data.training()
    asked = list(dict.fromkeys(example.query for example in examples))
    count = max(1, round(share * len(asked)))
    if count >= len(asked):
        raise DataError(f"{data.name} has {len(asked)} training queries, too few to hold some out; set val_fraction=0.")
    held = set(_some(asked, count, seed, _VAL))
    queries, documents = data.queries.ids, data.documents.ids
    val: dict[str, dict[str, int]] = {}
    for example in examples:
        if example.query in held:
            val.setdefault(queries[example.query], {})[documents[example.positive]] = 1
    parts = {**data.judgements, "val": val}
    if data.examples:
        return replace(data, judgements=parts, examples=tuple(e for e in examples if e.query not in held))
    train = data.part("train")
    parts["val"] = {query: judged for query, judged in train.items() if query in val}
    parts["train"] = {query: judged for query, judged in train.items() if query not in val}
    return replace(data, judgements=parts)


def _some(items: Sequence[T], count: int, seed: int, number: int) -> list[T]:
    order = torch.randperm(len(items), generator=stream(seed, number)).tolist()[:count]
    return [items[place] for place in sorted(order)]
