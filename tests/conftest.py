"""What all tests share: one torch thread, repeatable hypothesis, a registry that forgets what a test registered."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

from limbeck.objectives import objectives, registry

torch.set_num_threads(1)
hypothesis.settings.register_profile("limbeck", deadline=None, derandomize=True, database=None, max_examples=60)
hypothesis.settings.load_profile("limbeck")


_modules = pytest.StashKey[int]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave what imports made out of garbage collections.

    Accelerate collects garbage at the beginning and at the end of a run. Going through all that torch and its kin consist of
    took two thirds of the time of a small run.
    """
    if len(sys.modules) > item.config.stash.get(_modules, 0) + 50:
        gc.collect()
        gc.freeze()
        item.config.stash[_modules] = len(sys.modules)


@pytest.fixture(autouse=True)
def _registry_as_before() -> Iterator[None]:
    objectives()
    classes, aliases = dict(registry._classes), dict(registry._aliases)
    yield
    for current, before in ((registry._classes, classes), (registry._aliases, aliases)):
        current.clear()
        current.update(before)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests in a row to each worker, as those of a file share fixtures and imports; who is done first takes of the other's."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None


@pytest.fixture(scope="session")
def server() -> Any:
    """Starts processes that have imported everything already: a fresh interpreter takes longer to do that than to train.

    There is one server for all tests of a worker, so it is started here, before a check asks for one that imports less.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])
    forkserver.ensure_running()
    return context


@pytest.fixture(scope="session")
def shared() -> Path:
    """What lies beside the repository, outside of git; LIMBECK_SHARED names another place for it."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("LIMBECK_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}; set LIMBECK_SHARED to the folder that holds it")
    return folder
