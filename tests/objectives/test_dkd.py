"""DKD against its explicit formula: the label's class is left out, not pushed away, and the warm-up is the epoch's."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import KD, Objective, objective_class, parse_objective, presets
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch, sample_signals

DKD = objective_class("dkd")


def dkd(student: Tensor, teacher: Tensor, labels: Tensor, **options: Any) -> dict[str, Tensor]:
    objective = DKD(**{"alpha": 1.0, "beta": 1.0, "temperature": 1.0, **options}).to(student.dtype)
    return objective(Signals(logits=student), Signals(logits=teacher), Batch(torch.zeros(len(student), 1), labels))


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    return sample_signals(0, dtype=dtype).logits, sample_signals(1, dtype=dtype).logits, sample_batch().labels


def softmax(row: list[float], temperature: float) -> list[float]:
    total = sum(math.exp(value / temperature) for value in row)
    return [math.exp(value / temperature) / total for value in row]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def slow_dkd(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> list[tuple[float, float]]:
    found = []
    for ours, theirs, label in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        q, p = softmax(ours, temperature), softmax(theirs, temperature)
        rest = [c for c in range(len(q)) if c != label]
        p_rest, q_rest = sum(p[c] for c in rest), sum(q[c] for c in rest)
        target = kl([p[label], p_rest], [q[label], q_rest])
        found.append((target, kl([p[c] / p_rest for c in rest], [q[c] / q_rest for c in rest])))
    return found


@pytest.mark.parametrize("temperature", [0.5, 1, 4.0])
def test_terms_are_the_formula(temperature: float) -> None:
    expected = slow_dkd(*inputs(), temperature)
    terms = dkd(*inputs(), alpha=0.5, beta=8, temperature=temperature)
    assert list(terms) == ["target", "non_target"]
    for value, weight, column in zip(terms.values(), (0.5, 8), zip(*expected, strict=True), strict=True):
        assert value.item() == pytest.approx(weight * temperature**2 * sum(column) / 8, rel=1e-9)


def test_hand_computed() -> None:
    # Teacher 1/2, 1/3, 1/6 and student 1/4, 1/4, 1/2, with the first class the label: (2/3, 1/3) against (1/3, 2/3).
    teacher, student = torch.tensor([[3.0, 2.0, 1.0]]).log(), torch.tensor([[1.0, 1.0, 2.0]]).log()
    terms = dkd(student, teacher, torch.tensor([0]))
    assert terms["target"].item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-5)
    assert terms["non_target"].item() == pytest.approx(2 / 3 * math.log(2) + 1 / 3 * math.log(1 / 2), rel=1e-5)


@given(st.integers(0, 10**6), st.integers(2, 7), st.sampled_from([0.5, 1.0, 4.0]))
def test_kd_is_the_target_part_and_the_others_times_what_the_teacher_leaves_them(
    seed: int, classes: int, temperature: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 3 * torch.randn(2, 1, classes, generator=generator, dtype=torch.float64)
    label = torch.randint(0, classes, (1,), generator=generator)
    terms = dkd(student, teacher, label, temperature=temperature)
    kd = KD(temperature=temperature)(Signals(logits=student), Signals(logits=teacher), Batch(label, label))["kd"]
    left = 1 - torch.softmax(teacher / temperature, dim=1)[0, label.item()]
    torch.testing.assert_close(terms["target"] + left * terms["non_target"], kd, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 10**6))
def test_what_each_part_does_not_see(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher, noise = torch.randn(3, 6, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 5, (6,), generator=generator)
    label = torch.nn.functional.one_hot(labels, 5).bool()
    terms = dkd(student, teacher, labels)
    moved = dkd(student.where(~label, noise), teacher, labels)
    assert torch.equal(moved["non_target"], terms["non_target"]), "the label's logit plays no part among the others"
    # Others that share the same sum in another way.
    shared = (student.exp() * ~label).sum(dim=1, keepdim=True).log() - math.log(4)
    flat = dkd(student.where(label, shared.expand_as(student)), teacher, labels)
    torch.testing.assert_close(flat["target"], terms["target"], rtol=1e-9, atol=1e-12)
    shifted = dkd(student + noise[:, :1], teacher - noise[:, 1:2], labels)
    for name, value in terms.items():
        torch.testing.assert_close(shifted[name], value, rtol=1e-9, atol=1e-12)


def test_two_classes_have_no_others_to_tell_apart() -> None:
    student, teacher, _ = inputs()
    terms = dkd(student[:, :2], teacher[:, :2], torch.arange(8) % 2)
    assert terms["non_target"].item() == 0
    assert terms["target"].item() > 0.1


def test_a_logit_of_the_label_beyond_a_thousand_does_not_leak_into_the_others() -> None:
    # -1000 on the logit, as in the public code, is outweighed here and would make the label win among "the others".
    student, teacher, labels = inputs(torch.float32)
    label = torch.nn.functional.one_hot(labels, 5).bool()
    large = dkd(student + 5000 * label, teacher + 4000 * label, labels)["non_target"]
    torch.testing.assert_close(large, dkd(student, teacher, labels)["non_target"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_sure_networks_in_half_precision_have_finite_values_and_gradients(half: torch.dtype) -> None:
    labels = torch.arange(5)
    sure = 300 * torch.eye(5)
    for student, teacher in ((sure, sure), (sure.roll(1, 0), sure), (-sure, sure), (sure, -sure)):
        logits = student.to(half).requires_grad_()
        terms = dkd(logits, teacher.to(half), labels, temperature=4.0)
        assert all(value.dtype == torch.float32 and value.isfinite() for value in terms.values())
        (gradient,) = torch.autograd.grad(sum(terms.values()), logits)
        assert gradient.isfinite().all()
    wrong = dkd((-sure).requires_grad_(), sure, labels, temperature=1.0)
    assert wrong["target"].item() == pytest.approx(300 + math.log(4), rel=1e-5), (
        "a probability of e^-300 has a logarithm"
    )


def test_gradients_are_those_of_the_formula() -> None:
    student, teacher, labels = inputs()
    assert torch.autograd.gradcheck(lambda z: tuple(dkd(z, teacher, labels).values()), student.requires_grad_())


def test_samples_are_weighted() -> None:
    student, teacher, labels = inputs()
    weight = torch.linspace(0, 2, 8, dtype=torch.float64)
    batch = Batch(torch.zeros(8, 1), labels, weight=weight)
    terms = DKD(alpha=1, beta=1, temperature=1).double()(Signals(logits=student), Signals(logits=teacher), batch)
    columns = zip(*slow_dkd(student, teacher, labels, 1.0), strict=True)
    for value, column in zip(terms.values(), columns, strict=True):
        expected = sum(w * part for w, part in zip(weight.tolist(), column, strict=True)) / 8
        assert value.item() == pytest.approx(expected, rel=1e-9)


def test_only_positions_inside_the_mask_count_whatever_their_label() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 5, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    labels = torch.tensor([[1, 4, -100], [0, -100, 77]])
    student.requires_grad_()
    signals = Signals(logits=student, mask=mask), Signals(logits=teacher, mask=mask)
    objective = DKD(alpha=1, beta=1, temperature=1).double()
    terms = objective(*signals, Batch(torch.zeros(2, 1), labels))
    for name, value in dkd(student[mask], teacher[mask], labels[mask]).items():
        torch.testing.assert_close(terms[name], value)
    (gradient,) = torch.autograd.grad(sum(terms.values()), student)
    assert gradient.isfinite().all()
    assert torch.equal(gradient.abs().sum(dim=-1) > 0, mask)


def test_the_warm_up_is_linear_in_the_epoch_and_then_over() -> None:
    objective = DKD(warmup_epochs=4).double()
    student, teacher, labels = inputs()
    signals = Signals(logits=student), Signals(logits=teacher), Batch(torch.zeros(8, 1), labels)
    full = objective(*signals)
    for epoch, share in ((1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0), (5, 1.0), (240, 1.0)):
        objective.start_epoch(epoch)
        assert objective.monitors()["warmup"].item() == share
        for name, value in objective(*signals).items():
            assert value.item() == pytest.approx(share * full[name].item(), rel=1e-12)


def test_the_warm_up_survives_saving_and_reaches_a_part_of_a_sum() -> None:
    whole, again = parse_objective("ce + 2*dkd(warmup_epochs=10)"), parse_objective("ce + 2*dkd(warmup_epochs=10)")
    whole.start_epoch(3)
    again.load_state_dict(whole.state_dict())
    assert again.monitors()["dkd.warmup"].item() == pytest.approx(0.3)


def test_without_warm_up_every_epoch_is_at_full_size() -> None:
    objective: Objective = DKD(warmup_epochs=0)
    objective.start_epoch(1)
    assert objective.monitors()["warmup"].item() == 1


def test_an_epoch_changes_a_tensor_in_place_and_no_number_that_a_compiled_step_would_be_bound_to() -> None:
    objective = DKD(warmup_epochs=4)
    buffer, attributes = objective.warmup, {name: value for name, value in vars(objective).items() if name[0] != "_"}
    objective.start_epoch(1)
    assert objective.warmup is buffer
    assert {name: value for name, value in vars(objective).items() if name[0] != "_"} == attributes


@pytest.mark.parametrize(("options", "terms"), [({"alpha": 0}, ["non_target"]), ({"beta": 0}, ["target"])])
def test_a_part_without_weight_is_left_out(options: dict[str, Any], terms: list[str]) -> None:
    assert list(dkd(*inputs(), **options)) == terms


def test_the_preset_has_the_papers_numbers() -> None:
    (_, ce, _), (_, weight, part) = parse_objective(presets()["dkd"]).entries()
    assert (ce, weight) == (1, 1)
    assert part.arguments() == {"alpha": 1, "beta": 8, "temperature": 4, "warmup_epochs": 20}


def test_logits_of_one_class_are_refused() -> None:
    one = Signals(logits=torch.zeros(8, 1))
    with pytest.raises(SignalError, match=r"sets the label's class against the others: it needs at least two\."):
        DKD().check(one, one, sample_batch())
    two = replace(one, logits=torch.zeros(8, 2))
    DKD().check(two, two, sample_batch())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"alpha": -1}, "alpha must be at least 0"),
        ({"beta": math.nan}, "beta must be a finite number"),
        ({"temperature": 0}, "temperature must be greater than 0"),
        ({"warmup_epochs": 2.5}, "warmup_epochs must be a whole number of at least 0, got 2.5"),
        ({"warmup_epochs": True}, "warmup_epochs must be a whole number"),
        ({"warmup_epochs": -1}, "warmup_epochs must be a whole number"),
        ({"alpha": 0, "beta": 0.0}, "alpha and beta are both 0, so there is nothing to train on"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        DKD(**options)
