from __future__ import annotations

import ast
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import limbeck.data
from limbeck.data import load_data
from limbeck.data.images import fit
from limbeck.data.stratify import choose
from limbeck.errors import DataError, SettingError

from .conftest import pixels

Save = Callable[..., str]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def save(**arrays: Any) -> str:
        path = tmp_path / "pictures.npz"
        np.savez(path, **arrays)
        return str(path)

    return save


def test_importing_is_light() -> None:
    """At the top of its files the room imports torch, numpy, the standard library and limbeck only."""
    for path in Path(limbeck.data.__path__[0]).rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                root = name.partition(".")[0]
                assert root in {"torch", "numpy", "limbeck"} | sys.stdlib_module_names, f"{path}: {name}"


def test_public_names() -> None:
    assert all(hasattr(limbeck.data, name) for name in limbeck.data.__all__)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=6), st.integers(1, 120), st.integers(0, 9))
def test_choose(sizes: list[int], count: int, seed: int) -> None:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    chosen = choose(labels, count, seed, keep=1)
    got = torch.bincount(labels[chosen], minlength=len(sizes))
    assert torch.equal(chosen, chosen.unique())
    assert (got <= torch.tensor(sizes) - 1).all()
    assert len(chosen) == min(count, sum(sizes) - len(sizes))
    assert torch.equal(chosen, choose(labels, count, seed, keep=1))
    if count <= sum(sizes) - len(sizes):
        quota = torch.tensor(sizes) * count / sum(sizes)
        assert (got <= quota + len(sizes)).all()
    least = torch.bincount(labels[choose(labels, max(count, len(sizes)), seed, low=1)], minlength=len(sizes))
    assert (least >= 1).all()


def test_digits() -> None:
    data = load_data("digits")
    assert (data.name, data.in_channels, data.image_size, len(data.classes)) == ("digits", 1, (8, 8), 10)
    assert data.val is not None
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == (800, 297, 700)
    assert data.resident
    assert data.train.images.max() == 255  # type: ignore[union-attr]
    index = torch.cat([data.train.index, data.val.index, data.test.index])
    assert torch.equal(index.sort().values, torch.arange(1797))
    pixels_ = data.train.images.double() / 255  # type: ignore[union-attr]
    assert data.mean == pytest.approx((pixels_.mean().item(),))
    assert data.std == pytest.approx((pixels_.std(correction=0).item(),))
    assert data.fingerprint() == load_data("digits").fingerprint()
    assert len(data.fingerprint()) == 32
    assert data.fingerprint() != load_data("digits", train_limit=700).fingerprint()


def test_limits_are_stratified_and_keep_the_index() -> None:
    full, part = load_data("digits"), load_data("digits", train_limit=100, test_limit=25)
    assert len(part.train) == 100
    assert part.test is not None
    assert len(part.test) == 25
    assert torch.bincount(part.train.labels).min() >= 9
    assert torch.isin(part.train.index, full.train.index).all()
    rows = torch.searchsorted(full.train.index, part.train.index)
    assert torch.equal(full.train.images[rows], part.train.images)  # type: ignore[index,arg-type]
    assert part.mean == full.mean


def test_resize() -> None:
    data = load_data("digits", image_size=12, train_limit=20, test_limit=20)
    assert data.image_size == (12, 12)
    assert data.train.images.shape == (20, 1, 12, 12)  # type: ignore[union-attr]
    wide = torch.arange(8, dtype=torch.uint8).repeat(1, 4, 1)
    assert fit(wide, (4, 4)).flatten(1)[0, :4].tolist() == [2, 3, 4, 5]


def test_val_is_carved_in_proportion(save: Save) -> None:
    path = save(images=pixels(0, 40, 6, 5, 3), labels=np.repeat([0, 1], [30, 10]), class_names=["cat", "dog"])
    data = load_data(path, val_fraction=0.2)
    assert data.val is not None
    assert torch.bincount(data.val.labels).tolist() == [6, 2]
    assert len(data.train) == 32
    assert data.test is None
    assert data.classes == ("cat", "dog")
    assert torch.equal(torch.cat([data.train.index, data.val.index]).sort().values, torch.arange(40))
    again, other = load_data(path, val_fraction=0.2), load_data(path, val_fraction=0.2, split_seed=1)
    assert again.val is not None
    assert other.val is not None
    assert torch.equal(again.val.index, data.val.index)
    assert not torch.equal(other.val.index, data.val.index)
    assert load_data(path, val_fraction=0).val is None
    assert len(load_data(path, val_fraction=0.2, train_limit=32).train) == 32
    assert data.mean == load_data(path, val_fraction=0).mean


def test_folder_small_is_resident(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("train", "val", "test"))
    data = load_data(str(root))
    assert data.resident
    assert (data.in_channels, data.image_size, data.classes) == (3, (12, 10), ("a", "b"))
    assert data.val is not None
    assert data.test is not None
    assert len(data.train) == len(data.val) == len(data.test) == 8
    assert torch.equal(data.train.images[5], torch.from_numpy(pixels(11, 12, 10, 3)).permute(2, 0, 1))  # type: ignore[index]
    assert data.fingerprint() == load_data(f"folder:{root}").fingerprint()


