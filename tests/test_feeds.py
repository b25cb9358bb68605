"""A run on each kind of data: files, arrays, a user's own loaders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import limbeck
from limbeck import feeds
from limbeck.config import TrainSettings
from limbeck.data import ImageSplit, eval_batches, load_data
from limbeck.distillation import run
from limbeck.errors import DataError, SettingError, SignalError
from limbeck.feeds import image_feeds, loader_feeds, read_data
from limbeck.job import job_of
from limbeck.signals import Batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4)):
        for name, shade in (("dark", 60), ("light", 190)):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(generator.normal(shade, 20, (80, 90, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return root


def network(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))


def test_a_run_on_image_files(folder: Path) -> None:
    data = load_data(str(folder), image_size=72)
    assert not data.resident
    done = limbeck.distill(
        network(8), network(), data, "kd", epochs=2, batch_size=8, workers=0, allow_weak_teacher=True
    )
    assert done.result.validation_last is not None


def test_no_augmentation_of_files_is_the_centre_of_each_image(folder: Path) -> None:
    data = load_data(str(folder), image_size=72)
    settings = TrainSettings(batch_size=8, workers=0, augment="none")
    feeds = image_feeds(data, settings, torch.device("cpu"))
    assert (feeds.modality.facts() or "").endswith("views none")
    plain = {int(i): x for b in eval_batches(data.train, 8, image_size=(72, 72)) for i, x in _indexed(b)}
    for batch in feeds.train.epoch(0):
        assert batch.view is not None
        assert not batch.view.any()
        assert all(torch.equal(plain[int(i)], pixels) for i, pixels in _indexed(batch))


def _indexed(batch: Batch) -> Iterable[tuple[Any, torch.Tensor]]:
    assert batch.index is not None
    return zip(batch.index, batch.inputs, strict=True)


def test_views_of_files_name_the_crop(folder: Path) -> None:
    settings = TrainSettings(batch_size=8, workers=0, augment="flip,randaugment=1")
    feeds = image_feeds(load_data(str(folder), image_size=72), settings, torch.device("cpu"))
    assert "views resized crop, flip, randaugment=1" in (feeds.modality.facts() or "")


def test_views_of_files_take_no_crop_in_memory(folder: Path) -> None:
    data = load_data(str(folder), image_size=72)
    with pytest.raises(SettingError, match="crop, cutout, mixup and cutmix are for images held in memory"):
        limbeck.train(network(), data, epochs=1, batch_size=8, augment="crop=4")


def test_a_run_on_arrays(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 10, 10, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(64) % 2)
    done = limbeck.train("convnet_tiny", str(tmp_path / "data.npz"), epochs=1, batch_size=16, val_fraction=0.25)
    assert done.result.data.startswith("data")


def test_an_unreadable_image_is_named(folder: Path, tmp_path: Path) -> None:
    for part in ("a", "b"):
        (tmp_path / "train" / part).mkdir(parents=True)
        source = sorted((folder / "train" / "dark").iterdir())[0]
        (tmp_path / "train" / part / "good.png").write_bytes(source.read_bytes())
        (tmp_path / "train" / part / "other.png").write_bytes(source.read_bytes())
    (tmp_path / "train" / "b" / "broken.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"broken\.png"):
        read_data(TrainSettings(data=str(tmp_path), val_fraction=0.0))


def loaders(count: int = 64) -> limbeck.Loaders:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 6, generator=generator)
    data = TensorDataset(inputs, (inputs.sum(1) > 0).long())
    return limbeck.Loaders(DataLoader(data, batch_size=16, shuffle=True))


def test_a_loader_needs_no_validation_and_no_test() -> None:
    def make(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 2))

    teacher = limbeck.train(make(16), loaders(), epochs=10, lr=0.1).student
    done = limbeck.distill(teacher, make(4), loaders(), "icd+kd", epochs=2)
    result = done.result
    assert (result.validation_last, result.validation_best, result.test) == (None, None, None)
    # Scored on training samples before the first step, which is no validation accuracy.
    assert result.teacher_validation is None


def test_a_loader_has_no_usual_number_of_epochs() -> None:
    with pytest.raises(SettingError, match="epochs is not given"):
        limbeck.train(nn.Linear(6, 2), loaders())


def test_a_loader_without_a_batch_is_refused() -> None:
    data = TensorDataset(torch.randn(8, 6), torch.arange(8) % 2)
    empty = DataLoader(data, batch_size=16, drop_last=True)
    with pytest.raises(DataError, match="the training loader has no batch"):
        loader_feeds(empty, None, None, TrainSettings(), torch.device("cpu"))


def test_names_need_named_data() -> None:
    with pytest.raises(SettingError, match="which needs a data set by name too"):
        limbeck.train("convnet_tiny", loaders(), epochs=1)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"policy": "student"}, "policy: student says which text is seen, and the data are images"),
        ({"documents": "teacher"}, "documents=teacher is for search, and loader is none"),
    ],
)
def test_what_a_loader_has_not_is_refused(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        limbeck.distill(
            nn.Linear(6, 2), nn.Linear(6, 2), loaders(), "kl", epochs=1, allow_weak_teacher=True, **settings
        )


def test_labels_beyond_the_logits_are_explained() -> None:
    three = TensorDataset(torch.randn(32, 6), torch.arange(32) % 3)
    with pytest.raises(SignalError, match="tells 2 classes apart, and loader has labels up to 2"):
        limbeck.train(nn.Linear(6, 2), limbeck.Loaders(DataLoader(three, batch_size=16)), epochs=1)


def test_validation_and_teacher_check_never_touch_the_test_set() -> None:
    data = load_data("digits")
    feeds = image_feeds(data, TrainSettings(), torch.device("cpu"))
    assert data.val is not None
    seen = torch.cat([batch.index for batch in feeds.check() if batch.index is not None])
    assert torch.equal(seen.sort().values, data.val.index.sort().values)
    without = load_data("digits", train_limit=100)
    object.__setattr__(without, "val", None)
    few = image_feeds(without, TrainSettings(), torch.device("cpu"))
    assert few.validation is None
    indices = torch.cat([batch.index for batch in few.check() if batch.index is not None])
    assert set(indices.tolist()) <= set(without.train.index.tolist())


def test_no_training_image_is_copied_for_the_teacher_check_beside_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data("digits")

    def refuse(split: ImageSplit, positions: torch.Tensor) -> ImageSplit:
        raise AssertionError("copied")

    monkeypatch.setattr(ImageSplit, "subset", refuse)
    assert image_feeds(data, TrainSettings(), torch.device("cpu")).validation is not None


@pytest.mark.parametrize("files", [False, True], ids=["in memory", "files"])
def test_every_process_and_objective_sees_one_set_of_labels(
    files: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bank of all samples has the labels that the batches of every process and epoch have."""
    name, size = (str(folder), 72) if files else ("digits", None)
    settings = TrainSettings(data=name, image_size=size, label_noise=0.5, imbalance=2, batch_size=6, workers=0)
    clean, found = read_data(settings.model_copy(update={"label_noise": None})), []
    for place in (0, 1):
        monkeypatch.setattr(feeds, "rank", lambda place=place: place)
        monkeypatch.setattr(feeds, "world_size", lambda: 2)
        data = read_data(settings)
        assert data.resident is not files
        known = data.train.labels_by_index()
        batches = image_feeds(data, settings, torch.device("cpu")).train
        for batch in (batch for epoch in range(2) for batch in batches.epoch(epoch)):
            assert torch.equal(batch.labels, known[batch.index])
        found.append(known)
    assert torch.equal(*found)
    assert int((clean.train.labels_by_index() != found[0]).sum()) == round(len(clean.train) / 2)


