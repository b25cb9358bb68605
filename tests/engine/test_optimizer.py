from __future__ import annotations

import pytest
import torch

from limbeck.config import TrainSettings
from limbeck.engine.optimizer import Schedule, make_optimizer, parameter_groups
from limbeck.engine.trainable import Stage, Trainable
from limbeck.errors import SettingError
from limbeck.objectives import parse_objective
from limbeck.taps import Tapped
from limbeck.testing import sample_signals
from tests.engine.networks import with_batch_norm


def trainable(expression: str) -> Trainable:
    objective = parse_objective(expression)
    objective.build(sample_signals(0), sample_signals(1))
    whole = Trainable(Tapped(with_batch_norm(num_classes=5, in_channels=1)), [Stage(objective, 1)])
    whole.activate(0)
    return whole


def names_without_decay(whole: Trainable, **options: bool) -> set[str]:
    groups = parameter_groups(whole, weight_decay=0.1, decay_norm_and_bias=options.get("everything", True))
    plain = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    return {name for name, p in whole.named_parameters() if id(p) in plain}


def test_the_benchmark_decays_everything_but_the_scale() -> None:
    assert names_without_decay(trainable("icd+kd")) == {"objectives.0.parts.1.log_scale"}


def test_the_paper_variant_decays_its_scale_and_bias_too() -> None:
    assert names_without_decay(trainable("icd(variant='paper')")) == set()


def test_norms_and_biases_can_be_left_alone() -> None:
    without = names_without_decay(trainable("ce"), everything=False)
    assert {"student.network.1.weight", "student.network.1.bias", "student.network.0.bias"} <= without
    assert "student.network.0.weight" not in without


def test_every_parameter_is_in_one_group() -> None:
    whole = trainable("icd+kd")
    grouped = [
        p for group in parameter_groups(whole, weight_decay=0.1, decay_norm_and_bias=False) for p in group["params"]
    ]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(whole.parameters()))


def test_a_frozen_student_leaves_only_the_objective() -> None:
    objective = parse_objective("icd()")
    objective.build(sample_signals(0), sample_signals(1))
    whole = Trainable(
        Tapped(with_batch_norm(num_classes=5, in_channels=1)), [Stage(objective, 1, trains=("objective",))]
    )
    whole.activate(0)
    optimizer = make_optimizer(whole, TrainSettings(), 0.1)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in objective.parameters()}
    whole.train()
    assert not whole.student.training
    assert whole.objective.training


def test_nothing_to_train_is_an_error() -> None:
    whole = Trainable(Tapped(torch.nn.Linear(2, 2)), [Stage(parse_objective("ce"), 1, trains=("objective",))])
    whole.activate(0)
    with pytest.raises(SettingError, match="nothing trains in this stage"):
        make_optimizer(whole, TrainSettings(), 0.1)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(SettingError, match="nesterov needs a momentum"):
        make_optimizer(trainable("ce"), TrainSettings(nesterov=True, momentum=0.0), 0.1)


def test_multistep_follows_the_benchmark() -> None:
    schedule = Schedule("multistep", epochs=240, steps=10, milestones=[0.625, 0.75, 0.875])
    steps = [0, 1499, 1500, 1799, 1800, 2099, 2100, 2399]
    assert [schedule.factor(step) for step in steps] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_milestones_may_be_epochs() -> None:
    shares = Schedule("multistep", epochs=240, steps=3, milestones=[0.625, 0.75])
    epochs = Schedule("multistep", epochs=240, steps=3, milestones=[150, 180])
    assert shares.milestones == epochs.milestones


def test_cosine_starts_at_one_and_ends_near_zero() -> None:
    schedule = Schedule("cosine", epochs=10, steps=10)
    assert schedule.factor(0) == 1
    assert schedule.factor(50) == pytest.approx(0.5)
    assert schedule.factor(99) < 0.001


def test_warmup_rises_to_one_then_the_schedule_starts() -> None:
    schedule = Schedule("cosine", epochs=10, steps=10, warmup_epochs=1)
    assert [schedule.factor(step) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1, 1])


def test_warmup_longer_than_the_stage_is_an_error() -> None:
    with pytest.raises(SettingError, match="warm-up must be shorter"):
        Schedule("constant", epochs=2, steps=10, warmup_epochs=2)
