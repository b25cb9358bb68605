"""Of which teacher, data, views and preprocessing a teacher's answers are, and in which parts two of them differ."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from limbeck.errors import CacheError, check_choice
from limbeck.fingerprint import of_module, of_split, of_tensors
from limbeck.teachers._codecs import parse_codec
from limbeck.teachers._layout import DTYPES

if TYPE_CHECKING:
    from limbeck.data import ImageSplit, Slots

FORMAT = 1
# What the parts of an identity are called in a sentence.
_WORDS = {
    "teacher": "the teacher",
    "data": "the training data",
    "views": "the augmentation",
    "table": "the views that each sample is given",
    "preprocess": "the teacher's preprocessing",
    "precision": "the precision of the teacher's forward pass",
    "dtype": "the stored dtype",
    "logits": "how logits are stored",
    "beside": "the teachers beside the first",
    "format": "the version of the cache format",
}
# The settings that make some of them.
_SETTINGS = {"dtype": "--cache-dtype", "logits": "--cache-logits"}
_DIGITS = 12


@dataclass(frozen=True)
class Identity:
    """What a cache is of. Two caches with equal identities hold the same numbers, up to those of the arithmetic."""

    teacher: str
    data: str
    views: str
    table: str
    preprocess: str
    precision: str
    dtype: str
    logits: str
    format: int = FORMAT
    beside: str = ""


def identify(
    teacher: nn.Module,
    split: ImageSplit,
    slots: Slots,
    preprocess: nn.Module,
    *,
    precision: str = "fp32",
    dtype: str = "fp16",
    logits: str = "dense",
    beside: str = "",
) -> Identity:
    """The identity of a teacher's answers.

    teacher: the network itself, without taps, as it is before anything folds or compiles it. slots: of the training
    batches. preprocess: from a batch's inputs to the teacher's. precision: of its forward pass, "fp32" or "bf16". dtype: of
    stored numbers, "fp16" or "fp32". logits: ``dense``, ``topk(K)`` or ``sampled(N)``. beside: other networks that have a part
    in the answers, in words and digits. Reads all weights and images; see
    ``limbeck.fingerprint``. Raises SettingError for a dtype or a way to store logits that does not exist.
    """
    check_choice("cache dtype", dtype, DTYPES)
    return Identity(
        teacher=f"{type(teacher).__name__} {of_module(teacher)}",
        data=f"{len(split):,} samples {of_split(split)}",
        views=slots.text,
        table=of_tensors(ids=slots.ids),
        preprocess=_described(preprocess),
        precision=precision,
        dtype=dtype,
        logits=parse_codec(logits).text,
        beside=beside,
    )


def _described(preprocess: nn.Module) -> str:
    # One that has no weights is all in its text, which reads better than digits.
    plain = not preprocess.state_dict() and "\n" not in repr(preprocess)
    return repr(preprocess) if plain else f"{type(preprocess).__name__} {of_module(preprocess)}"


def check_same(folder: Path, stored: Identity, wanted: Identity) -> None:
    """Raise CacheError unless the identities are equal; it names every part that differs."""
    ours, theirs = asdict(wanted), asdict(stored)
    # The table follows from the views and the number of samples; alone it tells of another way to draw.
    follows = {"table"} if ours["views"] != theirs["views"] or ours["data"] != theirs["data"] else set()
    differing = [name for name in ours if ours[name] != theirs[name] and name not in follows]
    if differing:
        listed = "; ".join(
            f"{_WORDS[name]}: {_short(theirs[name])} there, {_short(ours[name])} now" for name in differing
        )
        # Where nothing else differs, the settings that it was written with read it.
        given = [f"{_SETTINGS[name]} '{theirs[name]}'" for name in differing if name in _SETTINGS]
        again = f"Give {' and '.join(given)} to read it, name" if len(given) == len(differing) else "Name"
        raise CacheError(
            f"the teacher cache {folder} is of something else. {listed[0].upper()}{listed[1:]}. {again} another folder, or "
            "delete this one to have it written anew."
        )


def _short(value: object) -> str:
    short = re.sub(rf"\b([0-9a-f]{{{_DIGITS}}})[0-9a-f]{{20,}}\b", r"\1…", str(value))
    return f"'{short}'" if ", " in short else short
