"""What all tests share: one torch thread, repeatable hypothesis, a registry that forgets what a test registered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from limbeck.objectives import objectives, registry

torch.set_num_threads(1)
hypothesis.settings.register_profile("limbeck", deadline=None, derandomize=True, database=None, max_examples=60)
hypothesis.settings.load_profile("limbeck")


@pytest.fixture(autouse=True)
def _registry_as_before() -> Iterator[None]:
    objectives()
    classes, aliases = dict(registry._classes), dict(registry._aliases)
    yield
    for current, before in ((registry._classes, classes), (registry._aliases, aliases)):
        current.clear()
        current.update(before)


@pytest.fixture
def data_shared() -> Path:
    """The data that lies beside the repository, outside of git; LIMBECK_SHARED names another place for its parent."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("LIMBECK_SHARED", beside)) / "data"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}; set LIMBECK_SHARED to the folder that holds it")
    return folder
