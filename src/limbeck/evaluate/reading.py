"""The data of an evaluation, of whatever kind, in the tokens of its networks where it is text or a collection."""

from __future__ import annotations

from collections.abc import Sequence

from limbeck.config import RunSettings
from limbeck.evaluate.opening import Data
from limbeck.modalities import modality_of


def read_evaluated(settings: RunSettings, students: Sequence[str], teacher: str | None) -> Data:
    """The data that the settings name, for networks that are named by texts.

    Raises:
        LimbeckError: what is wrong with it, or networks of text whose tokenizers differ.
    """
    data: Data = modality_of(None, settings.data).evaluated(settings, students, teacher)
    return data
