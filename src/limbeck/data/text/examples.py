"""Examples of text: the types that sources give and tokenising takes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from limbeck.errors import DataError

Kind = Literal["prompt", "chat", "text", "classification"]
"""What examples hold: a prompt and its completion, messages, text to be modelled, or text with a label."""
KINDS: tuple[Kind, ...] = get_args(Kind)
USER, ASSISTANT = "user", "assistant"


@dataclass(frozen=True)
class Message:
    """One turn of a chat. role: ``system``, ``user`` or ``assistant``, or another that the chat template knows."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """One example; which fields are filled depends on the kind of its data set.

    index: position in the source's own split; it stays the same in every subset.
    prompt, completion: texts of a prompt and its completion; of text to be modelled, the completion alone.
    messages: the turns of a chat; the last one is the completion.
    label: of a classification, the number of the class, or a number to be regressed on. prompt is the text there, and pair
        the second sentence where there are two.
    """

    index: int
    prompt: str = ""
    completion: str = ""
    messages: tuple[Message, ...] = ()
    label: int | float | None = None
    pair: str | None = None


@dataclass(frozen=True)
class TextData:
    """A data set of text.

    kind: what its examples hold. train, val, test: the splits; val and test may be None.
    classes: names of the classes of a classification; empty for other kinds, and where labels are numbers to regress on.
    separator: what stands between prompt and completion where no chat template is used.
    """

    name: str
    kind: Kind
    train: Sequence[Example]
    val: Sequence[Example] | None
    test: Sequence[Example] | None
    classes: tuple[str, ...] = ()
    separator: str = ""

    def split(self, name: str) -> Sequence[Example]:
        """The split ``train``, ``val`` or ``test``. Raises DataError where the data set has none of that name."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        found = splits.get(name)
        if found is None:
            present = ", ".join(part for part, split in splits.items() if split is not None)
            raise DataError(f"{self.name} has no split '{name}'; it has {present}.")
        return found

    def fingerprint(self) -> str:
        """32 hexadecimal digits over kind, classes, separator and all examples; the same on every machine."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((self.kind, self.classes, self.separator)).encode())
        for name, split in (("train", self.train), ("val", self.val), ("test", self.test)):
            digest.update(f"{name} {None if split is None else len(split)}".encode())
            for example in split or ():
                # A surrogate that JSON let through has no encoding of its own.
                digest.update(repr(astuple(example)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def labels_of(examples: Sequence[Example]) -> Tensor:
    """(N,) int64 classes, for choosing in proportion; zeros where the examples have none."""
    return torch.tensor([example.label if isinstance(example.label, int) else 0 for example in examples])
