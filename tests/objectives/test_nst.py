"""Neuron selectivity transfer against its formula (shared/spec/vision-methods.md, section 3.2, item 12)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from limbeck.objectives.nst import NST
from limbeck.signals import Batch, Signals

seeds = st.integers(0, 10**6)
Rows = list[list[float]]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def nst(student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    batch = Batch(torch.zeros(len(student), 1), torch.zeros(len(student), dtype=torch.int64), weight=weight)
    return NST()(Signals(features={"a": student}), Signals(features={"a": teacher}), batch)["nst"]


def slow_kernel(ours: Rows, theirs: Rows) -> float:
    total = sum(sum(a * b for a, b in zip(x, y, strict=True)) ** 2 for x in ours for y in theirs)
    return total / (len(ours) * len(theirs))


def unit_channels(sample: Tensor) -> Rows:
    rows = []
    for row in sample.flatten(1).tolist():
        length = math.sqrt(sum(value * value for value in row))
        rows.append([value / length for value in row])
    return rows


def slow_nst(student: Tensor, teacher: Tensor) -> float:
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        s, t = unit_channels(ours), unit_channels(theirs)
        total += slow_kernel(t, t) + slow_kernel(s, s) - 2 * slow_kernel(s, t)
    return total / len(student)


@pytest.mark.parametrize(
    ("student_channels", "teacher_channels", "side"),
    [(7, 9, 2), (3, 4, 5), (2, 2, 1), (12, 3, 2), (2, 9, 3)],
    ids=["few positions", "few channels", "one position", "a wide student", "a wide teacher"],
)
def test_value_is_the_formula_by_either_kind_of_matrices(
    student_channels: int, teacher_channels: int, side: int
) -> None:
    student, teacher = draw(0, 3, student_channels, side, side), draw(1, 3, teacher_channels, side, side)
    assert nst(student, teacher).item() == pytest.approx(slow_nst(student, teacher), rel=1e-9, abs=1e-14)


def test_stages_are_summed_and_the_larger_map_is_averaged_first() -> None:
    student = {"one": draw(0, 2, 3, 4, 4), "two": draw(1, 2, 5, 2, 2), "alone": draw(4, 2, 1, 1, 1)}
    teacher = {"one": draw(2, 2, 4, 2, 2), "two": draw(3, 2, 6, 2, 2)}
    batch = Batch(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    value = NST()(Signals(features=student), Signals(features=teacher), batch)["nst"]
    averaged = student["one"].reshape(2, 3, 2, 2, 2, 2).mean(dim=(3, 5))
    expected = slow_nst(averaged, teacher["one"]) + slow_nst(student["two"], teacher["two"])
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_a_value_worked_out_by_hand() -> None:
    # One channel each, at right angles: 1 + 1 - 2·0. At an angle of 45 degrees: 1 + 1 - 2·½.
    right, up, between = (torch.tensor([[[row]]], dtype=torch.float32) for row in ([3.0, 0.0], [0.0, 5.0], [2.0, 2.0]))
    assert nst(right, up).item() == pytest.approx(2.0)
    assert nst(right, between).item() == pytest.approx(1.0)


@given(seeds, st.sampled_from([(6, 2), (2, 6)]), st.floats(0.01, 100))
def test_the_size_of_each_channel_its_sign_and_their_order_play_no_part(
    seed: int, shape: tuple[int, int], factor: float
) -> None:
    channels, side = shape
    student, teacher = draw(seed, 2, channels, side, side), draw(seed + 1, 2, 3, side, side)
    sizes = torch.linspace(-factor, 2 * factor, channels, dtype=torch.float64)[:, None, None] + 1e-3
    torch.testing.assert_close(nst((sizes * student).flip(1), teacher), nst(student, teacher), rtol=1e-7, atol=1e-10)


@given(seeds, st.sampled_from([(8, 2), (2, 8)]))
def test_it_is_between_zero_and_two_and_zero_for_the_same_channels_in_another_order(
    seed: int, shape: tuple[int, int]
) -> None:
    channels, side = shape
    student, teacher = draw(seed, 2, channels, side, side).relu(), draw(seed + 1, 2, channels + 1, side, side).relu()
    assert -1e-12 <= nst(student, teacher) <= 2
    assert nst(student, student.flip(1)).abs() < 1e-12
    assert nst(student, student.repeat(1, 2, 1, 1)).abs() < 1e-12


def test_samples_are_weighted() -> None:
    student, teacher = draw(0, 4, 3, 4, 4), draw(1, 4, 5, 4, 4)
    weighted = nst(student, teacher, weight=torch.tensor([2.0, 2.0, 0.5, 0.5]))
    expected = (2 * nst(student[:2], teacher[:2]) + 0.5 * nst(student[2:], teacher[2:])) / 2
    torch.testing.assert_close(weighted, expected)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("channels", "side"), [(40, 4), (3, 8)])
def test_maps_of_size_300_in_half_precision_give_what_they_give_in_full(
    half: torch.dtype, channels: int, side: int
) -> None:
    student, teacher = (300 * draw(i, 2, channels, side, side).abs() for i in (0, 1))
    student, teacher = student.to(half).requires_grad_(), teacher.to(half)
    loss = nst(student, teacher)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(nst(student.double(), teacher.double()).item(), rel=1e-3, abs=1e-6)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("side", [1, 4])
def test_a_dead_channel_has_no_gradient_and_spoils_no_other(side: int) -> None:
    student = draw(0, 2, 3, side, side)
    student[:, 1] = 0
    loss = nst(student.requires_grad_(), draw(1, 2, 4, side, side))
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.isfinite().all()
    assert torch.equal(gradient[:, 1], torch.zeros_like(gradient[:, 1]))


@pytest.mark.parametrize("shape", [(2, 4, 1, 2), (2, 2, 3, 3)], ids=["positions", "channels"])
def test_gradients_are_those_of_the_formula(shape: tuple[int, int, int, int]) -> None:
    student, teacher = draw(0, *shape).requires_grad_(), draw(1, shape[0], 3, *shape[2:])
    assert torch.autograd.gradcheck(lambda maps: nst(maps, teacher), [student])


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize(
    ("student", "teacher", "side"), [(64, 128, 4), (24, 32, 16)], ids=["wide and small", "narrow and large"]
)
def test_products_of_all_channels_at_all_positions_are_never_in_memory(student: int, teacher: int, side: int) -> None:
    # Public codes make (B, C, C, H·W); nothing here is larger than the maps or the smaller kind of inner products.
    maps = [draw(i, 2, channels, side, side).relu() for i, channels in enumerate((student, teacher))]
    with Largest() as seen:
        nst(*maps)
    assert seen.elements <= 2 * teacher * max(side**2, min(teacher, side**2))
