"""Information flow against its explicit formula (shared/spec/systems.md, section 10)."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import InfoFlow, parse_objective
from limbeck.signals import Batch, Signals
from limbeck.testing import loss_of, sample_batch, sample_signals

STUDENT = sample_signals(1, dtype=torch.float64)
TEACHER = sample_signals(
    2, embedding_size=7, maps={"stage1": (6, 8), "stage2": (8, 2), "stage3": (9, 2)}, dtype=torch.float64
)
Rows = list[list[float]]


def of_rows(student: Tensor, teacher: Tensor, **arguments: str) -> dict[str, Tensor]:
    batch = Batch(torch.zeros(len(student), 1), torch.zeros(len(student), dtype=torch.int64))
    return InfoFlow(layers="last", **arguments)(Signals(embedding=student), Signals(embedding=teacher), batch)


def slow_kernel(rows: Rows, kernel: str) -> Rows:
    def of(one: list[float], other: list[float]) -> float:
        if kernel == "student_t":
            return 1 / (1 + math.sqrt(math.dist(one, other) ** 2 + 1e-6))
        lengths = (math.hypot(*one) + 1e-7) * (math.hypot(*other) + 1e-7)
        return (sum(a * b for a, b in zip(one, other, strict=True)) / lengths + 1) / 2 + 1e-6

    return [[of(one, other) for other in rows] for one in rows]


def slow_divergence(student: Rows, teacher: Rows, kernel: str, *, itself: bool) -> float:
    """Σ_i Σ_j (p - q)(log p - log q)."""
    count, total = len(student), 0.0
    ours, theirs = slow_kernel(student, kernel), slow_kernel(teacher, kernel)
    for i in range(count):
        others = [j for j in range(count) if itself or j != i]
        for j in others:
            p = theirs[i][j] / sum(theirs[i][k] for k in others)
            q = ours[i][j] / sum(ours[i][k] for k in others)
            total += (p - q) * (math.log(p) - math.log(q))
    return total


def layer_rows(signals: Signals, layers: str, maps: str) -> list[Rows]:
    assert signals.embedding is not None
    stages = [signals.features[name] for name in ("stage1", "stage2")]
    rows = [value.flatten(1) if maps == "flat" else value.flatten(2).mean(dim=2) for value in stages]
    chosen = {"last": [signals.embedding], "intermediate": rows, "all": [signals.embedding, *rows]}
    return [value.tolist() for value in chosen[layers]]


@pytest.mark.parametrize(
    ("layers", "kernel", "reduction", "maps"),
    [
        *itertools.product(
            ["last", "intermediate", "all"], ["both", "cosine", "student_t"], ["rows", "paper"], ["flat", "pooled"]
        )
    ],
)
def test_value_is_the_formula(layers: str, kernel: str, reduction: str, maps: str) -> None:
    objective = InfoFlow(layers=layers, kernel=kernel, reduction=reduction, maps=maps)
    found = objective(STUDENT, TEACHER, sample_batch())
    names = ["cosine", "student_t"] if kernel == "both" else [kernel]
    assert list(found) == names
    pairs = list(zip(layer_rows(STUDENT, layers, maps), layer_rows(TEACHER, layers, maps), strict=True))
    for name in names:
        sums = [slow_divergence(*rows, name, itself=reduction == "paper") for rows in pairs]
        divisor = 8 if reduction == "rows" else 64
        assert found[name].item() == pytest.approx(sum(sums) / divisor, rel=1e-9)


def test_three_samples_by_hand() -> None:
    # On a line at 0, 1 and 3: kernel values 1/2, 1/4 and 1/3 of the three pairs; the teacher's are all equally far.
    student = torch.tensor([[0.0], [1], [3]], dtype=torch.float64)
    teacher = torch.eye(3, dtype=torch.float64)
    rows = [(2 / 3, 1 / 3), (3 / 5, 2 / 5), (3 / 7, 4 / 7)]
    expected = sum((0.5 - q) * math.log(0.5 / q) for row in rows for q in row) / 3
    assert of_rows(student, teacher)["student_t"].item() == pytest.approx(expected, rel=1e-5)


# -- limits and symmetries ---------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 9), st.floats(0.01, 100))
def test_a_common_rotation_and_a_shift_of_distances_change_nothing(seed: int, size: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(size, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    plain = of_rows(student, teacher)
    turned = of_rows(student @ turn, teacher)
    for name, value in plain.items():
        assert torch.allclose(turned[name], value, rtol=1e-7, atol=1e-10)
        assert of_rows(teacher @ turn, teacher)[name].abs() < 1e-12
    assert torch.allclose(of_rows(student + 3, teacher)["student_t"], plain["student_t"], rtol=1e-7, atol=1e-10)
    # The length of each row has 1e-7 added to it, so that the equality is not exact.
    assert torch.allclose(of_rows(scale * student, teacher)["cosine"], plain["cosine"], rtol=1e-3, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 9), st.sampled_from(["rows", "paper"]))
def test_it_is_symmetric_never_negative_and_zero_for_equals(seed: int, size: int, reduction: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    one = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    other = torch.randn(size, 6, generator=generator, dtype=torch.float64)
    there, back = of_rows(one, other, reduction=reduction), of_rows(other, one, reduction=reduction)
    for name, value in there.items():
        assert torch.allclose(value, back[name], rtol=1e-10, atol=1e-14)
        assert value >= 0
        assert of_rows(one, one, reduction=reduction)[name] == 0


def test_equal_layers_are_zero_at_every_layer_in_float32() -> None:
    signals = sample_signals(1)
    assert loss_of(InfoFlow(), signals, signals, sample_batch()) == 0


def test_stretched_rows_differ_by_student_t() -> None:
    assert of_rows(2 * STUDENT.embedding, STUDENT.embedding)["student_t"] > 1e-3


def test_a_batch_of_two_teaches_nothing_by_rows() -> None:
    student = torch.randn(2, 4, dtype=torch.float64).requires_grad_()
    loss = torch.stack(list(of_rows(student, torch.randn(2, 3, dtype=torch.float64)).values())).sum()
    loss.backward()
    assert loss.abs() < 1e-12
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-12


def test_the_decay_of_the_preset_with_factor_one_is_a_constant() -> None:
    text = "infoflow(layers='last') + {}*infoflow(layers='intermediate')"
    constant, decayed, number = (
        parse_objective(text.format(weight)).double() for weight in ("decay(100, 1)", "decay(100, 0.7)", "100")
    )
    for epoch in (1, 2, 14):
        for objective in (constant, decayed):
            objective.start_epoch(epoch)
        values = {key: loss_of(each, STUDENT, TEACHER, sample_batch()) for key, each in
                  (("constant", constant), ("decayed", decayed), ("number", number))}  # fmt: skip
        assert torch.equal(values["constant"], values["number"])
        assert torch.equal(values["decayed"], values["number"]) == (epoch == 1)


def test_a_factor_of_zero_leaves_the_first_epoch() -> None:
    objective = parse_objective("infoflow(layers='last') + decay(100, 0)*infoflow(layers='intermediate')").double()
    objective.start_epoch(2)
    last = loss_of(InfoFlow(layers="last"), STUDENT, TEACHER, sample_batch())
    assert torch.equal(loss_of(objective, STUDENT, TEACHER, sample_batch()), last)


# -- gradients and numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["cosine", "student_t"])
@pytest.mark.parametrize("reduction", ["rows", "paper"])
def test_gradients_are_those_of_the_formula(kernel: str, reduction: str) -> None:
    assert STUDENT.embedding is not None
    assert TEACHER.embedding is not None
    student, teacher = STUDENT.embedding.clone().requires_grad_(), TEACHER.embedding
    assert torch.autograd.gradcheck(
        lambda rows: of_rows(rows, teacher, kernel=kernel, reduction=reduction)[kernel], student
    )


def test_opposite_equal_and_empty_samples_have_finite_values_and_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(8, 2048, generator=generator)
    student = torch.cat([rows, -rows, rows, torch.zeros(2, 2048)]).requires_grad_()
    loss = torch.stack(list(of_rows(student, torch.randn(26, 9, generator=generator)).values())).sum()
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("width", [64, 20_000])
def test_float32_is_close_to_float64(width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (5 + torch.randn(32, width, generator=generator, dtype=torch.float64).relu() for _ in range(2))
    exact, found = of_rows(student, teacher), of_rows(student.float(), teacher.float())
    for name, value in exact.items():
        assert found[name].item() == pytest.approx(value.item(), rel=2e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("maps", ["flat", "pooled"])
def test_half_precision_maps_are_computed_in_float32(dtype: torch.dtype, maps: str) -> None:
    student, teacher = (sample_signals(seed).map(lambda value: (300 * value).to(dtype)) for seed in (1, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(InfoFlow(maps=maps), student, teacher, sample_batch())
    expected = loss_of(InfoFlow(maps=maps), student.map(Tensor.double), teacher.map(Tensor.double), sample_batch())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)


# -- presets and refusals ----------------------------------------------------------------------------------------------


def test_presets_are_the_two_stages_and_one_of_ours() -> None:
    student = "infoflow(layers='last') + decay(100, 0.7)*infoflow(layers='intermediate')"
    assert str(parse_objective("infoflow")) == student
    assert str(parse_objective("infoflow_assistant")) == "infoflow(layers='last')"
    assert str(parse_objective("ce+infoflow")) == f"ce() + {student}"


def test_each_choice_of_layers_needs_what_it_reads() -> None:
    assert parse_objective("infoflow_assistant").needs == {"embedding"}
    assert InfoFlow(layers="intermediate").needs == {"features"}
    assert parse_objective("infoflow").needs == {"embedding", "features"}
    InfoFlow(layers="last").check(Signals(embedding=torch.ones(8, 3)), TEACHER, sample_batch())
    with pytest.raises(SignalError, match=r"infoflow\(layers='intermediate'\) needs the student's features"):
        InfoFlow(layers="intermediate").check(Signals(embedding=torch.ones(8, 3)), TEACHER, sample_batch())


def test_maps_of_which_none_are_matched_are_refused() -> None:
    others = sample_signals(2, maps={"other": (4, 8)})
    with pytest.raises(SignalError, match="stage by stage, and none of the student's"):
        InfoFlow().check(STUDENT, others, sample_batch())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("infoflow(layers='first')", r"layers: unknown value 'first'.*Accepted: last, intermediate, all"),
        ("infoflow(kernel='rbf')", r"kernel: unknown value 'rbf'\. Accepted: both, cosine, student_t"),
        ("infoflow(reduction='mean')", r"reduction: unknown value 'mean'\. Accepted: rows, paper"),
        ("infoflow(maps='max')", r"maps: unknown value 'max'\. Accepted: flat, pooled"),
    ],
)
def test_unknown_choices_are_sentences(text: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        parse_objective(text)


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(SignalError, match="compares samples of a batch: it needs at least 2, got 1"):
        InfoFlow().check_batch_size(1)
