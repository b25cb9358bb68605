"""Digests change with what they are of, and with nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from limbeck import fingerprint
from limbeck.data import ImageSplit
from limbeck.fingerprint import of_module, of_split, of_tensors
from limbeck.taps import Tapped


def network(**changes: object) -> nn.Sequential:
    torch.manual_seed(0)
    settings: dict[str, object] = {"stride": 1, "padding": 1, **changes}
    return nn.Sequential(nn.Conv2d(3, 4, 3, **settings), nn.BatchNorm2d(4), nn.ReLU(inplace=True))  # type: ignore[arg-type]


def test_a_network_has_the_digits_of_its_contents() -> None:
    assert of_module(network()) == of_module(network())
    assert len(of_module(network())) == 64


def test_neither_mode_nor_taps_nor_gradients_count() -> None:
    plain, tapped = network(), network()
    Tapped(tapped, features={"relu": "2:input"}).eval().requires_grad_(False)
    assert tapped[2].inplace is False
    assert of_module(tapped) == of_module(plain)


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.weight", "1.running_var", "1.num_batches_tracked"])
def test_one_changed_number_of_the_state_counts(name: str) -> None:
    changed = network()
    changed.state_dict()[name].view(-1)[0] += 1
    assert of_module(changed) != of_module(network())


def test_structure_counts_where_the_state_is_equal() -> None:
    for other in (network(stride=2), network(dilation=2), nn.Sequential(*network()[:2], nn.GELU())):
        assert of_module(other) != of_module(network())


def test_dtype_counts() -> None:
    zero = {dtype: of_tensors(x=torch.zeros(4, dtype=dtype)) for dtype in (torch.float16, torch.bfloat16, torch.int16)}
    assert len(set(zero.values())) == 3


def test_shapes_and_names_count_where_the_bytes_are_equal() -> None:
    assert of_tensors(x=torch.zeros(2, 3)) != of_tensors(x=torch.zeros(3, 2))
    assert of_tensors(x=torch.zeros(2)) != of_tensors(y=torch.zeros(2))
    assert of_tensors(a=torch.zeros(2), b=torch.zeros(0)) != of_tensors(a=torch.zeros(2))


def test_memory_order_does_not_count() -> None:
    value = torch.arange(24).view(2, 3, 4)
    assert of_tensors(x=value.transpose(0, 2).contiguous()) == of_tensors(x=value.transpose(0, 2))


def test_pixels_labels_index_and_order_of_a_split_count() -> None:
    images = torch.arange(5 * 3 * 2 * 2, dtype=torch.uint8).view(5, 3, 2, 2)
    split = ImageSplit(images, torch.tensor([0, 1, 0, 1, 0]), torch.arange(5))
    other_pixels, other_labels = images.clone(), split.labels.clone()
    other_pixels[3, 0, 0, 0] += 1
    other_labels[2] = 1
    found = [
        split,
        ImageSplit(other_pixels, split.labels, split.index),
        ImageSplit(images, other_labels, split.index),
        ImageSplit(images, split.labels, split.index + 1),
        split.subset(torch.tensor([1, 0, 2, 3, 4])),
        split.subset(torch.arange(4)),
    ]
    assert len({of_split(each) for each in found}) == len(found)
    assert of_split(ImageSplit(images.clone(), split.labels.clone(), split.index.clone())) == of_split(split)


def files(folder: Path, count: int = 5) -> ImageSplit:
    folder.mkdir(parents=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(np.random.default_rng(number).bytes(100))
    return ImageSplit([str(path) for path in paths], torch.zeros(count, dtype=torch.int64), torch.arange(count))


def test_files_count_by_name_and_content_wherever_they_lie(tmp_path: Path) -> None:
    split = files(tmp_path / "here")
    digits = of_split(split)
    shutil.copytree(tmp_path / "here", tmp_path / "there" / "deep")
    moved = ImageSplit([path.replace("here", "there/deep") for path in split.images], split.labels, split.index)
    assert of_split(moved) == digits
    os.utime(str(split.images[0]), (1, 1))
    assert of_split(split) == digits
    with Path(split.images[3]).open("r+b") as file:
        file.write(b"changed")
    assert of_split(split) != digits


def test_of_many_bytes_the_sizes_and_some_files_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_FULL_BYTES", 499)
    monkeypatch.setattr(fingerprint, "_SAMPLED_FILES", 2)
    split = files(tmp_path / "here")
    digits = of_split(split)
    unread = Path(split.images[1])
    unread.write_bytes(bytes(100))
    assert of_split(split) == digits
    unread.write_bytes(bytes(101))
    longer = of_split(split)
    assert longer != digits
    Path(split.images[3]).write_bytes(bytes(100))
    assert of_split(split) != longer