@pytest.mark.parametrize("setting", [{"label_noise": 0.2}, {"imbalance": 2}])
def test_damage_of_data_that_is_loaded_already_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(SettingError, match="do nothing to data that is loaded already; give them to load_data"):
        limbeck.train("convnet_tiny", load_data("digits"), epochs=1, **setting)
    with pytest.raises(SettingError, match="do nothing to data that is loaded already; give the data by name"):
        limbeck.train(nn.Linear(6, 2), loaders(), epochs=1, **setting)


def test_the_log_tells_of_damage() -> None:
    said: list[str] = []
    wanted = {"model": "convnet_tiny", "epochs": 1, "train_limit": 96, "label_noise": 0.25, "imbalance": 5}
    done = run(job_of(TrainSettings.make(wanted)), say=said.append, folder=False)
    assert "classes; training classes from " in said[0]
    assert "; 25 % of the training labels are wrong; views " in said[0]
    assert done.result.test is not None


@pytest.mark.parametrize("objective", ["crd", "rrd", "icd(exclude_same_class=True)"])
def test_objectives_that_use_labels_train_on_damaged_data(objective: str) -> None:
    data = load_data("digits", train_limit=96, test_limit=20, label_noise=0.3, imbalance=5)
    done = limbeck.distill(
        "convnet_tiny", "convnet_tiny", data, f"ce + {objective}", epochs=1, batch_size=32, allow_weak_teacher=True
    )
    assert done.result.data == "digits"


def test_the_loader_gives_its_inputs_as_they_are() -> None:
    feeds = loader_feeds(loaders().train, None, None, TrainSettings(), torch.device("cpu"))
    batch: Any = next(iter(feeds.train.epoch(0)))
    assert batch.inputs.dtype == torch.float32
    assert feeds.data is None
