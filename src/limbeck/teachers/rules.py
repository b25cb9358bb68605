"""How the logits of several teachers become one answer."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.errors import SettingError, check_choice, check_number, check_whole
from limbeck.signals import Batch

RULES: dict[str, type[Rule]] = {}
"""Rules by the names that they have in a teacher's text."""

T = TypeVar("T")


class Rule(ABC):
    """A way to make one teacher of several, whose embedding and feature maps are those of the principal one.

    Class attributes:
        name: in a teacher's text, as in ``mean(runs/one, runs/two)``.
        fewest, most: how many teachers it takes.
        principal: place of the teacher that gives everything but the logits.
        cachable: whether an answer depends on the sample and its view alone, and not on the epoch.
        needs_losses: whether :meth:`prepare` must be told how hard each sample is for each teacher.

    Every argument of ``__init__`` is stored under its own name.
    """

    name: ClassVar[str]
    fewest: ClassVar[int] = 2
    most: ClassVar[int | None] = None
    principal: ClassVar[int] = 0
    cachable: ClassVar[bool] = True
    needs_losses: ClassVar[bool] = False

    def __init_subclass__(cls, *, name: str, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.name = name
        RULES[name] = cls

    def __str__(self) -> str:
        """Its arguments that are not at their default, as in a teacher's text."""
        parameters = inspect.signature(type(self)).parameters.values()
        given = {p.name: getattr(self, p.name) for p in parameters if getattr(self, p.name) != p.default}
        return ", ".join(f"{name}={value!r}" for name, value in given.items())

    def check(self, parameters: Sequence[int]) -> None:
        """Check the teachers by how many parameters each has. Raises SettingError for too few or too many of them."""
        count = len(parameters)
        if count < self.fewest or (self.most is not None and count > self.most):
            wanted = f"{self.fewest}" if self.most == self.fewest else f"at least {self.fewest}"
            raise SettingError(f"teacher: {self.name} takes {wanted} teacher{'s' * (wanted != '1')}, got {count}.")

    def others(self, network: nn.Module) -> list[nn.Module]:
        """Teachers that are made from the one that was given; none by default."""
        return []

    def in_order(self, principal_first: Sequence[T]) -> list[T]:
        """What belongs to each teacher in the order that the rule is for, from the order with the principal one first."""
        principal, *others = principal_first
        place = self.principal % len(principal_first)
        return [*others[:place], principal, *others[place:]]

    def principal_first(self, in_order: Sequence[T]) -> list[T]:
        """The order of :meth:`in_order` undone."""
        place = self.principal % len(in_order)
        return [in_order[place], *in_order[:place], *in_order[place + 1 :]]

    def prepare(self, sample_losses: Tensor, index: Tensor) -> None:
        """Take the cross-entropy (M, n) of each of M teachers on the training samples of index (n,)."""
        return

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Told the number of the epoch that begins, from 1, and of all epochs of the stage."""
        return

    @abstractmethod
    def answer(self, logits: Sequence[Tensor]) -> Tensor:
        """Logits (B, C) from those of each teacher, (B, C) float32; on validation and test."""

    def teach(self, logits: Sequence[Tensor], batch: Batch) -> Tensor:
        """The same in training, where labels and indices of the batch may be looked at."""
        return self.answer(logits)


class Mean(Rule, name="mean"):
    """The weighted mean of logits, or of probabilities: ``mean(A, B, weights=[2, 1])``.

    Of logits z_m with weights w_m that sum to 1: Σ_m w_m z_m, the geometric mean of the distributions; of probabilities
    log Σ_m w_m softmax(z_m).

    Args:
        weights: a positive number each; equal ones when not given.
        of: "logits" or "probabilities".
    """

    def __init__(self, *, weights: list[float] | tuple[float, ...] | None = None, of: str = "logits") -> None:
        check_choice("of", of, ("logits", "probabilities"))
        if weights is not None:
            if not isinstance(weights, list | tuple):
                raise SettingError(f"weights must be a list of numbers, got {weights!r}.")
            for weight in weights:
                check_number("weights", weight, low=0, open_low=True)
        self.weights, self.of = None if weights is None else list(weights), of

    def check(self, parameters: Sequence[int]) -> None:
        super().check(parameters)
        if self.weights is not None and len(self.weights) != len(parameters):
            raise SettingError(f"teacher: {len(self.weights)} weights are given for {len(parameters)} teachers.")

    def answer(self, logits: Sequence[Tensor]) -> Tensor:
        weights = self.weights or [1.0] * len(logits)
        shares = [weight / sum(weights) for weight in weights]
        if self.of == "logits":
            return torch.stack([share * each for share, each in zip(shares, logits, strict=True)]).sum(dim=0)
        stacked = torch.stack([each.log_softmax(dim=1) for each in logits])
        return (stacked + stacked.new_tensor(shares).log()[:, None, None]).logsumexp(dim=0)


class Vote(Rule, name="vote"):
    """The share of teachers that decide for each class, as logits: log((1 - s) · share + s / C).

    Args:
        smoothing: s in (0, 1], so that a class without a vote has a finite logit.
    """

    def __init__(self, *, smoothing: float = 0.1) -> None:
        check_number("smoothing", smoothing, low=0, high=1, open_low=True)
        self.smoothing = smoothing

    def answer(self, logits: Sequence[Tensor]) -> Tensor:
        classes = logits[0].shape[1]
        votes = torch.stack([nn.functional.one_hot(each.argmax(dim=1), classes) for each in logits])
        share = votes.to(logits[0].dtype).mean(dim=0)
        return ((1 - self.smoothing) * share + self.smoothing / classes).log()


class Best(Rule, name="best"):
    """For each training sample the teacher with the smallest cross-entropy on its label; the mean where labels are unknown.

    On validation and test no label is looked at: the answer there is the mean of the logits.
    """

    def teach(self, logits: Sequence[Tensor], batch: Batch) -> Tensor:
        stacked = torch.stack(list(logits))
        costs = torch.stack([losses.cross_entropy(each, batch.labels) for each in logits])
        return _picked(stacked, costs.argmin(dim=0))

    def answer(self, logits: Sequence[Tensor]) -> Tensor:
        return Mean().answer(logits)


class PrunedMix(Rule, name="pruned_mix"):
    """A teacher mixed with a lightly pruned copy of itself: (1 - w) z + w z', as in R2KD (arXiv 2311.13934).

    In the copy the ``amount`` of weights of smallest magnitude is zero in each convolution and linear layer by itself;
    nothing is trained again. Logits are averaged, not probabilities. Both are in eval mode, where the public code leaves
    the copy's batch norms in training mode.

    Args:
        amount: share of the weights of each layer, in (0, 1).
        weight: w in (0, 1).
    """

    fewest, most = 1, 1

    def __init__(self, *, amount: float = 0.1, weight: float = 0.3) -> None:
        check_number("amount", amount, low=0, high=1, open_low=True)
        check_number("weight", weight, low=0, high=1, open_low=True)
        if 1 in (amount, weight):
            raise SettingError(f"pruned_mix: amount and weight must be less than 1, got {amount!r} and {weight!r}.")
        self.amount, self.weight = amount, weight

    def others(self, network: nn.Module) -> list[nn.Module]:
        return [pruned(network, self.amount)]

    def answer(self, logits: Sequence[Tensor]) -> Tensor:
        whole, thinned = logits
        return (1 - self.weight) * whole + self.weight * thinned


class Routed(Rule, name="routed"):
    """One expert for each training sample: easy samples go to small experts and hard ones to large, over a curriculum.

    A **reconstruction** of CES-KD (arXiv 2209.07606), of which the abstract alone was read. From it: one expert an image, by
    how hard it is to classify, through a curriculum. Chosen here: the measure, the strata and the pacing. The difficulty of a
    sample is its cross-entropy, measured once on the training images without augmentation. The M experts, from small to
    large, share the samples in M strata of equal size. In stage s of the curriculum the strata up to s have their own expert
    and harder ones that of s; the first M - 1 stages share the first ``pacing`` of the epochs, and then all strata have theirs.

    Every expert is asked about every sample, and one answer is taken. The embedding and feature maps are those of the largest;
    so is the answer on validation and test.

    Args:
        by: whose cross-entropy is a sample's difficulty: the mean over the "experts", or that of the "largest".
        order: "difficulty"; or a control: "reversed" (easy samples to large experts) or "random" (strata drawn by ``seed``).
        pacing: share of the epochs in [0, 1] after which the full mapping holds.
        seed: of the random strata.
    """

    principal = -1
    cachable = False
    needs_losses = True

    def __init__(self, *, by: str = "experts", order: str = "difficulty", pacing: float = 0.5, seed: int = 0) -> None:
        check_choice("by", by, ("experts", "largest"))
        check_choice("order", order, ("difficulty", "reversed", "random"))
        check_number("pacing", pacing, low=0, high=1)
        check_whole("seed", seed, low=0)
        self.by, self.order, self.pacing, self.seed = by, order, pacing, seed
        self._strata = self._experts = torch.zeros(0, dtype=torch.int64)
        self._count = 0

    def check(self, parameters: Sequence[int]) -> None:
        super().check(parameters)
        if list(parameters) != sorted(parameters):
            sizes = ", ".join(f"{count:,}" for count in parameters)
            raise SettingError(
                f"teacher: routed takes its experts from small to large, and these have {sizes} parameters."
            )

    def prepare(self, sample_losses: Tensor, index: Tensor) -> None:
        self._count, samples = sample_losses.shape
        if self._count > samples:
            raise SettingError(f"teacher: {samples} training samples cannot be shared by {self._count} experts.")
        hardness = sample_losses.double().mean(dim=0) if self.by == "experts" else sample_losses[-1].double()
        if self.order == "random":
            hardness = torch.randperm(samples, generator=torch.Generator().manual_seed(self.seed)).double()
        places = torch.empty(samples, dtype=torch.int64)
        places[hardness.argsort(stable=True)] = torch.arange(samples)
        self._strata = torch.zeros(int(index.max()) + 1, dtype=torch.int64)
        self._strata[index.cpu()] = places * self._count // samples
        self.start_epoch(1, 1)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        paced = self.pacing * epochs
        last = self._count - 1
        stage = last if paced == 0 else min(last, int((epoch - 1) * last / paced))
        strata = self._strata.clamp(max=stage)
        self._experts = last - strata if self.order == "reversed" else strata

    def experts(self, index: Tensor) -> Tensor:
        """(B,) int64: the expert of each training sample in this epoch, counted from 0, the smallest."""
        if self._experts.device != index.device:
            self._experts = self._experts.to(index.device)
        return self._experts[index]

    def teach(self, logits: Sequence[Tensor], batch: Batch) -> Tensor:
        assert batch.index is not None
        return _picked(torch.stack(list(logits)), self.experts(batch.index))

    def answer(self, logits: Sequence[Tensor]) -> Tensor:
        return logits[-1]


def _picked(stacked: Tensor, which: Tensor) -> Tensor:
    """(B, C): for each sample the row of one of (M, B, C), by (B,) places."""
    return stacked[which, torch.arange(stacked.shape[1], device=stacked.device)]


def pruned(network: nn.Module, amount: float) -> nn.Module:
    """A copy in which the smallest weights of each convolution and linear layer are zero, ``amount`` of them in (0, 1).

    Of n weights round(amount · n) go, as in ``torch.nn.utils.prune.l1_unstructured``; of equal magnitudes any.

    Raises:
        SettingError: a layer would lose all of its weights, or the network has no such layer.
    """
    thinned = copy.deepcopy(network)
    layers = {name: module for name, module in thinned.named_modules() if _is_weighted(module)}
    if not layers:
        raise SettingError(f"pruned_mix: {type(network).__name__} has no convolution and no linear layer.")
    with torch.no_grad():
        for name, layer in layers.items():
            weight = layer.weight
            assert isinstance(weight, Tensor)
            count = round(amount * weight.numel())
            if count >= weight.numel():
                raise SettingError(f"pruned_mix: an amount of {amount} leaves no weight of the layer {name}.")
            if count:
                smallest = weight.abs().flatten().topk(count, largest=False).indices
                weight.view(-1)[smallest] = 0
    return thinned


def _is_weighted(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
