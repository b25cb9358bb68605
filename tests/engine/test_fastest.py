"""The layout is chosen by time, the simple one when in doubt, and nothing is changed by trying."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import pytest
import torch
from torch import nn

from limbeck.engine.fastest import Layout, fastest_layout, forward_pass, training_step
from limbeck.engine.trainable import Stage, Trainable
from limbeck.objectives import parse_objective
from limbeck.signals import Batch, Signals
from limbeck.taps import Tapped


def _sleeping(seconds: dict[Layout, float]) -> Callable[[Layout], Callable[[], object]]:
    return lambda layout: lambda: time.sleep(seconds[layout])


PLAIN, LAST = Layout(), Layout(channels_last=True)
HALF, LAST_HALF = Layout(bf16=True), Layout(channels_last=True, bf16=True)
FP32, ALL = [PLAIN, LAST], [PLAIN, LAST, HALF, LAST_HALF]


def test_the_fastest_wins_by_more_than_the_margin() -> None:
    found = fastest_layout(_sleeping({PLAIN: 0.03, LAST: 0.01}), "cpu", FP32, rounds=3)
    assert found.layout == LAST
    assert 0.2 < found.ratios[LAST] < 0.6
    assert str(found).startswith("channels_last fp32 (time to contiguous fp32: channels_last fp32 0.")


def test_a_small_win_is_no_reason() -> None:
    found = fastest_layout(_sleeping({PLAIN: 0.05, LAST: 0.045}), "cpu", FP32, rounds=3, margin=0.5)
    assert found.layout == PLAIN


def test_bf16_is_tried_only_where_it_is_allowed() -> None:
    seconds = {PLAIN: 0.02, LAST: 0.02, HALF: 0.001, LAST_HALF: 0.01}
    assert set(fastest_layout(_sleeping(seconds), "cpu", FP32, rounds=2).ratios) == {PLAIN, LAST}
    assert fastest_layout(_sleeping(seconds), "cpu", ALL, rounds=2).layout == HALF
    assert fastest_layout(_sleeping(seconds), "cpu", [PLAIN], rounds=2).ratios == {PLAIN: 1.0}


def test_a_layout_that_fails_is_named_and_the_simplest_one_must_not() -> None:
    def make(broken: Layout) -> Callable[[Layout], Callable[[], object]]:
        def work(layout: Layout) -> Callable[[], object]:
            if layout == broken:
                raise RuntimeError("no kernel")
            return lambda: None

        return work

    found = fastest_layout(make(LAST), "cpu", FP32, rounds=2)
    assert found.layout == PLAIN
    assert "channels_last fp32 failed (RuntimeError: no kernel)" in str(found)
    with pytest.raises(RuntimeError, match="no kernel"):
        fastest_layout(make(PLAIN), "cpu", FP32, rounds=2)


def test_the_seconds_are_kept_to() -> None:
    started = time.perf_counter()
    fastest_layout(_sleeping({PLAIN: 0.05, LAST: 0.05}), "cpu", FP32, rounds=100, seconds=0.3)
    assert time.perf_counter() - started < 1.5


def _network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 5)
    )


def test_nothing_is_changed_by_trying() -> None:
    torch.manual_seed(0)
    images, batch = torch.randn(4, 3, 8, 8), Batch(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4))
    trainable = Trainable(Tapped(_network()), [Stage(parse_objective("ce + kd(temperature=4)"), 1)])
    trainable.activate(0)
    for parameter in trainable.parameters():
        parameter.grad = torch.ones_like(parameter)
    state = copy.deepcopy(trainable.state_dict())
    strides = [parameter.stride() for parameter in trainable.parameters()]
    make = training_step(trainable, images, Signals(logits=torch.randn(4, 5)), batch)
    random_state = torch.get_rng_state()
    found = fastest_layout(make, "cpu", ALL, rounds=2)
    assert not found.failed
    assert set(found.ratios) == {PLAIN, LAST, HALF, LAST_HALF}
    assert all(torch.equal(value, state[name]) for name, value in trainable.state_dict().items())
    assert all(torch.equal(parameter.grad, torch.ones_like(parameter)) for parameter in trainable.parameters())
    assert [parameter.stride() for parameter in trainable.parameters()] == strides
    assert torch.equal(torch.get_rng_state(), random_state)
    assert trainable.training


def test_a_teacher_runs_in_each_layout_without_gradient() -> None:
    network = Tapped(_network(), features=["0"]).train()
    seen: list[tuple[bool, torch.dtype]] = []

    def look(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        assert not output.requires_grad
        seen.append((output.is_contiguous(memory_format=torch.channels_last), output.dtype))

    network.network[0].register_forward_hook(look)
    found = fastest_layout(forward_pass(network, torch.randn(2, 3, 8, 8)), "cpu", ALL, rounds=2)
    assert not found.failed
    assert set(seen) == {
        (False, torch.float32),
        (True, torch.float32),
        (False, torch.bfloat16),
        (True, torch.bfloat16),
    }
    assert network.training
