"""What the students of one teacher share, and the settings that are left to be measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import limbeck
from limbeck import layouts
from limbeck.data import ImageData, load_data
from limbeck.engine.callbacks import Callback
from limbeck.engine.fastest import Found, Layout
from limbeck.errors import LimbeckError


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data("digits", train_limit=160, test_limit=60)


@pytest.fixture
def slow_and(monkeypatch: pytest.MonkeyPatch) -> Callable[[Layout], list[list[Layout]]]:
    """Makes training seem long, and a layout the fastest; gives the layouts that were tried."""

    def pretend(fastest: Layout) -> list[list[Layout]]:
        tried: list[list[Layout]] = []

        def found(make: Any, device: Any, layouts: list[Layout]) -> Found:
            for layout in layouts:
                make(layout)()  # each can really run
            tried.append(list(layouts))
            return Found(fastest if fastest in layouts else layouts[0], 1e6, {layouts[0]: 1.0, fastest: 0.5})

        monkeypatch.setattr(layouts, "_FEW_STEPS", 1)
        monkeypatch.setattr(layouts, "fastest_layout", found)
        return tried

    return pretend


class Watch(Callback):
    """Remembers how the student's weights and inputs lie in memory, and what its products are computed in."""

    def __init__(self) -> None:
        self.seen: set[tuple[bool, bool]] = set()

    def on_start(self, loop: Any) -> None:
        convolution = next(m for m in loop.trainable.student.modules() if isinstance(m, torch.nn.Conv2d))
        convolution.register_forward_hook(self._look)

    def _look(self, module: Any, inputs: Any, output: torch.Tensor) -> None:
        if module.training:
            last = output.is_contiguous(memory_format=torch.channels_last)
            self.seen.add((last, output.dtype == torch.bfloat16))


def distil(data: ImageData, folder: Path, **settings: Any) -> tuple[dict[str, Any], set[tuple[bool, bool]]]:
    watch = Watch()
    defaults = {"epochs": 1, "batch_size": 32, "allow_weak_teacher": True, "name": "run", "runs_dir": folder}
    limbeck.distill("convnet_base", "convnet_tiny", data, "kd", callbacks=[watch], **{**defaults, **settings})
    return yaml.safe_load((folder / "run" / "config.yaml").read_text()), watch.seen


def test_a_short_run_measures_nothing(data: ImageData, tmp_path: Path) -> None:
    config, seen = distil(data, tmp_path)
    assert (config["channels_last"], config["precision"]) == (False, "fp32")
    assert seen == {(False, False)}


def test_the_fastest_layout_is_used_and_written_down(
    data: ImageData, tmp_path: Path, slow_and: Callable[[Layout], list[list[Layout]]]
) -> None:
    tried = slow_and(Layout(channels_last=True))
    config, seen = distil(data, tmp_path)
    assert tried == [[Layout(), Layout(channels_last=True)]]
    assert (config["channels_last"], config["precision"]) == (True, "fp32")
    assert seen == {(True, False)}


def test_bf16_is_tried_where_precision_is_auto(
    data: ImageData, tmp_path: Path, slow_and: Callable[[Layout], list[list[Layout]]]
) -> None:
    tried = slow_and(Layout(bf16=True))
    config, seen = distil(data, tmp_path, precision="auto")
    assert len(tried[0]) == 4
    assert (config["channels_last"], config["precision"]) == (False, "bf16")
    assert seen == {(False, True)}


def test_what_is_given_is_not_measured(
    data: ImageData, tmp_path: Path, slow_and: Callable[[Layout], list[list[Layout]]]
) -> None:
    tried = slow_and(Layout(channels_last=True))
    config, seen = distil(data, tmp_path, channels_last=False)
    assert (tried, config["channels_last"], seen) == ([], False, {(False, False)})


class StopAfter(Callback):
    """Fails after the first epoch, as a power cut would."""

    def on_epoch(self, loop: Any, metrics: dict[str, float]) -> None:
        if loop.position.epoch == 1:
            loop.save()
            raise LimbeckError("the power is gone")


def test_a_resumed_run_keeps_what_was_measured(
    data: ImageData, tmp_path: Path, slow_and: Callable[[Layout], list[list[Layout]]]
) -> None:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 32, "allow_weak_teacher": True, "name": "run"}
    settings |= {"runs_dir": tmp_path, "precision": "auto"}
    slow_and(Layout(channels_last=True, bf16=True))
    with pytest.raises(LimbeckError, match="power"):
        limbeck.distill("convnet_base", "convnet_tiny", data, "kd", callbacks=[StopAfter()], **settings)
    tried = slow_and(Layout())
    config, seen = distil(data, tmp_path, epochs=2, precision="auto", resume=True)
    assert tried == []
    assert (config["channels_last"], config["precision"]) == (True, "bf16")
    assert seen == {(True, True)}


def test_a_comparison_measures_once_for_all(
    data: ImageData, tmp_path: Path, slow_and: Callable[[Layout], list[list[Layout]]]
) -> None:
    tried = slow_and(Layout(channels_last=True))
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 32, "allow_weak_teacher": True, "seeds": 2}
    done = limbeck.compare("convnet_base", "convnet_tiny", data, "icd", name="all", runs_dir=tmp_path, **settings)
    assert len(tried) == 1
    assert len(done.results) == 6
    for config in ("config.yaml", "alone-seed0/config.yaml", "icd-seed1/config.yaml"):
        assert yaml.safe_load((tmp_path / "all" / config).read_text())["channels_last"] is True
