"""What tests of runs on text share: tiny networks and settings that train in a second."""

from __future__ import annotations

from typing import Any

import torch

import limbeck
from limbeck.job import Distilled
from limbeck.models.language import create_language_model

SUMS = 'arithmetic(digits=2, operations="+", train=96, val=24, test=24)'
TEACHER, STUDENT = "llama(layers=2, width=32, heads=2)", "llama(layers=1, width=16, heads=2)"
QUICK: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 16,
    "optimizer": "adamw",
    "lr": 0.01,
    "max_length": 12,
    "max_new_tokens": 6,
    "allow_weak_teacher": True,
    "answers": 8,
}


def network(text: str, seed: int = 0) -> torch.nn.Module:
    """A causal model for the characters of arithmetic."""
    torch.manual_seed(seed)
    return create_language_model(text, task="causal", vocabulary=15, context=32, pad=0, end=1).network


def distilled(objective: str = "kl", **settings: Any) -> Distilled:
    """A student after a short run on sums; its settings are ``QUICK`` but for those that are given."""
    given = {"tokenizer": "characters", **QUICK, **settings}
    data = given.pop("data", SUMS)
    teacher = given.pop("teacher", None) or network(TEACHER, 1)
    student = given.pop("student", None) or network(STUDENT, 2)
    return limbeck.distill(teacher, student, data, objective, **given)


def weights(done: Distilled) -> dict[str, torch.Tensor]:
    """The student's weights."""
    return {name: value.clone() for name, value in done.student.state_dict().items()}
