"""Accuracy on CIFAR-10-C and CIFAR-100-C (Hendrycks and Dietterich, arXiv 1903.12261), from a folder of arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.data.images import fit
from limbeck.data.stratify import choose
from limbeck.errors import DataError, check_whole, unknown_name
from limbeck.evaluate.corruptions import SEVERITIES
from limbeck.evaluate.robustness import Answer, Corrupted

BENCHMARK = (
    *(
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "defocus_blur",
        "glass_blur",
        "motion_blur",
        "zoom_blur",
        "snow",
    ),
    *("frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""The fifteen corruptions over which papers take the mean."""

EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Those that the authors set apart for tuning; no part of the mean."""

_LABELS = "labels"


@dataclass(frozen=True)
class CifarC:
    """A folder of CIFAR-C, nothing of its images read yet.

    folder: where it lies. labels: (N,) int64 classes of the test images, the same at each severity. images: of each corruption
    that is there, in the order of ``BENCHMARK`` and ``EXTRA``, uint8 (5 · N, H, W, 3), those of severity 1 first.
    """

    folder: Path
    labels: Tensor
    images: Mapping[str, np.ndarray[Any, np.dtype[np.uint8]]]

    @property
    def missing(self) -> tuple[str, ...]:
        """The corruptions of ``BENCHMARK`` that are not there; without them a mean is none of those in papers."""
        return tuple(name for name in BENCHMARK if name not in self.images)

    def check_classes(self, classes: int) -> None:
        """Raise DataError unless the labels are of so many classes."""
        path = self.folder / f"{_LABELS}.npy"
        low, high, there = int(self.labels.min()), int(self.labels.max()), len(self.labels.unique())
        if low < 0 or high >= classes:
            raise DataError(
                f"cifar_c: the labels in {path} must be in 0 to {classes - 1}, as the data has {classes} classes; got "
                f"{low if low < 0 else high}."
            )
        if there < classes:
            # The other CIFAR's folder would give figures that look like those of a network that learned nothing.
            raise DataError(
                f"cifar_c: the data has {classes} classes, and the labels in {path} are of {there}; is it of another data "
                "set?"
            )

    def batch(self, name: str, severity: int, positions: Tensor) -> Tensor:
        """uint8 images (B, 3, H, W) of a corruption at a severity from 1 to 5; positions: (B,) int64 among the test images."""
        rows = ((severity - 1) * len(self.labels) + positions).numpy()
        return torch.from_numpy(self.images[name][rows]).permute(0, 3, 1, 2).contiguous()


def read_cifar_c(folder: str | os.PathLike[str]) -> CifarC:
    """Open ``labels.npy`` and a file ``CORRUPTION.npy`` for each corruption, and check them; not all of these must be there.

    The files are mapped into memory; pickled objects are not read.

    Raises:
        DataError: no folder, a file that is no array or of another shape or dtype, an unknown name, labels that are missing or
            not the same at each severity, or no corruption.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError(f"cifar_c: there is no folder {root}; it holds labels.npy and a .npy file for each corruption.")
    paths = {path.stem: path for path in sorted(root.glob("*.npy")) if not path.name.startswith(".")}
    for name in paths:
        if name not in (*BENCHMARK, *EXTRA, _LABELS):
            raise DataError(f"cifar_c: {root}: {unknown_name('corruption', name, (*BENCHMARK, *EXTRA))}")
    if _LABELS not in paths:
        raise DataError(f"cifar_c: {root} has no labels.npy; name the folder that holds it beside the corruptions.")
    names = [name for name in (*BENCHMARK, *EXTRA) if name in paths]
    if not names:
        raise DataError(f"cifar_c: {root} has no corruption, such as {BENCHMARK[0]}.npy.")
    labels = _check_labels(_open(paths[_LABELS]), paths[_LABELS])
    images = {name: _open(paths[name]) for name in names}
    for name, array in images.items():
        _check_images(array, len(SEVERITIES) * len(labels), paths[name])
    return CifarC(root, labels, images)


def cifar_c(
    networks: Mapping[str, Answer],
    data: CifarC,
    *,
    image_size: tuple[int, int],
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    limit: int | None = None,
) -> dict[str, tuple[Corrupted, ...]]:
    """Accuracies of each network under each corruption of a folder, those of ``BENCHMARK`` first; all see the same pixels.

    networks: in eval mode, for images of 3 channels, that tell the classes of ``data`` apart in CIFAR's order. image_size:
    (H, W) that images are brought to, as the data's own were. limit: at most so many of the test images, classes in
    proportion, the same at each severity; None for all.

    Raises:
        SettingError: batch_size or limit is less than 1.
    """
    check_whole("batch_size", batch_size, low=1)
    if limit is not None:
        check_whole("limit", limit, low=1)
    count = len(data.labels)
    positions = torch.arange(count) if limit is None or limit >= count else choose(data.labels, limit, 0)
    found: dict[str, list[Corrupted]] = {who: [] for who in networks}
    for name in data.images:
        right = {who: torch.zeros(len(SEVERITIES), dtype=torch.int64, device=device) for who in networks}
        for place, severity in enumerate(SEVERITIES):
            for part in positions.split(batch_size):
                images = fit(data.batch(name, severity, part), image_size).to(device)
                labels = data.labels[part].to(device)
                for who, answer in networks.items():
                    right[who][place] += _right(answer, images, labels)
        for who, counts in right.items():
            shares = (counts.cpu().double() / len(positions)).tolist()
            found[who].append(Corrupted(name, sum(shares) / len(shares), tuple(shares)))
    return {who: tuple(each) for who, each in found.items()}


@torch.no_grad()
def _right(answer: Answer, images: Tensor, labels: Tensor) -> Tensor:
    return (answer(images).argmax(dim=1) == labels).sum()


def _open(path: Path) -> np.ndarray[Any, Any]:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy's reader of headers raises almost anything on damaged files
        raise DataError(f"cifar_c: {path} cannot be read as an array: {error}") from error
    if not isinstance(found, np.ndarray):
        raise DataError(f"cifar_c: {path} is an archive of arrays and not one array.")
    return found


def _check_labels(found: np.ndarray[Any, Any], path: Path) -> Tensor:
    """The labels of the test images; the file repeats them for each severity."""
    if found.dtype.kind not in "iu" or found.ndim != 1:
        raise DataError(f"cifar_c: {path} must hold integers (5 · N,), got {found.dtype} {found.shape}.")
    if len(found) == 0 or len(found) % len(SEVERITIES):
        raise DataError(
            f"cifar_c: {path} must hold the labels of five severities one after another, got {len(found):,} labels, "
            "which cannot be divided by 5."
        )
    by_severity = torch.from_numpy(found.astype(np.int64)).view(len(SEVERITIES), -1)
    if not bool((by_severity == by_severity[0]).all()):
        raise DataError(f"cifar_c: {path} must repeat the same labels for each of five severities, and they differ.")
    return by_severity[0]


def _check_images(found: np.ndarray[Any, Any], count: int, path: Path) -> None:
    if found.dtype != np.uint8 or found.ndim != 4 or found.shape[3] != 3 or 0 in found.shape:
        raise DataError(f"cifar_c: {path} must hold uint8 (5 · N, H, W, 3), got {found.dtype} {found.shape}.")
    if len(found) != count:
        raise DataError(f"cifar_c: {path} has {len(found):,} images, and labels.npy has {count:,} labels.")
