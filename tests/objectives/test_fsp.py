"""FSP matrices of neighbouring taps against their explicit formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import objective_class, parse_objective
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch, sample_signals

FSP = objective_class("fsp")


def maps(seed: int, *, sides: tuple[int, ...] = (8, 8, 4), channels: tuple[int, ...] = (2, 3, 4)) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    stem, *stages = (
        torch.randn(3, channel, side, side, generator=generator, dtype=torch.float64)
        for channel, side in zip(channels, sides, strict=True)
    )
    return Signals(stem=stem, features={f"stage{i}": value for i, value in enumerate(stages)})


def batch(size: int = 3, weight: Tensor | None = None) -> Batch:
    return Batch(torch.zeros(size, 1), torch.zeros(size, dtype=torch.int64), weight=weight)


def fsp(student: Signals, teacher: Signals, weight: Tensor | None = None) -> Tensor:
    assert student.stem is not None
    return FSP()(student, teacher, batch(len(student.stem), weight))["fsp"]


def pooled(value: Tensor, side: int) -> list[list[float]]:
    """(C, H, W) as a list of rows of side² positions; sides divide each other here."""
    factor = value.shape[-1] // side
    rows = []
    for channel in value.tolist():
        row = []
        for y in range(side):
            for x in range(side):
                region = [channel[y * factor + i][x * factor + j] for i in range(factor) for j in range(factor)]
                row.append(sum(region) / len(region))
        rows.append(row)
    return rows


def matrix(shallow: Tensor, deep: Tensor) -> list[list[float]]:
    side = min(shallow.shape[-1], deep.shape[-1])
    one, other = pooled(shallow, side), pooled(deep, side)
    return [[sum(a * b for a, b in zip(r, q, strict=True)) / side**2 for q in other] for r in one]


def slow_fsp(student: Signals, teacher: Signals) -> list[float]:
    taps = [[signals.stem, *signals.features.values()] for signals in (student, teacher)]
    values = []
    for sample in range(len(taps[0][0])):
        total = 0.0
        for at in range(len(taps[0]) - 1):
            ours, theirs = (matrix(own[at][sample], own[at + 1][sample]) for own in taps)
            entries = [(a - b) ** 2 for r, q in zip(ours, theirs, strict=True) for a, b in zip(r, q, strict=True)]
            total += sum(entries) / len(entries)
        values.append(total)
    return values


@pytest.mark.parametrize("sides", [(8, 8, 4), (4, 4, 2), (4, 8, 8), (6, 3, 1)], ids=str)
def test_value_is_the_formula(sides: tuple[int, ...]) -> None:
    student, teacher = maps(0), maps(1, sides=sides)
    values = slow_fsp(student, teacher)
    assert fsp(student, teacher).item() == pytest.approx(sum(values) / 3, rel=1e-9)
    weight = torch.tensor([2.0, 0.0, 0.5], dtype=torch.float64)
    expected = (2 * values[0] + 0.5 * values[2]) / 3
    assert fsp(student, teacher, weight).item() == pytest.approx(expected, rel=1e-9)


def test_hand_computed() -> None:
    def one(stem: float, *stages: float) -> Signals:
        tensors = [torch.full((1, 1, 1, 1), value) for value in (stem, *stages)]
        return Signals(stem=tensors[0], features={f"s{i}": value for i, value in enumerate(tensors[1:])})

    # M_s = 2·3 and 3·(-1), M_t = 1·1 and 1·4
    assert fsp(one(2, 3, -1), one(1, 1, 4)).item() == pytest.approx((6 - 1) ** 2 + (-3 - 4) ** 2)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.1, 10))
def test_maps_k_times_as_large_make_it_the_fourth_power_of_k(factor: float) -> None:
    student, teacher = maps(0), maps(1)
    scaled = fsp(student.map(lambda v: factor * v), teacher.map(lambda v: factor * v))
    torch.testing.assert_close(scaled, factor**4 * fsp(student, teacher), rtol=1e-9, atol=0)


def test_where_things_are_plays_no_part_and_that_they_are_together_does() -> None:
    student, teacher = maps(0), maps(1)
    mirrored = student.map(lambda value: value.flip(-1))
    torch.testing.assert_close(fsp(mirrored, teacher), fsp(student, teacher), rtol=1e-9, atol=0)
    apart = replace(student, stem=student.stem.flip(-1))
    assert not torch.allclose(fsp(apart, teacher), fsp(student, teacher), rtol=1e-3)


def test_zero_for_equal_maps() -> None:
    assert fsp(maps(0), maps(0)).item() == 0


def test_gradients() -> None:
    student, teacher = maps(0, sides=(4, 4, 2), channels=(2, 2, 2)), maps(1, sides=(4, 2, 2), channels=(2, 2, 2))
    learned = [value.requires_grad_() for value in student.tensors().values()]
    assert len(learned) == 3
    assert torch.autograd.gradcheck(lambda *_: fsp(student, teacher), learned)


def test_products_of_all_positions_are_never_kept() -> None:
    # Trap 7.B4: public codes keep the (B, C, D, H, W) products.
    sizes: list[int] = []
    student, teacher = (maps(seed, sides=(8, 8), channels=(32, 48)) for seed in (0, 1))
    student.map(lambda value: value.requires_grad_())

    def note(value: Tensor) -> Tensor:
        sizes.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        fsp(student, teacher).backward()
    assert max(sizes) == 3 * 48 * 8 * 8


def test_stages_of_the_teacher_that_have_no_partner_are_left_out() -> None:
    student, teacher = maps(0), maps(1)
    more = replace(teacher, features={"before": torch.ones(3, 9, 8, 8), **teacher.features})
    torch.testing.assert_close(fsp(student, more), fsp(student, teacher), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("channels", "where"),
    [((3, 3, 4), "stem must have .* at 'stem' they have 2 and 3"), ((2, 3, 5), "at 'stage1' they have 4 and 5")],
)
def test_unequal_channels_are_refused(channels: tuple[int, ...], where: str) -> None:
    with pytest.raises(SignalError, match=where):
        FSP().check(maps(0), maps(1, channels=channels), batch())


def test_a_network_whose_stem_is_not_known_is_refused() -> None:
    with pytest.raises(SignalError, match="needs the teacher's stem: the end of its first convolution is not known"):
        FSP().check(maps(0), replace(maps(1), stem=None), batch())


def test_it_trains_first_and_alone_unless_told_otherwise() -> None:
    stage = FSP().initial_stage()
    assert stage is not None
    assert (stage.epochs, stage.trains) == (30, ("student", "objective"))
    assert FSP().only_initial
    assert FSP(init_epochs=0).initial_stage() is None
    assert not FSP(init_epochs=0).only_initial
    assert parse_objective("fsp").expression() == "ce() + 50*fsp()"


@pytest.mark.parametrize("init_epochs", [-1, 1.0, True, None])
def test_epochs_are_a_whole_number(init_epochs: object) -> None:
    with pytest.raises(SettingError, match="init_epochs must be a whole number of at least 0"):
        FSP(init_epochs=init_epochs)


def test_half_precision_maps_that_would_overflow_stay_finite() -> None:
    student, teacher = (sample_signals(seed).map(lambda v: (300 * v).half()) for seed in (0, 1))
    loss = FSP()(student, teacher, sample_batch())["fsp"]
    assert loss.dtype == torch.float32
    assert loss.isfinite()
