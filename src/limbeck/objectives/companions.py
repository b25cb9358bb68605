"""What an objective may ask to have beside the student while it learns. It says so in words and never sees a network."""

from __future__ import annotations

from dataclasses import dataclass

SAME = "same"
"""The peer that is a network like the student, with an initialisation of its own."""


@dataclass(frozen=True)
class Peers:
    """Whole networks that see what the student sees.

    models: a name for each, as ``limbeck list models`` has them, or ``same``.
    """

    models: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many networks give logits beside the student's."""
        return len(self.models)


@dataclass(frozen=True)
class Branches:
    """More ends of the student: its last stage and all behind it, each with an initialisation of its own.

    All of them, the student's own end too, start from the output of its last stage but one, the trunk.

    count: how many there are beside the student's own.
    """

    count: int


@dataclass(frozen=True)
class Adapted:
    """The teacher once more, with adapters (LoRA) that learn; its own weights are those of the teacher and stay.

    At the first step it says what the teacher says.

    rank: of the adapters.
    """

    rank: int

    @property
    def count(self) -> int:
        """How many networks give logits beside the student's."""
        return 1


Companions = Peers | Branches | Adapted
"""Networks that learn beside the student, give ``Signals.peers``, and are thrown away after the training."""
