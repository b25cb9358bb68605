from __future__ import annotations

import pytest
import torch

from limbeck.data import ImageSplit
from limbeck.data.vision import at_most, limited
from limbeck.errors import DataError, SettingError

from .conftest import resident_split


def test_split_checks_itself() -> None:
    good = resident_split(4)
    with pytest.raises(DataError, match="images must be uint8"):
        ImageSplit(good.images.float(), good.labels, good.index)  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"labels must be int64 \(4,\)"):
        ImageSplit(good.images, good.labels[:2], good.index)
    with pytest.raises(DataError, match="index must be int64"):
        ImageSplit(good.images, good.labels, good.index.int())
    assert good.subset(torch.tensor([3, 1])).index.tolist() == [103, 101]


def test_a_part_has_the_classes_in_proportion() -> None:
    split = resident_split(24)
    assert limited(split, None, 0, low=0) is split
    part = at_most(split, 3, 6, 0)
    assert torch.bincount(part.labels).tolist() == [2, 2, 2]
    assert set(part.index.tolist()) <= set(split.index.tolist())
    with pytest.raises(SettingError, match="at least 3, one image a class"):
        at_most(split, 3, 2, 0)
