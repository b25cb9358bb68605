"""What tests of runs on search share: a tiny collection, tiny encoders and settings that train in a second."""

from __future__ import annotations

from typing import Any

import torch

import limbeck
from limbeck.data.search import SearchData, Texts, word_tokenizer
from limbeck.job import Distilled
from limbeck.models.encoders import Encoder, create_encoder

TEACHER, STUDENT = "bert(layers=2, width=32, heads=2, dropout=0)", "bert(layers=1, width=16, heads=2, dropout=0)"
QUICK: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 8,
    "optimizer": "adamw",
    "lr": 0.003,
    "max_length": 16,
    "allow_weak_teacher": True,
}


def collection(count: int = 40) -> SearchData:
    """Documents of six words, of which the query of each has two; every fourth query is of the test, every fifth of val."""
    generator = torch.Generator().manual_seed(0)
    words = [f"w{number}" for number in range(60)]
    rows = [torch.randperm(60, generator=generator)[:6].tolist() for _ in range(count)]
    documents = Texts(tuple(f"d{i}" for i in range(count)), tuple(" ".join(words[w] for w in row) for row in rows))
    queries = Texts(tuple(f"q{i}" for i in range(count)), tuple(f"{words[r[1]]} {words[r[4]]}" for r in rows))
    parts: dict[str, dict[str, dict[str, int]]] = {"train": {}, "val": {}, "test": {}}
    for i in range(count):
        part = "test" if i % 4 == 3 else "val" if i % 5 == 4 else "train"
        parts[part][f"q{i}"] = {f"d{i}": 1}
    return SearchData("tiny", documents, queries, parts)


def encoder(text: str, seed: int = 0, data: SearchData | None = None) -> Encoder:
    """An encoder for the words of the collection."""
    torch.manual_seed(seed)
    tokenizer = word_tokenizer((data or collection()).documents.texts)
    return create_encoder(text, tokenizer=tokenizer, max_length=QUICK["max_length"]).encoder


def distilled(objective: str = "contrastive + listwise_kl", **settings: Any) -> Distilled:
    """A student after a short run; its settings are ``QUICK`` but for those that are given."""
    given = {**QUICK, **settings}
    data = given.pop("data", None) or collection()
    teacher = given.pop("teacher", None) or encoder(TEACHER, 1)
    student = given.pop("student", None) or encoder(STUDENT, 2)
    return limbeck.distill(teacher, student, data, objective, **given)


def weights(done: Distilled) -> dict[str, torch.Tensor]:
    """The student's weights."""
    return {name: value.clone() for name, value in done.student.state_dict().items()}
