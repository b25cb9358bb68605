"""Policies made of two others: a coin between them, or one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from limbeck.errors import SettingError, check_choice, check_number
from limbeck.policies.base import Policy
from limbeck.policies.draw import Draw, Stream
from limbeck.policies.fixed import Fixed
from limbeck.policies.prompts import Prompts, Response, joined
from limbeck.policies.sampled import StudentText
from limbeck.policies.writer import Writer


@dataclass(frozen=True)
class Mixed(Policy):
    """A coin says whose text it is: with probability ``share`` that of ``of``, else that of ``otherwise``.

    ``mixed`` alone is ImitKD (arXiv 2009.07253) as SKD's authors compare with it: a coin of 0.5 for each example between
    the data and the student. ``mixed(student, fixed, share=λ, per="batch")`` is GKD (arXiv 2306.13649) as TRL's trainer
    does it, one coin for each batch, and with ``teacher`` for ``fixed`` that trainer's ``seq_kd``.

    Args:
        of: a policy.
        otherwise: another.
        share: of ``of``, in [0, 1].
        per: "example" or "batch": what a coin is thrown for. A batch's coin depends on seed and step alone, so that all
            processes of a run see the same one.

    Raises:
        SettingError: an argument out of its range.
    """

    name: ClassVar[str] = "mixed"
    inner: ClassVar[tuple[str, ...]] = ("of", "otherwise")
    of: Policy = field(default_factory=StudentText)
    otherwise: Policy = field(default_factory=Fixed)
    share: float = 0.5
    per: str = "example"

    def __post_init__(self) -> None:
        _check_inner(self)
        check_number("share", self.share, low=0, high=1)
        check_choice("per", self.per, ("example", "batch"))

    @property
    def needs(self) -> frozenset[str]:
        """What either needs."""
        return self.of.needs | self.otherwise.needs

    def write(self, prompts: Prompts, student: Writer | None, teacher: Writer | None, draw: Draw) -> Response:
        """Each row's text from the policy that its coin fell on."""
        names = prompts.names if self.per == "example" else torch.full((1,), -1)
        coins = draw.uniforms(Stream.COIN, names, 1).squeeze(1) < self.share
        fallen = [(self.of, coins), (self.otherwise, ~coins)]
        for policy, which in fallen:
            if bool(which.all()):
                return policy.write(prompts, student, teacher, draw.deeper())
        parts = []
        for policy, which in fallen:
            rows = which.nonzero().flatten().to(prompts.tokens.device)
            parts.append((rows, policy.write(prompts.select(rows), student, teacher, draw.deeper())))
        return joined(parts, prompts.pad)


@dataclass(frozen=True)
class TwoStage(Policy):
    """One policy for the first ``share`` of the training, then another.

    ``two_stage`` alone is the baseline of SKD's authors: the data's text for the first half, the student's for the second.

    Args:
        first: until then.
        then: from then on.
        share: of the training, in [0, 1].

    Raises:
        SettingError: an argument out of its range.
    """

    name: ClassVar[str] = "two_stage"
    inner: ClassVar[tuple[str, ...]] = ("first", "then")
    first: Policy = field(default_factory=Fixed)
    then: Policy = field(default_factory=StudentText)
    share: float = 0.5

    def __post_init__(self) -> None:
        _check_inner(self)
        check_number("share", self.share, low=0, high=1)

    @property
    def needs(self) -> frozenset[str]:
        """What either needs, and how far the training is."""
        return self.first.needs | self.then.needs | {"progress"}

    def write(self, prompts: Prompts, student: Writer | None, teacher: Writer | None, draw: Draw) -> Response:
        """The text of the policy whose time it is."""
        assert draw.progress is not None
        policy = self.first if draw.progress < self.share else self.then
        return policy.write(prompts, student, teacher, draw.deeper())


def _check_inner(policy: Policy) -> None:
    for name in policy.inner:
        value = getattr(policy, name)
        if not isinstance(value, Policy):
            raise SettingError(f"{name} of {policy.name} must be a text policy, got {value!r}.")
