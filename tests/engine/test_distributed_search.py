"""Search in two processes: each query has the documents of both for negatives, as one process has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sentence_transformers", reason="encoders are opened by the package sentence-transformers")

from .test_distributed import check_equal, train, train_in_two


def test_two_processes_train_the_encoder_that_one_trains(server: Any, tmp_path: Path) -> None:
    changes = {
        "data": "search:synonyms(train=32, val=10, test=10, meanings=40)",
        "teacher": "bert(layers=1, width=16, heads=2, dropout=0)",
        "student": "bert(layers=1, width=8, heads=2, dropout=0)",
        "objective": "embed_distill",
        "negatives": 1,
        "mining": "random",
        "max_length": 12,
        "batch_size": 8,
        "epochs": 1,
        "train_limit": None,
        "lr": 0.01,
    }
    one, two = tmp_path / "one", tmp_path / "two"
    train(one, changes)
    train_in_two(server, two, changes)
    terms = ("loss", "contrastive", "listwise_kl", "embed_match.queries", "embed_match.documents", "train_accuracy")
    check_equal(one / "run", two / "run", terms)
    assert (two / "run" / "encoder" / "modules.json").is_file()
