"""kl, jsd, skewed, tvd and uld as objectives, and kd and ce beside them: formulas, positions of token models, errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import CE, JSD, KD, KL, TVD, ULD, Objective, Skewed, parse_objective
from limbeck.signals import IGNORED, Batch, Signals, rows
from limbeck.testing import sample_batch, sample_signals, sample_tokens

Rows = Callable[[list[float], list[float]], float]


def softmax(row: list[float], temperature: float) -> list[float]:
    total = sum(math.exp(value / temperature) for value in row)
    return [math.exp(value / temperature) / total for value in row]


def kl(p: list[float], q: list[float]) -> float:
    return sum(p_c * math.log(p_c / q_c) for p_c, q_c in zip(p, q, strict=True))


def mixture(m: float, p: list[float], q: list[float]) -> list[float]:
    return [m * p_c + (1 - m) * q_c for p_c, q_c in zip(p, q, strict=True)]


FORMULAS: dict[str, tuple[Objective, Rows, float]] = {
    "kd": (KD(temperature=3), kl, 9),
    "kl": (KL(temperature=3), kl, 9),
    "kl back": (KL(temperature=3, direction="reverse"), lambda p, q: kl(q, p), 9),
    "jsd": (
        JSD(beta=0.3, temperature=3),
        lambda p, q: 0.3 * kl(p, mixture(0.3, p, q)) + 0.7 * kl(q, mixture(0.3, p, q)),
        9,
    ),
    "skewed": (Skewed(alpha=0.2, temperature=3), lambda p, q: kl(p, mixture(0.2, p, q)), 9),
    "skewed back": (
        Skewed(alpha=0.2, temperature=3, direction="reverse"),
        lambda p, q: kl(q, mixture(0.8, p, q)),
        9,
    ),
    "tvd": (TVD(temperature=3), lambda p, q: sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2, 3),
    "uld": (
        ULD(temperature=3),
        lambda p, q: sum(abs(a - b) for a, b in zip(sorted(p), sorted(q), strict=True)),
        1,
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_the_value_is_the_mean_over_samples(name: str) -> None:
    objective, formula, factor = FORMULAS[name]
    student, teacher = sample_signals(0, dtype=torch.float64), sample_signals(1, dtype=torch.float64)
    total = sum(
        formula(softmax(t, 3), softmax(s, 3))
        for s, t in zip(student.logits.tolist(), teacher.logits.tolist(), strict=True)
    )
    found = objective(student, teacher, sample_batch())[objective.name]
    assert found.item() == pytest.approx(factor * total / 8, rel=1e-9)


@pytest.mark.parametrize("name", FORMULAS)
def test_the_value_is_the_sum_over_the_positions_that_count_over_their_number(name: str) -> None:
    objective, formula, factor = FORMULAS[name]
    student, teacher, batch = sample_tokens(torch.float64)
    batch = replace(batch, weight=torch.linspace(0, 2, 8, dtype=torch.float64))
    total, count = 0.0, 0
    for i in range(8):
        for k in range(4):
            if student.mask[i, k]:
                s, t = (softmax(signals.logits[i, k].tolist(), 3) for signals in (student, teacher))
                total, count = total + batch.weight[i].item() * formula(t, s), count + 1
    found = objective(student, teacher, batch)[objective.name]
    assert count == 21
    assert found.item() == pytest.approx(factor * total / count, rel=1e-9)


def test_kl_and_kd_are_one_function() -> None:
    for student, teacher, batch in ((sample_signals(0), sample_signals(1), sample_batch()), sample_tokens()):
        for temperature in (1.0, 4.0):
            ours = KL(temperature=temperature)(student, teacher, batch)["kl"]
            assert torch.equal(ours, KD(temperature=temperature)(student, teacher, batch)["kd"])


def test_the_ends_of_jsd_and_skewed_are_kl() -> None:
    student, teacher, batch = sample_tokens()
    for objective, direction in (
        (JSD(beta=0), "forward"),
        (JSD(beta=1), "reverse"),
        (Skewed(alpha=0), "forward"),
        (Skewed(alpha=0, direction="reverse"), "reverse"),
    ):
        expected = KL(direction=direction)(student, teacher, batch)["kl"]
        assert torch.equal(objective(student, teacher, batch)[objective.name], expected)


@pytest.mark.parametrize("power", [("kl()", 2), ("jsd()", 2), ("skewed()", 2), ("tvd()", 1)], ids=lambda pair: pair[0])
def test_the_gradient_keeps_its_size_at_high_temperatures(power: tuple[str, int]) -> None:
    sizes = []
    for temperature in (1e2, 1e3):
        objective = parse_objective(power[0].replace("()", f"(temperature={temperature})"))
        student = replace(sample_signals(0, dtype=torch.float64))
        logits = student.logits.requires_grad_()
        loss = next(iter(objective(student, sample_signals(1, dtype=torch.float64), sample_batch()).values()))
        sizes.append(torch.autograd.grad(loss, logits)[0].norm().item())
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


# -- cross-entropy of tokens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("masked", [True, False])
def test_cross_entropy_runs_over_the_labelled_positions_alone(masked: bool, smoothing: float) -> None:
    student, _, batch = sample_tokens(torch.float64)
    logits = student.logits.where((batch.labels != IGNORED)[..., None], torch.nan).requires_grad_()
    student = Signals(logits=logits, mask=student.mask if masked else None)
    total, count = 0.0, 0
    for row, label in zip(logits.reshape(-1, 5).tolist(), batch.labels.flatten().tolist(), strict=True):
        if label != IGNORED:
            log_p = [math.log(value) for value in softmax(row, 1)]
            total, count = total - (1 - smoothing) * log_p[label] - smoothing * sum(log_p) / 5, count + 1
    found = CE(label_smoothing=smoothing)(student, Signals(), batch)["ce"]
    assert found.item() == pytest.approx(total / count, rel=1e-9)
    (gradient,) = torch.autograd.grad(found, logits)
    assert (gradient[batch.labels == IGNORED] == 0).all()
    assert gradient.isfinite().all()


def test_a_batch_without_a_label_costs_nothing() -> None:
    student, teacher, batch = sample_tokens()
    empty = torch.zeros(8, 4, dtype=torch.bool)
    student = replace(student, mask=empty, logits=student.logits.requires_grad_())
    batch = replace(batch, labels=torch.full((8, 4), IGNORED))
    loss = torch.stack(list(parse_objective("ce() + kl() + dkd() + wsld()")(student, teacher, batch).values())).sum()
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, student.logits)[0] == 0).all()


# -- two vocabularies --------------------------------------------------------------------------------------------------


def test_positions_of_two_tokenizers_are_paired_by_their_number() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    teacher = torch.randn(2, 6, 7, generator=generator, dtype=torch.float64)
    ours = torch.tensor([[False, True, True, True], [True, True, False, False]])
    theirs = torch.tensor([[True, False, True, False, False, False], [False, False, True, True, True, True]])
    # The third token of the first sample has no partner.
    pairs = [((0, 1), (0, 0)), ((0, 2), (0, 2)), ((1, 0), (1, 2)), ((1, 1), (1, 3))]
    total = 0.0
    for s, t in pairs:
        q, p = sorted(softmax(student[s].tolist(), 1)), sorted(softmax(teacher[t].tolist(), 1))
        total += sum(abs(a - b) for a, b in zip([0.0, 0.0, *q], p, strict=True))
    student.requires_grad_()
    signals = Signals(logits=student, mask=ours), Signals(logits=teacher, mask=theirs)
    batch = Batch(torch.zeros(2, 1), torch.zeros(2, 4, dtype=torch.int64))
    ULD().check(*signals, batch)
    loss = ULD()(*signals, batch)["uld"]
    assert loss.item() == pytest.approx(total / 5, rel=1e-9)
    (gradient,) = torch.autograd.grad(loss, student)
    assert {tuple(place) for place in gradient.abs().sum(-1).nonzero().tolist()} == {s for s, _ in pairs}


@pytest.mark.parametrize("expression", ["kd()", "kl()", "jsd()", "skewed()", "tvd()", "dkd()", "lskd()", "ce + kl()"])
def test_a_teacher_with_another_vocabulary_is_refused_with_uld(expression: str) -> None:
    student, teacher, batch = sample_tokens()
    other = replace(teacher, logits=torch.zeros(8, 4, 7))
    with pytest.raises(
        SignalError, match=r"the student's are \(8, 4, 5\), the teacher's \(8, 4, 7\)\. uld\(\) compares"
    ):
        parse_objective(expression).check(student, other, batch)
    parse_objective("ce + uld()").check(student, other, batch)


# -- positions as samples ----------------------------------------------------------------------------------------------


def test_rows_are_the_positions_that_count_and_samples_of_images_as_they_are() -> None:
    student, teacher, batch = sample_tokens()
    weighted = replace(batch, weight=torch.arange(8.0))
    ours, theirs, chosen = rows(student, teacher, weighted)
    assert torch.equal(ours.logits, student.logits[student.mask])
    assert torch.equal(theirs.logits, teacher.logits[student.mask])
    assert torch.equal(chosen.labels, batch.labels[student.mask])
    assert chosen.weight.tolist() == [float(i) for i in range(8) for _ in range(int(student.mask[i].sum()))]
    assert ours.mask is None
    assert len(chosen) == 21
    images = sample_signals(0), sample_signals(1), sample_batch()
    assert rows(*images) == images


def test_dist_correlates_the_positions() -> None:
    student, teacher, batch = sample_tokens(torch.float64)
    flat = Signals(logits=student.logits[student.mask]), Signals(logits=teacher.logits[student.mask])
    expected = parse_objective("dist()")(*flat, Batch(torch.zeros(21, 1), batch.labels[student.mask]))
    found = parse_objective("dist()")(student, teacher, batch)
    torch.testing.assert_close(list(found.values()), list(expected.values()), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: KL(direction="back"), "direction: unknown value 'back'"),
        (lambda: KL(temperature=0), "temperature must be"),
        (lambda: JSD(beta=1.5), "beta must be"),
        (lambda: Skewed(alpha=1.0), "alpha must be"),
        (lambda: Skewed(direction="sideways"), "direction: unknown value"),
        (lambda: TVD(temperature=-1), "temperature must be"),
        (lambda: ULD(temperature=math.inf), "temperature must be"),
    ],
)
def test_arguments_out_of_bounds_are_refused(make: Callable[[], Tensor], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        make()


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_gkd_is_the_loss_of_trl(beta: float) -> None:
    gkd = pytest.importorskip("trl.experimental.gkd", reason="trl is not installed")
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 7, 50, requires_grad=True), torch.randn(4, 7, 50)
    labels = torch.randint(50, (4, 7))
    labels[:, :2] = -100
    theirs = gkd.GKDTrainer.generalized_jsd_loss(student, teacher, labels=labels, beta=beta)
    ours = sum(
        JSD(beta=beta)(
            Signals(logits=student, mask=labels != -100), Signals(logits=teacher), Batch(labels, labels)
        ).values()
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    gradients = (torch.autograd.grad(loss, student, retain_graph=True)[0] for loss in (ours, theirs))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)
