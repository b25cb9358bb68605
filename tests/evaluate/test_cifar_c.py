"""Figures on a made-up folder of CIFAR-C are those of a loop; what is wrong with a folder is said before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from limbeck.data.images import resize_all
from limbeck.errors import DataError, SettingError
from limbeck.evaluate.cifar_c import BENCHMARK, EXTRA, cifar_c, read_cifar_c

CLASSES, COUNT = 3, 12
LABELS = np.tile(np.arange(COUNT) % CLASSES, 5)

Arrays = dict[str, np.ndarray[Any, Any]]


def made(*names: str) -> Arrays:
    """Images whose brightness tells their class, and less so from severity to severity."""
    generator = np.random.default_rng(0)
    strength = np.repeat(np.arange(5), COUNT)[:, None, None, None]
    arrays = {}
    for number, name in enumerate(names):
        noise = generator.normal(0, 1 + 20 * strength * (1 + number), (5 * COUNT, 4, 4, 3))
        pixels = 40 + 80 * LABELS[:, None, None, None] + noise
        arrays[name] = np.clip(pixels, 0, 255).astype(np.uint8)
    return {"labels": LABELS, **arrays}


def save(folder: Path, arrays: Arrays) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "CIFAR-3-C", made("jpeg_compression", "gaussian_noise", "saturate"))


def by_brightness(images: Tensor) -> Tensor:
    """Logits of a classifier that knows how bright each class is."""
    mean = images.float().mean(dim=(1, 2, 3))
    return -(mean[:, None] - torch.tensor([40.0, 120.0, 200.0])).abs()


def by_corner(images: Tensor) -> Tensor:
    return -(images[:, 0, 0, 0].float()[:, None] - torch.tensor([40.0, 120.0, 200.0])).abs()


def accuracy(answer: Callable[[Tensor], Tensor], array: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    right = 0
    for image, label in zip(array, labels, strict=True):
        logits = answer(torch.from_numpy(image).permute(2, 0, 1)[None])
        right += int(logits.argmax()) == label
    return right / len(array)


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_figures_are_those_of_a_loop(folder: Path, batch_size: int) -> None:
    networks = {"student": by_corner, "teacher": by_brightness}
    found = cifar_c(networks, read_cifar_c(folder), image_size=(4, 4), batch_size=batch_size)
    assert list(found) == ["student", "teacher"]
    for who, answer in networks.items():
        # In the order of the paper, whatever that of the files, and the extra one last.
        assert [each.name for each in found[who]] == ["gaussian_noise", "jpeg_compression", "saturate"]
        for each in found[who]:
            array = np.load(folder / f"{each.name}.npy")
            expected = [accuracy(answer, a, b) for a, b in zip(np.split(array, 5), np.split(LABELS, 5), strict=True)]
            assert each.severities == pytest.approx(expected)
            assert each.mean == pytest.approx(sum(expected) / 5)
    assert found["student"][0].severities[0] == 1
    assert found["student"][0].severities[4] < 1
    assert found["student"] != found["teacher"]


def test_a_limit_takes_the_same_test_images_at_each_severity(tmp_path: Path) -> None:
    # The pixels name the place among the test images, the severity and the class.
    arrays = {"labels": LABELS, "fog": np.zeros((5 * COUNT, 2, 2, 3), np.uint8)}
    for row in range(5 * COUNT):
        arrays["fog"][row, 0, 0] = (row % COUNT, row // COUNT, LABELS[row])
    seen: list[Tensor] = []

    def answer(images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        assert not torch.is_grad_enabled()
        seen.append(images[:, :, 0, 0])
        return nn.functional.one_hot(images[:, 2, 0, 0].long(), CLASSES).float()

    found = cifar_c(
        {"model": answer}, read_cifar_c(save(tmp_path / "c", arrays)), image_size=(2, 2), batch_size=4, limit=6
    )
    assert found["model"][0].severities == (1,) * 5
    places, severities, labels = torch.cat(seen).long().unbind(1)
    assert severities.tolist() == [s for s in range(5) for _ in range(6)]
    by_severity = places.view(5, 6)
    assert (by_severity == by_severity[0]).all()
    assert len(by_severity[0].unique()) == 6
    assert torch.bincount(labels).tolist() == [10, 10, 10]


def test_images_are_brought_to_the_size_of_the_data(folder: Path) -> None:
    shown: list[Tensor] = []

    def answer(images: Tensor) -> Tensor:
        shown.append(images)
        return by_brightness(images)

    cifar_c({"model": answer}, read_cifar_c(folder), image_size=(6, 8), batch_size=COUNT)
    first = torch.from_numpy(np.load(folder / "gaussian_noise.npy")[:COUNT]).permute(0, 3, 1, 2)
    assert torch.equal(shown[0], resize_all(first, (6, 8)))


def test_files_are_mapped_and_not_read(folder: Path) -> None:
    found = read_cifar_c(folder)
    assert all(isinstance(array, np.memmap) for array in found.images.values())
    assert len(found.labels) == COUNT
    assert found.missing == tuple(n for n in BENCHMARK if n not in ("jpeg_compression", "gaussian_noise"))
    save(folder, made(*BENCHMARK))
    assert read_cifar_c(folder).missing == ()
    assert len({*BENCHMARK, *EXTRA}) == 19


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"gausian_noise": LABELS}, r"unknown corruption 'gausian_noise'; did you mean 'gaussian_noise'\?"),
        ({"labels": None}, r"has no labels\.npy"),
        ({"labels": LABELS.astype(float)}, r"labels\.npy must hold integers \(5 · N,\), got float64 \(60,\)"),
        ({"labels": LABELS[:, None]}, r"must hold integers \(5 · N,\), got int64 \(60, 1\)"),
        ({"labels": LABELS[:12]}, "got 12 labels, which cannot be divided by 5"),
        ({"labels": LABELS[:0]}, "got 0 labels"),
        ({"labels": np.sort(LABELS)}, r"must repeat the same labels for each of five severities, and they differ"),
        ({"labels": LABELS[::-1].copy() - 1}, r"in 0 to 2, as the data has 3 classes; got -1"),
        ({"labels": LABELS + 1}, "as the data has 3 classes; got 3"),
        ({"labels": LABELS % 2}, "the data has 3 classes, and the labels .* are of 2; is it of another data set"),
        ({"fog": np.zeros((60, 4, 4, 3))}, r"fog\.npy must hold uint8 \(5 · N, H, W, 3\), got float64"),
        ({"fog": np.zeros((60, 3, 4, 4), np.uint8)}, r"got uint8 \(60, 3, 4, 4\)"),
        ({"fog": np.zeros((60, 48), np.uint8)}, r"got uint8 \(60, 48\)"),
        ({"fog": np.zeros((60, 0, 4, 3), np.uint8)}, r"got uint8 \(60, 0, 4, 3\)"),
        ({"fog": np.zeros((12, 4, 4, 3), np.uint8)}, r"fog\.npy has 12 images, and labels\.npy has 60 labels"),
        ({"saturate": np.zeros((5, 4, 4, 3), np.uint8)}, r"saturate\.npy has 5 images, and labels\.npy has 60 labels"),
        ({"fog": np.array([{}], dtype=object)}, r"fog\.npy cannot be read as an array"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(folder: Path, change: dict[str, Any], sentence: str) -> None:
    save(folder, {name: array for name, array in change.items() if array is not None})
    for name in (name for name, array in change.items() if array is None):
        (folder / f"{name}.npy").unlink()
    with pytest.raises(DataError, match=sentence):
        read_cifar_c(folder).check_classes(CLASSES)


def test_folders_without_corruptions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        read_cifar_c(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no corruption, such as gaussian_noise\.npy"):
        read_cifar_c(save(tmp_path / "c", {"labels": LABELS}))


@pytest.mark.parametrize("wanted", [{"batch_size": 0}, {"limit": 0}])
def test_numbers_out_of_range(folder: Path, wanted: dict[str, int]) -> None:
    with pytest.raises(SettingError, match="must be a whole number of at least 1, got 0"):
        cifar_c({"model": by_corner}, read_cifar_c(folder), image_size=(4, 4), **wanted)  # type: ignore[arg-type]


def test_an_archive_is_no_array(folder: Path) -> None:
    with (folder / "snow.npy").open("wb") as file:
        np.savez(file, a=LABELS)
    with pytest.raises(DataError, match=r"snow\.npy is an archive of arrays"):
        read_cifar_c(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 127), st.integers(0, 255), st.integers(0, 400))
def test_a_damaged_file_is_said_or_read(folder: Path, place: int, byte: int, length: int) -> None:
    """Whatever stands in a header, nothing but a sentence comes of it."""
    path = folder / "frost.npy"
    np.save(path, np.zeros((60, 4, 4, 3), np.uint8))
    good = bytearray(path.read_bytes())
    good[place] = byte
    path.write_bytes(good if length > 200 else good[:length])
    assert outcome(folder) in ("read", "a sentence with the file's name")


def outcome(folder: Path) -> str:
    try:
        return "read" if read_cifar_c(folder).images["frost"].shape == (60, 4, 4, 3) else "read as something else"
    except DataError as error:
        return "a sentence with the file's name" if "frost.npy" in str(error) else str(error)
