"""Networks that are evaluated on some data: what was gathered on each split so far, and what is asked of each kind of data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import torch

from limbeck.data import ImageData
from limbeck.errors import NonFiniteError
from limbeck.evaluate.accuracy import score_of
from limbeck.evaluate.cifar_c import CifarC
from limbeck.evaluate.collect import Gathered, Read, collect
from limbeck.evaluate.embedding_map import LIMIT as MAP_LIMIT
from limbeck.evaluate.record import Kind, Scored
from limbeck.evaluate.transfer import AUTHORS_EPOCHS
from limbeck.networks import Network
from limbeck.signals import Batch

SPLITS = {"train": "train", "validation": "val", "test": "test"}
NOISE: Final = "noise"
TEACHER: Final = "teacher"

Figures = dict[str, Any]
"""Fields of an ``Evaluation``."""


def _say_nothing(line: str) -> None: ...


@dataclass(frozen=True)
class Options:
    """What is evaluated besides the scores.

    parts: names in ``PARTS``. robustness_limit: so many images at most are corrupted and attacked. cifar_c: folder of images
    that somebody else corrupted, for robustness too. transfer: other data for probes, by the protocol "frozen", "authors" or
    "both", the second for ``transfer_epochs``. other: other data that are out of distribution, or "noise" for as many images
    of uniform noise. map_limit: so many images at most are on the map of embeddings.
    seed: of what is random in the parts. tasks: of lm-eval, on at most ``tasks_limit`` samples each.
    """

    parts: tuple[str, ...] = ()
    robustness_limit: int = 1000
    cifar_c: CifarC | None = None
    transfer: ImageData | None = None
    protocol: Literal["frozen", "authors", "both"] = "frozen"
    transfer_epochs: int = AUTHORS_EPOCHS
    other: ImageData | Literal["noise"] = NOISE
    map_limit: int = MAP_LIMIT
    seed: int = 0
    tasks: tuple[str, ...] = ()
    tasks_limit: int | None = None


@dataclass(frozen=True)
class Bench(ABC):
    """What is evaluated, of whatever kind of data.

    networks: students by their names, and "teacher" where there is one, on ``device`` and in eval mode. split: "test",
    "validation" or "train". remarks: what could not be told and why; parts add to it. progress: told how far long parts are.
    """

    kind: ClassVar[Kind]
    networks: dict[str, Network]
    split: str
    device: torch.device
    batch_size: int = 128
    workers: int = 0
    options: Options = field(default_factory=Options)
    remarks: list[str] = field(default_factory=list)
    progress: Callable[[str], None] = _say_nothing

    @property
    @abstractmethod
    def name(self) -> str:
        """The data's."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Those that the networks tell apart; none where they do something else."""

    @abstractmethod
    def costs(self, files: Mapping[str, Path | None]) -> Figures:
        """What the networks cost; ``files`` are their weights'."""

    @abstractmethod
    def tap(self, parts: Collection[str], classifiers: Mapping[str, str]) -> None:
        """Have recorded what these parts need; ``classifiers`` by name, the layer whose input is a network's embedding."""

    @abstractmethod
    def scores(self) -> tuple[dict[str, Scored], Figures]:
        """The scores that every evaluation has, by network, and other figures that come of the same pass."""

    @property
    def students(self) -> list[str]:
        """The names of all networks but the teacher."""
        return [who for who in self.networks if who != TEACHER]

    def say(self, remark: str) -> None:
        """Note what could not be told."""
        self.remarks.append(remark)


@dataclass(frozen=True)
class ClassBench(Bench):
    """Networks that tell classes apart, of images or of texts."""

    _gathered: dict[str, dict[str, Gathered]] = field(default_factory=dict, init=False, repr=False)

    @abstractmethod
    def has(self, split: str) -> bool:
        """Whether the data has this split."""

    @abstractmethod
    def samples_of(self, split: str) -> Iterable[Batch]:
        """A split in order, without augmentation."""

    @abstractmethod
    def read(self, network: Network) -> Read:
        """From a batch to what the network says about it."""

    def gathered(self, split: str | None = None) -> dict[str, Gathered]:
        """What each network said about a split; a split is gone through once, however often it is asked for."""
        name = split or self.split
        if name not in self._gathered:
            self._gathered[name] = self.collect(self.samples_of(name))
        return self._gathered[name]

    def collect(self, batches: Iterable[Batch]) -> dict[str, Gathered]:
        """What each network says about batches like those of the data."""
        return collect({who: self.read(network) for who, network in self.networks.items()}, batches)

    def scores(self) -> tuple[dict[str, Scored], Figures]:
        gathered = self.gathered()
        teacher = gathered[TEACHER].logits if TEACHER in gathered else None
        found = {}
        for who, each in gathered.items():
            try:
                score = score_of(each.logits, each.labels, None if who == TEACHER else teacher)
            except NonFiniteError as error:
                raise NonFiniteError(f"{who}: {error}") from None
            found[who] = Scored(**asdict(score))
        return found, {}
