"""Images at the teacher's boundary: which are attacked, where they end, and that runs with them go on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import limbeck
from limbeck.combination import Combination
from limbeck.data import ImageData, Preprocess, load_data
from limbeck.engine.adversary import Adversary, check_range
from limbeck.engine.callbacks import Callback
from limbeck.errors import SettingError
from limbeck.evaluate.attacks import boundary
from limbeck.objectives.base import Attack
from limbeck.signals import Batch, Signals
from limbeck.taps import Tapped
from limbeck.tasks.vision import VisionTask
from limbeck.teachers import FrozenTeacher
from limbeck.teachers.rules import Mean

ATTACK = Attack(samples=6, steps=10, step=0.3, epsilon=1e-4, clip=2.5)
TASK = VisionTask(Preprocess((0.3,), (0.4,), channels=1))


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data("digits", train_limit=96, test_limit=40)


@pytest.fixture(scope="module")
def teacher(data: ImageData) -> nn.Module:
    torch.manual_seed(0)
    network = limbeck.create_model("convnet(widths=[8, 12])", num_classes=10, in_channels=1).network
    return limbeck.train(network, data, epochs=12, batch_size=16, schedule="constant").student


def slow_boundary(network: nn.Module, image: Tensor, label: int, target: int) -> Tensor:
    """One image, step by step."""
    for _ in range(10):
        given = image.clone().requires_grad_()
        logits = network(given[None])[0]
        if int(logits.argmax()) != label:
            break
        gap = logits[label] - logits[target]
        gap.backward()
        assert given.grad is not None
        image = (image - 0.3 * (gap.detach() + 1e-4) * given.grad / given.grad.norm()).clamp(-2.5, 2.5)
    return image


def test_it_is_the_attack_step_by_step(teacher: nn.Module, data: ImageData) -> None:
    assert isinstance(data.train.images, Tensor)
    images, labels = TASK.preprocess(data.train.images[:12]), data.train.labels[:12]
    targets = (labels + 1) % 10
    found = boundary(teacher, images, labels, targets, steps=10, step=0.3, epsilon=1e-4, clip=2.5)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    for image, label, target, moved in zip(images, labels.tolist(), targets.tolist(), found, strict=True):
        torch.testing.assert_close(moved, slow_boundary(teacher, image, label, target), rtol=1e-3, atol=1e-4)


def attacked(teacher: nn.Module, batch: Batch, ours: Tensor) -> tuple[Tensor, Batch, Signals, Signals]:
    frozen = FrozenTeacher(Tapped(teacher))
    told = frozen.signals(TASK.inputs(batch), batch)
    images, seen, answers = Adversary(frozen, TASK).attacked(ATTACK, batch, told, ours)
    return images, seen, told, answers


def test_what_both_get_right_and_differ_on_most_is_attacked(teacher: nn.Module, data: ImageData) -> None:
    assert isinstance(data.train.images, Tensor)
    batch = Batch(data.train.images[:24], data.train.labels[:24])
    ours = 3.0 * torch.eye(10)[batch.labels] + torch.randn(24, 10, generator=torch.Generator().manual_seed(0))
    images, seen, told, answers = attacked(teacher, batch, ours)
    assert seen.attacked is not None
    assert told.logits is not None
    assert answers.attacked is not None
    right = (ours.argmax(1) == batch.labels) & (told.logits.argmax(1) == batch.labels)
    apart = [
        float((p - q).square().sum()) if ok else -1.0
        for p, q, ok in zip(told.logits.softmax(1), ours.softmax(1), right.tolist(), strict=True)
    ]
    expected = sorted(range(24), key=lambda row: -apart[row])[:6]
    chosen = [row for row in range(24) if seen.attacked[row] >= 0]
    assert sorted(row for row in expected if apart[row] >= 0) == chosen
    assert len(images) == 6
    for row in chosen:
        place = int(seen.attacked[row])
        before, after = TASK.preprocess(batch.inputs[row : row + 1]), TASK.preprocess(images[place : place + 1])
        assert not torch.equal(before, after)
        assert after.abs().max() <= 2.5 + 1e-4
        with torch.no_grad():
            torch.testing.assert_close(answers.attacked[row], teacher(after)[0], rtol=1e-4, atol=1e-4)
    # Within a few steps the teacher's decision is another one, or nearly.
    gaps = [answers.attacked[row].topk(2).values.diff().abs() for row in chosen]
    assert max(gaps) < 1
    student = Signals(logits=torch.arange(30.0)[:, None].expand(30, 10)).with_attacked(seen.attacked)
    assert student.attacked is not None
    assert all(student.attacked[row, 0] == 24 + seen.attacked[row] for row in chosen)


def test_where_the_student_is_wrong_nothing_is_attacked(teacher: nn.Module, data: ImageData) -> None:
    assert isinstance(data.train.images, Tensor)
    batch = Batch(data.train.images[:8], data.train.labels[:8])
    images, seen, _, _ = attacked(teacher, batch, torch.eye(10)[(batch.labels + 1) % 10])
    assert seen.attacked is not None
    assert (seen.attacked == -1).all()
    assert len(images) == 6
    known = batch.inputs.float() / 255
    assert all(any(torch.allclose(image, each, atol=1e-6) for each in known) for image in images)


def test_images_beyond_the_clip_are_refused() -> None:
    pixels = Batch(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    check_range(ATTACK, TASK, pixels)
    with pytest.raises(SettingError, match=r"from -3 to 7 .* Give clip=7 or more"):
        check_range(ATTACK, VisionTask(Preprocess((0.3,), (0.1,))), pixels)
    raw = Batch(torch.tensor([0.0, 255.0]).view(1, 1, 1, 2), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(SettingError, match="from 0 to 255"):
        check_range(ATTACK, VisionTask(nn.Identity()), raw)


class Stop(Callback):
    """Ends the run in the middle of its third epoch."""

    def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
        if loop.position.step == 14:
            raise RuntimeError("stopped")


SETTINGS: dict[str, Any] = {"epochs": 4, "batch_size": 16, "lr": 0.02, "log_steps": 1, "allow_weak_teacher": True}
# With another normalisation than the data's, and dropout, which draws random numbers beside the attack's targets.
STUDENT = "tests.engine.networks:with_batch_norm"


def weights(done: limbeck.Distilled) -> Tensor:
    return torch.cat([value.flatten().float() for value in done.student.state_dict().values()])


def test_stopped_and_resumed_it_draws_the_same(teacher: nn.Module, data: ImageData, tmp_path: Path) -> None:
    values = {**SETTINGS, "runs_dir": tmp_path, "checkpoint_steps": 4}
    whole = limbeck.distill(teacher, STUDENT, data, "bss", name="whole", **values)
    with pytest.raises(RuntimeError, match="stopped"):
        limbeck.distill(teacher, STUDENT, data, "bss", name="run", callbacks=[Stop()], **values)
    resumed = limbeck.distill(teacher, STUDENT, data, "bss", name="run", resume=True, **values)
    assert torch.equal(weights(whole), weights(resumed))


def test_in_a_comparison_it_is_the_same_student_and_others_see_nothing(teacher: nn.Module, data: ImageData) -> None:
    together = limbeck.compare(teacher, STUDENT, data, "bss", seeds=1, **SETTINGS)
    for name, objective in (("bss-seed0", "bss"), ("kd-seed0", "kd")):
        alone = limbeck.distill(teacher, STUDENT, data, objective, **SETTINGS)
        assert torch.equal(weights(alone), weights(together.students[name]))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"teacher_cache": "cache"}, "teacher_cache: the objective attacks the teacher anew"),
        ({"teacher_budget": 32}, "teacher_budget: the objective attacks the teacher anew"),
        ({"accumulation": 2}, "accumulation is 2"),
        ({"augment": "mixup=0.2"}, "reads the labels"),
    ],
)
def test_what_it_does_not_go_with(teacher: nn.Module, data: ImageData, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(limbeck.LimbeckError, match=problem):
        limbeck.distill(teacher, STUDENT, data, "bss", **SETTINGS, **changes)


def test_several_teachers_cannot_be_attacked(teacher: nn.Module, data: ImageData) -> None:
    with pytest.raises(SettingError, match="must be one network"):
        limbeck.distill(Combination(Mean(), (teacher, teacher)), STUDENT, data, "bss", **SETTINGS)
