"""What a session asks of its data's kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from limbeck.authoring import Author
from limbeck.combination import Combination
from limbeck.config import DistillSettings, RunSettings
from limbeck.engine.adversary import Adversary
from limbeck.errors import SettingError
from limbeck.evaluate import Score
from limbeck.evaluate.judge import Judge
from limbeck.evaluate.record import Kind
from limbeck.models.language import Adapters
from limbeck.models.spec import ModelSpec
from limbeck.networks import Network
from limbeck.objectives import CE, Objective
from limbeck.objectives.base import Attack
from limbeck.policies import Fixed, Policy
from limbeck.runs import RunFolder
from limbeck.servers import parse_server
from limbeck.signals import Batch
from limbeck.tasks.base import Task
from limbeck.teachers import Teacher

if TYPE_CHECKING:  # these know what kind of data they are of
    from limbeck.feeds import Feeds
    from limbeck.job import Job
    from limbeck.surroundings import Surroundings
    from limbeck.teaching import Teaching


@dataclass(frozen=True)
class Examined:
    """What a network did on the test split beside its score: figures, and what :meth:`Modality.write` makes a file of."""

    figures: Mapping[str, float] = field(default_factory=dict)
    details: Any = None


class Modality(ABC):
    """One kind of data, with the facts of one data set.

    What only some kinds have is refused here, or is nothing; a kind that has it says so by its own method.

    combines: whether a teacher of several networks can be evaluated on such data. quickly_made: whether networks by name are
    small enough to be made for their size alone. same_samples: settings that must be equal in two runs for figures on one
    split to be of the same samples, besides those that divide every kind of data. usual_objectives: what is compared where
    the user does not say, and the last of them what is distilled with. baseline: what comparisons have beside them.
    """

    same_samples: ClassVar[tuple[str, ...]]
    usual_objectives: ClassVar[tuple[str, ...]] = ("icd", "icd+kd")
    baseline: ClassVar[str] = "kd"
    combines: ClassVar[bool] = False
    quickly_made: ClassVar[bool] = False

    # -- the data ------------------------------------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def claims(data: object, setting: str) -> bool:
        """Whether data as they were given or read are of this kind; where they are None, those that a setting names."""

    @staticmethod
    @abstractmethod
    def read(jobs: Sequence[Job], accelerator: Accelerator, say: Callable[[str], None]) -> Any:
        """The data of the first job, read and, where it is text or a collection, as tokens of the networks of all jobs.

        Raises LimbeckError: what is wrong with the data, or with a setting that is for data of another kind.
        """

    @staticmethod
    @abstractmethod
    def feeds(data: Any, settings: RunSettings, device: torch.device) -> Feeds:
        """The streams of batches that these settings make of what :meth:`read` gave.

        Raises LimbeckError where the settings do not fit the data.
        """

    @staticmethod
    @abstractmethod
    def evaluated(settings: RunSettings, students: Sequence[str], teacher: str | None) -> Any:
        """The data that the settings of an evaluation name, for networks that are named by texts.

        Raises LimbeckError: what is wrong with it, or networks that cannot be compared on it.
        """

    @staticmethod
    @abstractmethod
    def evaluated_as(data: Any) -> Kind:
        """What an evaluation calls such data, as :meth:`evaluated` gave them; it says which parts there are."""

    @staticmethod
    def alone() -> Objective:
        """What a network learns from such data without a teacher: the labels."""
        return CE()

    @property
    @abstractmethod
    def samples(self) -> str:
        """What samples are called in messages, in the plural."""

    @property
    @abstractmethod
    def predictions(self) -> str:
        """What is predicted, in the plural."""

    @property
    @abstractmethod
    def usual_epochs(self) -> int | None:
        """Passes over the data where the user does not say; None where nobody knows."""

    @abstractmethod
    def facts(self) -> str | None:
        """The data in a line for the user; None where nothing is known."""

    def labels_by_index(self) -> Tensor | None:
        """(N,) int64 label of each training sample by its index; None where they are not known."""
        return None

    # -- networks ------------------------------------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def spec(model: str) -> ModelSpec:
        """The parts of the text that names a network: a run's folder, a weights file, or a name.

        Raises SettingError where the text cannot be read.
        """

    @abstractmethod
    def open(
        self,
        model: str | nn.Module,
        *,
        who: str,
        probe: Batch,
        device: torch.device,
        classifier: str | None,
        image_size: int | None = None,
        embedding: bool = True,
        lora: str | None = None,
    ) -> Network:
        """A network made or taken, on the device, tapped; see :func:`limbeck.networks.open_network`.

        ``lora``: adapters that alone are to learn in it, as the setting ``student_lora`` writes them; of text alone.
        """

    @abstractmethod
    def task(self, network: Network, *, channels_last: bool) -> Task:
        """How a network sees a batch."""

    # -- teaching ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def teaching(self, teacher: str | nn.Module | Combination, needs: frozenset[str], around: Surroundings) -> Teaching:
        """The teacher of the students of a session, opened and checked. ``needs``: what their objectives need of it.

        Raises LimbeckError: what is wrong with it, or a teacher that such data cannot have.
        """

    def author(
        self, policy: Policy, student: Network, teacher: Network | None, settings: DistillSettings
    ) -> Author | None:
        """Who writes the texts of a run with this policy; None where they are the data's.

        Raises SettingError where the policy does not fit the data, the teacher or the other settings.
        """
        if policy != Fixed():
            raise SettingError(f"policy: {policy} says which text is seen, and the data are {self.samples}.")
        return None

    def adversary(self, teacher: Teacher, task: Task) -> Adversary | None:
        """What attacks the teacher for objectives that ask for it; None where it cannot be attacked."""
        return None

    def check_attack(self, attack: Attack, task: Task, probe: Batch, who: str) -> None:
        """Raise SettingError where an attack does not fit the data. ``task``: the teacher's. ``who``: the objective."""
        raise SettingError(f"'{who}' attacks images, and the data are none.")

    def check_companions(self) -> None:
        """Raise SettingError where a student on such data can have no peers and no branches, as ``dml`` and ``one`` want."""
        raise SettingError(
            f"objective: peers and branches, which 'dml' and 'one' train beside a student, are for images, and the data are "
            f"{self.samples}."
        )

    def check_adapted_teacher(self) -> None:
        """Raise SettingError where a teacher on such data cannot be given adapters."""
        raise SettingError("adapters in the teacher are for language models, and the data are no text.")

    # -- what comes of a run -------------------------------------------------------------------------------------------

    def examine(
        self, opened: Network, network: nn.Module, score: Score, settings: RunSettings, device: torch.device
    ) -> Examined:
        """More about a network that got this score on the test split. ``opened``: as it was opened, for training."""
        return Examined()

    def judge(self, settings: RunSettings, device: torch.device) -> Judge | None:
        """What selects a student's weights on the validation split; None for the accuracy alone.

        Raises SettingError where the settings ask for what this data has not.
        """
        if settings.validate_by != "accuracy":
            raise SettingError(
                f"validate_by={settings.validate_by} is for collections that are searched, not for {self.samples}."
            )
        return None

    def write(
        self,
        folder: RunFolder,
        network: nn.Module,
        student: Examined | None,
        teacher: Examined | None,
        adapters: Adapters | None = None,
    ) -> None:
        """Write into a run's folder what comes with its student: ``network``, with what it and its teacher did on the test.

        ``adapters``: those that it learnt with, which are in its weights by now. The weights are written by the run.
        """
        return

    @abstractmethod
    def card(self, name: str, network: Network) -> dict[str, str]:
        """What a weights file says of itself; ``name`` is the text that makes the network."""


def check_not_served(teacher: object, name: str) -> None:
    """Raise SettingError for a teacher on a server, on data of this name that no language model writes on."""
    if parse_server(teacher) is not None:
        raise SettingError(f"teacher: a server of language models reads and writes text, and {name} is none.")
