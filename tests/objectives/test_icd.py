"""ICD against its explicit formula (shared/spec/vision-methods.md, section 1), and the four points where it differs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.errors import SettingError
from limbeck.objectives import ICD, objective_class, parse_objective
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch, sample_signals

Rows = list[list[float]]


def made(*, dtype: torch.dtype = torch.float64, **options: Any) -> ICD:
    objective = ICD(**{"dim": 4, **options})
    torch.manual_seed(0)
    objective.build(sample_signals(1), sample_signals(2, embedding_size=7))
    return objective.to(dtype)


def inputs(n: int = 8, dtype: torch.dtype = torch.float64) -> tuple[Signals, Signals, Batch]:
    student, teacher = sample_signals(1, dtype=dtype), sample_signals(2, embedding_size=7, dtype=dtype)
    return student.map(lambda v: v[:n]), teacher.map(lambda v: v[:n]), sample_batch()[:n]


def project(head: torch.nn.Linear, rows: Rows) -> Rows:
    projected = []
    for row in rows:
        out = [
            sum(w * x for w, x in zip(weights, row, strict=True)) + bias
            for weights, bias in zip(head.weight.tolist(), head.bias.tolist(), strict=True)
        ]
        norm = math.sqrt(sum(value * value for value in out))
        projected.append([value / norm for value in out])
    return projected


def slow_icd(objective: ICD, student: Signals, teacher: Signals, batch: Batch) -> dict[str, float]:
    assert objective.student_head is not None
    assert objective.teacher_head is not None
    z_s = project(objective.student_head, student.embedding.tolist())
    z_t = project(objective.teacher_head, teacher.embedding.tolist())
    labels, n = batch.labels.tolist(), len(z_s)
    tau = min(math.exp(objective.log_scale.item()), objective.max_scale)
    L = [[tau * sum(a * b for a, b in zip(s, t, strict=True)) for t in z_t] for s in z_s]

    def counts(i: int, j: int) -> bool:
        return not objective.exclude_same_class or i == j or labels[i] != labels[j]

    def log_softmax(i: int, entry: Callable[[int, int], float]) -> dict[int, float]:
        total = sum(math.exp(entry(i, j)) for j in range(n) if counts(i, j))
        return {j: entry(i, j) - math.log(total) for j in range(n) if counts(i, j)}

    rows = [log_softmax(i, lambda i, j: L[i][j]) for i in range(n)]
    columns = [log_softmax(i, lambda i, j: L[j][i]) for i in range(n)]
    contrast = -sum(rows[i][i] for i in range(n)) / n
    if objective.symmetric:
        contrast = (contrast - sum(columns[i][i] for i in range(n)) / n) / 2
    terms = {"contrast": contrast}
    if objective.alpha > 0:
        divergence = sum(math.exp(q) * (q - rows[i][j]) for i in range(n) for j, q in columns[i].items())
        terms["invariance"] = objective.alpha * divergence / n
    return terms


OPTIONS: list[dict[str, Any]] = [
    {},
    {"alpha": 0},
    {"alpha": 2.0, "max_scale": 2.0},
    {"max_scale": 5.0, "learn_scale": False},
    {"symmetric": True},
    {"detach_target": True},
    {"exclude_same_class": True},
    {"variant": "paper"},
    {"variant": "paper", "exclude_same_class": True, "symmetric": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_terms_are_the_formula(options: dict[str, Any]) -> None:
    objective = made(**options)
    terms = objective(*inputs())
    expected = slow_icd(objective, *inputs())
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("options", [option for option in OPTIONS if "detach_target" not in option], ids=str)
def test_gradients_are_those_of_the_formula_for_the_student_both_heads_and_the_scale(options: dict[str, Any]) -> None:
    objective = made(**{**options, "dim": 3})
    student, teacher, batch = inputs(4)
    embedding = student.embedding.requires_grad_()
    learned = [embedding, *(p for name, p in objective.named_parameters() if name not in objective.dead_parameters)]
    assert len(learned) == (6 if objective.learn_scale else 5)
    # At the bound of max_scale the scale has one-sided derivatives; the check is for the inside.
    with torch.no_grad():
        objective.log_scale.fill_(0.5)
    assert torch.autograd.gradcheck(lambda *_: sum(objective(student, teacher, batch).values()), learned)


def test_a_fixed_target_changes_gradients_and_not_values() -> None:
    gradients, values = [], []
    for detach_target in (False, True):
        objective = made(detach_target=detach_target)
        student, teacher, batch = inputs()
        embedding = student.embedding.requires_grad_()
        loss = objective(student, teacher, batch)["invariance"]
        values.append(loss.detach())
        gradients.append(torch.autograd.grad(loss, embedding)[0])
    assert torch.equal(*values)
    assert not torch.allclose(*gradients, rtol=1e-3)


@pytest.mark.parametrize("variant", ["mended", "paper"])
def test_at_the_start_the_scale_is_e_and_the_contrast_near_ln_n(variant: str) -> None:
    objective = ICD(variant=variant)
    torch.manual_seed(0)
    student, teacher = Signals(embedding=torch.randn(64, 256)), Signals(embedding=torch.randn(64, 512))
    objective.build(student, teacher)
    terms = objective(student, teacher, Batch(torch.zeros(64, 1), torch.zeros(64, dtype=torch.int64)))
    assert objective.monitors()["scale"].item() == pytest.approx(math.e)
    assert terms["contrast"].item() == pytest.approx(math.log(64), abs=0.15)
    assert terms["invariance"].item() == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(
    ("pair", "student", "teacher", "number"),
    [
        ("resnet32x4 → resnet8x4", 256, 256, 65_794),
        ("wrn_40_2 → wrn_16_2", 128, 128, 33_026),
        ("wrn_40_2 → wrn_40_1", 64, 128, 24_834),
        ("resnet56 → resnet20", 64, 64, 16_642),
        ("vgg13 → vgg8", 512, 512, 131_330),
        ("resnet50 → mobilenet_v2", 1280, 2048, 426_242),
        ("resnet32x4 → shufflenet_v1", 960, 256, 155_906),
    ],
)
def test_heads_have_the_papers_number_of_parameters_and_one_less_without_the_dead_bias(
    pair: str, student: int, teacher: int, number: int
) -> None:
    for variant, expected in (("paper", number), ("mended", number - 1)):
        objective = ICD(variant=variant)
        objective.build(Signals(embedding=torch.zeros(2, student)), Signals(embedding=torch.zeros(2, teacher)))
        assert sum(parameter.numel() for parameter in objective.parameters()) == expected


def test_the_papers_bias_changes_nothing_and_gets_no_gradient() -> None:
    objective = made(variant="paper")
    before = objective(*inputs())
    with torch.no_grad():
        objective.bias.fill_(3.0)
    after = objective(*inputs())
    sum(after.values()).backward()
    for name in before:
        torch.testing.assert_close(before[name], after[name], rtol=1e-9, atol=1e-12)
    assert objective.dead_parameters == {"bias"}
    assert objective.bias.grad is not None
    assert objective.bias.grad.abs() < 1e-12
    assert "bias" not in dict(made().named_parameters())


def scale_gradient(objective: ICD) -> float:
    objective.zero_grad()
    sum(objective(*inputs()).values()).backward()
    assert objective.log_scale.grad is not None
    return objective.log_scale.grad.item()


def test_above_the_bound_the_papers_scale_is_stuck_and_ours_is_not() -> None:
    gradients = {}
    for variant in ("paper", "mended"):
        objective = made(variant=variant)
        with torch.no_grad():
            objective.log_scale.fill_(math.log(10) + 0.5)
        gradients[variant] = scale_gradient(objective)
        assert objective.monitors()["scale"].item() == pytest.approx(10.0)
    assert gradients["paper"] == 0
    assert abs(gradients["mended"]) > 1e-3


def test_a_scale_pushed_over_the_bound_comes_back_by_gradient_alone() -> None:
    objective = made()
    with torch.no_grad():
        objective.log_scale.fill_(5.0)
    gradient = scale_gradient(objective)
    assert gradient > 0, "this batch asks for a smaller scale"
    with torch.no_grad():
        objective.log_scale -= 0.1 * gradient
    assert objective.monitors()["scale"].item() < 9.99


@pytest.mark.parametrize(("variant", "spared"), [("mended", {"log_scale"}), ("paper", set())])
def test_weight_decay_leaves_the_mended_scale_alone(variant: str, spared: set[str]) -> None:
    assert made(variant=variant).no_weight_decay() == spared
    inside = parse_objective(f"ce + icd(variant='{variant}')")
    assert inside.no_weight_decay() == {f"parts.1.{name}" for name in spared}
    assert inside.no_weight_decay() <= dict(inside.named_parameters()).keys()


def test_negatives_of_the_paper_are_those_of_one_process() -> None:
    assert made(variant="paper").local_negatives
    assert not made().local_negatives


def test_excluded_classes_ask_for_labels_and_change_the_loss() -> None:
    assert ICD(exclude_same_class=True).needs == {"embedding", "labels"}
    assert ICD().needs == {"embedding"}
    student, teacher, batch = inputs()
    one_class = replace(batch, labels=torch.zeros_like(batch.labels))
    objective = made(exclude_same_class=True)
    alone = objective(student, teacher, one_class)
    assert [value.item() for value in alone.values()] == [0.0, 0.0], "without negatives nothing is left to learn"
    objective.zero_grad()
    sum(alone.values()).backward()
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.grad is not None)


def test_the_symmetric_contrast_is_the_same_seen_from_the_teacher() -> None:
    student, teacher, batch = inputs()
    objective, turned = made(symmetric=True, alpha=0), made(symmetric=True, alpha=0)
    turned.student_head, turned.teacher_head = objective.teacher_head, objective.student_head
    there = objective(student, teacher, batch)["contrast"]
    back = turned(teacher, student, batch)["contrast"]
    torch.testing.assert_close(there, back, rtol=1e-12, atol=0)
    plain, plain_turned = made(alpha=0), made(alpha=0)
    plain_turned.student_head, plain_turned.teacher_head = plain.teacher_head, plain.student_head
    assert not torch.allclose(
        plain(student, teacher, batch)["contrast"], plain_turned(teacher, student, batch)["contrast"]
    )


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_teacher_in_half_precision_teaches_a_student_in_full(half: torch.dtype) -> None:
    student, teacher, batch = inputs(dtype=torch.float32)
    loss = made(dtype=torch.float32)(student, teacher.map(lambda v: v.to(half)), batch)["contrast"]
    assert loss.dtype == torch.float32


def test_the_teachers_head_learns_and_the_teacher_does_not() -> None:
    objective = made()
    student, teacher, batch = inputs()
    embedding: Tensor = teacher.embedding.requires_grad_()
    sum(objective(student, teacher, batch).values()).backward()
    assert objective.teacher_head is not None
    assert objective.teacher_head.weight.grad.abs().sum() > 0
    assert embedding.grad is None


def test_a_batch_of_one_is_an_error() -> None:
    with pytest.raises(SettingError, match="needs at least two"):
        made()(*inputs(1))


def test_forgotten_heads_are_an_error() -> None:
    with pytest.raises(SettingError, match=r"no heads yet: call build\(student, teacher\) before"):
        ICD()(*inputs())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"alpha": -0.1}, "alpha must be at least 0"),
        ({"max_scale": 0.5}, "max_scale must be at least 1"),
        ({"variant": "papr"}, "variant: unknown value 'papr'; did you mean 'paper'"),
        ({"dim": 0}, "dim must be a whole number"),
        ({"dim": 2.0}, "dim must be a whole number"),
        ({"symmetric": "no"}, "symmetric must be True or False"),
        ({"learn_scale": "no"}, "learn_scale must be True or False"),
        ({"learn_scale": False, "variant": "paper"}, "variant='paper' learns its scale"),
        ({"detach_target": 1}, "detach_target must be True or False"),
        ({"exclude_same_class": None}, "exclude_same_class must be True or False"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        ICD(**options)


def test_a_scale_that_is_not_learned_stays_at_its_bound() -> None:
    objective = made(max_scale=7.0, learn_scale=False)
    assert "log_scale" not in dict(objective.named_parameters())
    assert objective.no_weight_decay() == set()
    assert objective.monitors()["scale"].item() == pytest.approx(7.0)


def test_dcd_is_another_name_of_icd() -> None:
    assert objective_class("dcd") is objective_class("icd") is ICD
    assert parse_objective("dcd(alpha=1)").expression() == parse_objective("icd(alpha=1)").expression()


def test_another_view_of_a_sample_is_no_negative() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 6, generator=generator)
    objective = ICD(max_scale=100)
    signals = Signals(embedding=rows.repeat(2, 1))
    torch.manual_seed(0)
    objective.build(signals, signals)
    with torch.no_grad():
        objective.log_scale.fill_(4.6)
        assert objective.student_head is not None
        assert objective.teacher_head is not None
        objective.teacher_head.load_state_dict(objective.student_head.state_dict())
    labels = torch.zeros(12, dtype=torch.int64)
    views = objective(signals, signals, Batch(torch.zeros(12, 1), labels, copies=2))["contrast"]
    one_view = Signals(embedding=rows)
    alone = objective(one_view, one_view, Batch(torch.zeros(6, 1), labels[:6]))["contrast"]
    strangers = objective(signals, signals, Batch(torch.zeros(12, 1), labels))["contrast"]
    # Equal views of other samples double the negatives; the sample's own would halve its share, ln 2.
    assert views < alone + 0.1
    assert strangers > views + 0.6
