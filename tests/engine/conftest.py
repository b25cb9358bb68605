from __future__ import annotations

import multiprocessing
from typing import Any

import pytest


@pytest.fixture(scope="session")
def server() -> Any:
    """Starts processes that have imported everything already: a fresh interpreter takes longer to do that than to train."""
    context = multiprocessing.get_context("forkserver")
    # What DDP imports when it is first used is among them.
    context.set_forkserver_preload(
        [
            "torch.optim",
            "torch._dynamo",
            "torch.distributed.fsdp",
            "limbeck.comparison",
            "limbeck.report.card",
            "tests.engine.test_resume",
        ]
    )
    return context