def test_folder_large_stays_as_paths(make_folder: Callable[..., Path]) -> None:
    root = make_folder(size=(80, 70))
    data = load_data(root, val_fraction=0.25)
    assert not data.resident
    assert data.image_size == (80, 70)
    assert len(data.train) == 6
    assert data.train.subset(torch.tensor([1])).images == [data.train.images[1]]
    assert 0.4 < data.mean[0] < 0.6
    assert load_data(root, image_size=32).resident
    assert load_data(root, image_size=224).image_size == (224, 224)
    before = data.fingerprint()
    assert load_data(root.rename(root.parent / "elsewhere"), val_fraction=0.25).fingerprint() == before


def test_folder_of_different_sizes(make_folder: Callable[..., Path]) -> None:
    from PIL import Image

    root = make_folder(("",))
    Image.fromarray(pixels(0, 9, 9)).save(root / "a" / "grey.png")
    assert load_data(root).image_size == (224, 224)
    assert load_data(root, image_size=(8, 6)).train.images.shape[1:] == (3, 8, 6)  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [None, 100])
def test_damaged_files(make_folder: Callable[..., Path], size: int | None, caplog: pytest.LogCaptureFixture) -> None:
    root = make_folder(count=14)
    for i in range(12):
        (root / "train" / "a" / f"{i}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"12 of 28 images of pictures train cannot be read: .*0\.png.* and 2 more"):
        load_data(root, image_size=size)
    with caplog.at_level(logging.WARNING, "limbeck"):
        data = load_data(root, image_size=size, skip_unreadable=True, val_fraction=0)
    assert len(data.train) == 16
    assert data.train.index[0] == 12 or data.train.index[0] > 1
    assert "12 of 28" in caplog.text
    assert "skipped" in caplog.text


def test_truncated_file_with_a_good_header(make_folder: Callable[..., Path]) -> None:
    from PIL import Image

    root = make_folder()
    path = root / "train" / "a" / "cut.jpg"
    Image.fromarray(pixels(0, 12, 10, 3)).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"1 of 9 images of pictures train cannot be read: .*cut\.jpg"):
        load_data(root)


def test_nothing_readable(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("train", "test"), count=1)
    for name in "ab":
        (root / "test" / name / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="pictures test has no image that can be read"):
        load_data(root, skip_unreadable=True, val_fraction=0)


GOOD = {"images": pixels(0, 6, 4, 4), "labels": np.array([0, 1, 2, 0, 1, 2])}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"labels": np.array([0, 1, 0, 1, 0, 3]), "class_names": ["a", "b", "c"]}, r"0 to 2 \(3 classes\), got 3"),
        ({"labels": np.array([0, -1, 0, 1, 0, 1])}, "got -1"),
        ({"labels": np.array([0.0, 1, 0, 1, 0, 1])}, "labels must be integers, got float64"),
        ({"labels": np.array([True, False] * 3)}, "labels must be integers, got bool"),
        ({"labels": np.array([[0], [1], [0], [1], [0], [1]])}, "labels must be integers, one an image"),
        ({"labels": np.array([0, 1])}, "6 images but 2 labels"),
        ({"labels": np.zeros(6, int)}, "one class only, '0'"),
        ({"labels": np.array([0, 2, 0, 2, 0, 2])}, "no training image: '1'"),
        ({"images": GOOD["images"].astype(float)}, "images must be uint8"),
        ({"images": pixels(0, 6, 3, 32, 32)}, "channels come last"),
        ({"images": pixels(0, 6)}, "N×H×W×C"),
        ({"images": GOOD["images"][:0], "labels": GOOD["labels"][:0]}, "has no images"),
        ({"test_images": pixels(0, 2, 5, 5), "test_labels": np.array([0, 1])}, "images of test are"),
        ({"test_images": pixels(0, 2, 4, 4)}, "'test_labels' is missing"),
        ({"class_names": np.array(["a", None, "c"], dtype=object)}, "no pickled objects"),
    ],
)
def test_bad_arrays(save: Save, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load_data(save(**{**GOOD, **change}), val_fraction=0)


@pytest.mark.parametrize(
    ("settings_", "sentence"),
    [
        ({"val_fraction": 1}, "val_fraction must be less than 1"),
        ({"val_fraction": -0.1}, "val_fraction must be at least 0"),
        ({"val_fraction": float("nan")}, "finite number"),
        ({"val_fraction": 0.01}, "leaves no image for val"),
        ({"train_limit": 0}, "train_limit must be a whole number of at least 1"),
        ({"test_limit": 2.5}, "test_limit must be a whole number"),
        ({"train_limit": 2, "val_fraction": 0}, "train_limit must be at least 3, one image a class; got 2"),
        ({"image_size": 0}, "image_size must be a side"),
        ({"image_size": (3, 4, 5)}, r"image_size must be a side .* got \(3, 4, 5\)"),
    ],
)
def test_bad_settings(save: Save, settings_: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        load_data(save(**GOOD), **settings_)
