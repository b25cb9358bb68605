"""A run whose teacher is read from a cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import limbeck
from limbeck.data import ImageData, load_data
from limbeck.errors import CacheError, SettingError
from limbeck.job import Distilled


class CountTeacher(nn.Module):
    """A teacher that counts the images that it and its copies are shown."""

    count = 0

    def __init__(self, seed: int = 3) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.network = limbeck.create_model("convnet(widths=[8, 12])", num_classes=10, in_channels=1).network

    def forward(self, images: Tensor) -> Tensor:
        CountTeacher.count += len(images)
        logits: Tensor = self.network(images)
        return logits


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data("digits", train_limit=160, test_limit=60)


def distil(data: ImageData, objective: str = "icd+kd", teacher: nn.Module | None = None, **settings: Any) -> Distilled:
    torch.manual_seed(0)
    student = limbeck.create_model("convnet_tiny", num_classes=10, in_channels=1).network
    defaults: dict[str, Any] = {"epochs": 2, "batch_size": 32, "allow_weak_teacher": True, "augment": "crop=1,flip"}
    return limbeck.distill(teacher or CountTeacher(), student, data, objective, **{**defaults, **settings})


def weights(done: Distilled) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in done.student.parameters()])


def test_a_second_run_never_asks_the_teacher(data: ImageData, tmp_path: Path) -> None:
    cache, shown = tmp_path / "cache", []
    for seed in range(2):
        CountTeacher.count = 0
        distil(data, teacher_cache=cache, cache_check=0, seed=seed, epochs=3)
        shown.append(CountTeacher.count)
    # What is left are the batch that sizes the heads and the few images with which a network is looked over.
    assert shown[0] > 18 * len(data.train)
    assert shown[1] < 60
    CountTeacher.count = 0
    distil(data, teacher_cache=cache, cache_check=16, epochs=3)
    assert CountTeacher.count == shown[1] + 3 * 16


def test_it_learns_what_it_learns_from_the_live_teacher(data: ImageData, tmp_path: Path) -> None:
    live = distil(data)
    exact = distil(data, teacher_cache=tmp_path / "exact", cache_dtype="fp32")
    half = distil(data, teacher_cache=tmp_path / "half")
    torch.testing.assert_close(weights(exact), weights(live), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(weights(half), weights(live), rtol=1e-2, atol=1e-3)
    assert exact.result.teacher_test == pytest.approx(live.result.teacher_test)


def test_fixed_views_are_the_same_with_and_without_a_cache(data: ImageData, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"views": 2, "augment": "crop=1,flip,cutout=3", "epochs": 3}
    cached = distil(data, teacher_cache=tmp_path / "cache", cache_dtype="fp32", **settings)
    torch.testing.assert_close(weights(cached), weights(distil(data, **settings)), rtol=1e-3, atol=1e-5)
    manifest = json.loads((tmp_path / "cache" / "train" / "manifest.json").read_text())
    assert manifest["slots"] == 2


def test_feature_maps_are_kept_when_that_is_asked_for(data: ImageData, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="cache_features"):
        distil(data, "ce + 100*at()", teacher_cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    settings: dict[str, Any] = {"views": 1, "cache_features": True, "cache_dtype": "fp32"}
    cached = distil(data, "ce + 100*at()", teacher_cache=tmp_path / "cache", **settings)
    torch.testing.assert_close(weights(cached), weights(distil(data, "ce + 100*at()", views=1)), rtol=1e-3, atol=1e-5)
    with pytest.raises(CacheError, match="preactivations"):
        distil(data, "ce + ofd()", teacher_cache=tmp_path / "cache", **settings)


@pytest.mark.parametrize(("name", "value"), [("cache_logits", "topk(3)"), ("cache_features", True)])
def test_what_a_cache_keeps_is_refused_where_there_is_none(data: ImageData, name: str, value: Any) -> None:
    with pytest.raises(SettingError, match=f"^{name} says what a teacher cache keeps.*--teacher-cache"):
        distil(data, **{name: value})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"teacher": CountTeacher(4)}, "The teacher"),
        ({"augment": "crop=1"}, "augmentation"),
        ({"views": 3}, "augmentation"),
        ({"cache_dtype": "fp32"}, "Give --cache-dtype 'fp16' to read it, name another"),
        ({"cache_logits": "topk(3)"}, "topk.*Give --cache-logits 'dense' to read it"),
        ({"cache_logits": "topk(3)", "views": 3}, r"now\. Name another"),
    ],
)
def test_a_cache_of_something_else_is_an_error(
    data: ImageData, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    distil(data, teacher_cache=tmp_path / "cache", epochs=1)
    with pytest.raises(CacheError, match=problem):
        distil(data, teacher_cache=tmp_path / "cache", **{"epochs": 1, **changes})


def test_other_data_is_an_error(data: ImageData, tmp_path: Path) -> None:
    distil(data, teacher_cache=tmp_path / "cache", epochs=1)
    with pytest.raises(CacheError, match="data"):
        distil(load_data("digits", train_limit=128, test_limit=60), teacher_cache=tmp_path / "cache", epochs=1)


def test_a_loader_cannot_be_cached(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(torch.rand(64, 1, 8, 8), torch.arange(64) % 10), batch_size=32)
    with pytest.raises(SettingError, match="loader"):
        limbeck.distill(
            CountTeacher(),
            CountTeacher(),
            loader,
            "kd",
            epochs=1,
            allow_weak_teacher=True,
            teacher_cache=tmp_path / "cache",
        )
    with pytest.raises(SettingError, match="views"):
        limbeck.distill(CountTeacher(), CountTeacher(), loader, "kd", epochs=1, allow_weak_teacher=True, views=2)


def test_a_comparison_shares_it(data: ImageData, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "seeds": 2,
        "epochs": 2,
        "batch_size": 32,
        "allow_weak_teacher": True,
        "augment": "crop=1,flip",
        "independent_order": True,
    }
    distil(data, teacher_cache=tmp_path / "cache", cache_check=0)
    CountTeacher.count = 0
    done = limbeck.compare(
        CountTeacher(), "convnet_tiny", data, "icd, dkd", teacher_cache=tmp_path / "cache", cache_check=0, **settings
    )
    assert len(done.results) == 8
    assert CountTeacher.count < 200
    kept = {name: result.teacher_test for name, result in done.results.items() if result.teacher is not None}
    assert all(scores is not None for scores in kept.values())
