"""Every objective trains a real student on real digits through the whole engine, and resumes exactly."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import limbeck
from limbeck.engine.interrupt import Interrupted
from limbeck.models import load_state
from limbeck.objectives import objectives, presets

CHANCE = 0.1
SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 0.02, "log_steps": 5, "allow_weak_teacher": True}
# It has no projection, and needs networks with a stem.
PAIRS = {"fsp": ("resnet14", "resnet8")}


def expression(name: str) -> str:
    """The first preset of an objective: a first stage has one epoch, and no weight rises over the epochs."""
    cls = objectives()[name]
    text = presets().get(name) or cls.presets[next(iter(cls.presets))]
    short = {key: value for key, value in {"init_epochs": 1, "warmup_epochs": 0}.items() if cls.defaults().get(key)}
    return text.replace(f"{name}(", f"{name}({''.join(f'{key}={value}, ' for key, value in short.items())}")


# They compare with a memory that fills as the run goes, and their loss is a cross-entropy over more and more rows: what
# must fall there is the cross-entropy with the labels beside it.
MEMORIES = {"crd", "rrd"}
# Those for search read what images have not: documents, or scores in the place of classes. okd adapts a language model.
NOT_OF_IMAGES = {"documents", "embed_match", "listwise_kl", "margin_mse", "okd"}
EXPRESSIONS = {
    name: expression(name)
    for name, cls in objectives().items()
    if (cls.needs_teacher or "peers" in cls.needs) and name not in NOT_OF_IMAGES
}
# Its own preset is without labels, and teaches the classifier nothing.
EXPRESSIONS["infoflow"] = presets()["infoflow+ce"]
EXPRESSIONS["fitnet in two stages"] = "ce + kd(temperature=4) + 100*fitnet(init_epochs=1)"
EXPRESSIONS["all views"] = "0.1*ce + 0.9*mlkd()"
# More tuples can be made of a batch than are asked for, so they are drawn.
EXPRESSIONS["drawn tuples"] = "ckd(n=3, tuples=500)"
EXPRESSIONS["mixed views"] = "ce(views='first') + 2*r2kd()"
VIEWS = {"all views": "crop=1 | crop=1,cutout=2", "mixed views": "crop=1 | crop=1,cutmix=1"}


@cache
def teacher(text: str) -> nn.Module:
    torch.manual_seed(0)
    network = limbeck.create_model(text, num_classes=10, in_channels=1).network
    return limbeck.train(network, "digits", epochs=4, batch_size=16, schedule="cosine").student


class Watch(limbeck.Callback):
    """Notes the losses of the last stage, and stops the run after an epoch of it when asked to."""

    def __init__(self, stop: bool = False, term: str = "loss") -> None:
        self.losses: list[float] = []
        self.stop, self.term = stop, term

    def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
        if loop.position.stage == len(loop.stages) - 1:
            self.losses.append(metrics[self.term])

    def on_epoch(self, loop: Any, metrics: dict[str, float]) -> None:
        if self.stop:
            loop.save()
            raise Interrupted(2, loop.position.step, loop.folder)


def distil(name: str, watch: Watch, /, **settings: Any) -> limbeck.Distilled:
    large, small = PAIRS.get(name, ("convnet(widths=[16, 32])", "convnet_tiny"))
    everything = {**SETTINGS, "augment": VIEWS.get(name, "auto"), **settings}
    return limbeck.distill(teacher(large), small, "digits", EXPRESSIONS[name], callbacks=[watch], **everything)


# One of each kind: embeddings, memories, first stages of both kinds, maps, a new classifier, two views, peers, branches.
SAMPLE = ("icd", "crd", "ab", "ft", "at", "simkd", "all views", "dml", "one")
CASES = [pytest.param(name, marks=[] if name in SAMPLE else [pytest.mark.slow]) for name in EXPRESSIONS]


@pytest.mark.parametrize("name", CASES)
def test_the_loss_falls_and_the_student_is_above_chance(name: str) -> None:
    watch = Watch(term="ce" if name in MEMORIES else "loss")
    done = distil(name, watch)
    quarter = len(watch.losses) // 4
    first, last = sum(watch.losses[:quarter]) / quarter, sum(watch.losses[-quarter:]) / quarter
    assert last < first
    assert done.result.test is not None
    # Three standard deviations of guessing on 700 images.
    assert done.result.test["accuracy"] > CHANCE + 0.034


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_a_stopped_run_goes_on_to_the_same_weights(name: str, tmp_path: Path) -> None:
    whole = state(distil(name, Watch(), name="whole", runs_dir=tmp_path))
    with pytest.raises(Interrupted):
        distil(name, Watch(stop=True), name="stopped", runs_dir=tmp_path)
    resumed = state(distil(name, Watch(), name="stopped", runs_dir=tmp_path, resume=True))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def state(done: limbeck.Distilled) -> dict[str, Tensor]:
    assert done.folder is not None
    return load_state(done.folder / "student.safetensors")
