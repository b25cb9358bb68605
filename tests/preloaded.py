"""What a training process imports, for the server that starts those of the tests."""

# ruff: noqa: F401
from __future__ import annotations

import gc
from contextlib import suppress

import sklearn.datasets
import torch._dynamo
import torch.distributed.fsdp
import torch.optim
import torchvision

import limbeck.chain
import limbeck.comparison
import limbeck.data
import limbeck.report.card
import limbeck.testing
import tests.engine.test_resume

with suppress(ImportError):
    import transformers.models.llama.modeling_llama

    import limbeck.policies.generation

# Else every process that is forked goes through all of it when it collects garbage.
gc.freeze()
