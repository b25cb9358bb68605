"""RRD against its explicit formula (shared/spec/vision-methods.md, section 2), its two published settings and its queue."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from limbeck.errors import SettingError
from limbeck.objectives import parse_objective, presets
from limbeck.objectives.rrd import RRD
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch, sample_signals

Rows = list[list[float]]


def made(*, dtype: torch.dtype = torch.float64, **options: Any) -> RRD:
    objective = RRD(**{"dim": 4, "queue": 12, **options})
    torch.manual_seed(0)
    objective.build(sample_signals(1), sample_signals(2, embedding_size=7))
    return objective.to(dtype)


def inputs(seed: int = 0, n: int = 8) -> tuple[Signals, Signals, Batch]:
    student = sample_signals(seed + 1, dtype=torch.float64)
    teacher = sample_signals(seed + 2, embedding_size=7, dtype=torch.float64)
    return student.map(lambda v: v[:n]), teacher.map(lambda v: v[:n]), sample_batch()[:n]


def embed(weight: Tensor, bias: Tensor, embedding: Tensor | None) -> Rows:
    assert embedding is not None
    rows = []
    for row in embedding.tolist():
        out = [
            sum(w * x for w, x in zip(weights, row, strict=True)) + b
            for weights, b in zip(weight.tolist(), bias.tolist(), strict=True)
        ]
        length = math.sqrt(sum(value * value for value in out))
        rows.append([value / length for value in out])
    return rows


def softmax(z: list[float], rows: Rows, temperature: float) -> list[float]:
    values = [math.exp(sum(a * b for a, b in zip(z, row, strict=True)) / temperature) for row in rows]
    return [value / sum(values) for value in values]


class SlowRRD:
    """The formula with loops; the queue is a list from the oldest row to the newest."""

    def __init__(self, objective: RRD, tau_student: float, tau_teacher: float, first: bool) -> None:
        self.objective, self.tau_student, self.tau_teacher, self.first = objective, tau_student, tau_teacher, first
        self.queue: Rows = objective.memory.tolist()

    def embed(self, student: Signals, teacher: Signals) -> tuple[Rows, Rows]:
        head = self.objective.student_head
        assert head is not None
        z_s = embed(head.weight, head.bias, student.embedding)
        return z_s, embed(self.objective.teacher_weight, self.objective.teacher_bias, teacher.embedding)

    def enter(self, rows: Rows) -> None:
        for row in rows:
            self.queue.append(row)
            self.queue.pop(0)

    def step(self, student: Signals, teacher: Signals) -> float:
        z_s, z_t = self.embed(student, teacher)
        if self.first:
            self.enter(z_t)
        loss = 0.0
        for i in range(len(z_s)):
            P_t = softmax(z_t[i], self.queue, self.tau_teacher)
            P_s = softmax(z_s[i], self.queue, self.tau_student)
            loss -= sum(t * math.log(s) for t, s in zip(P_t, P_s, strict=True)) / len(z_s)
        if not self.first:
            self.enter(z_t)
        return loss


def in_order(objective: RRD) -> Tensor:
    """The queue from the oldest row to the newest."""
    return objective.memory.roll(-int(objective.place), dims=0)


SETTINGS = [
    ({}, 0.10, 0.02, True),
    ({"variant": "2024"}, 0.04, 0.10, False),
    ({"student_temperature": 0.3}, 0.3, 0.02, True),
    ({"variant": "2024", "teacher_temperature": 1, "student_temperature": 2.0}, 2.0, 1.0, False),
]


@pytest.mark.parametrize("queue", [1, 5, 8, 12, 16, 30])
@pytest.mark.parametrize(("options", "tau_student", "tau_teacher", "first"), SETTINGS, ids=str)
def test_the_loss_and_the_queue_are_the_formula_over_five_steps(
    options: dict[str, Any], tau_student: float, tau_teacher: float, first: bool, queue: int
) -> None:
    objective = made(queue=queue, **options)
    slow = SlowRRD(objective, tau_student, tau_teacher, first)
    for step, n in enumerate([8, 8, 3, 8, 5]):
        student, teacher, batch = inputs(step, n)
        terms = objective(student, teacher, batch)
        assert list(terms) == ["rrd"]
        assert terms["rrd"].item() == pytest.approx(slow.step(student, teacher), rel=1e-9, abs=1e-12)
        torch.testing.assert_close(
            in_order(objective), torch.tensor(slow.queue, dtype=torch.float64), rtol=1e-9, atol=1e-12
        )


@given(st.integers(1, 9), st.lists(st.integers(1, 8), min_size=1, max_size=6), st.sampled_from(["2024", "2025"]))
def test_the_queue_holds_the_last_rows_in_the_order_in_which_they_came(
    queue: int, sizes: list[int], variant: str
) -> None:
    objective = made(queue=queue, variant=variant)
    everything = [*objective.memory]
    for step, n in enumerate(sizes):
        student, teacher, batch = inputs(step, n)
        objective(student, teacher, batch)
        z = torch.tensor(embed(objective.teacher_weight, objective.teacher_bias, teacher.embedding)).double()
        everything += [*z]
    torch.testing.assert_close(in_order(objective), torch.stack(everything[-queue:]), rtol=1e-5, atol=1e-6)


def test_two_rows_by_hand() -> None:
    objective = RRD(variant="2024", student_temperature=1.0, teacher_temperature=0.5, queue=2, dim=2)
    one = Signals(embedding=torch.tensor([[3.0, 0.0]]))
    objective.build(one, one)
    assert objective.student_head is not None
    with torch.no_grad():
        for weight, bias in (
            (objective.student_head.weight, objective.student_head.bias),
            (objective.teacher_weight, objective.teacher_bias),
        ):
            weight.copy_(torch.eye(2))
            bias.zero_()
        objective.memory.copy_(torch.eye(2))
    value = objective(one, one, Batch(torch.zeros(1, 1), torch.zeros(1)))["rrd"].item()
    # Similarities (1, 0): the teacher's softmax is (e², 1)/(e² + 1), the student's (e, 1)/(e + 1).
    own = math.exp(2) / (math.exp(2) + 1)
    assert value == pytest.approx(-own * math.log(math.e / (math.e + 1)) + (1 - own) * math.log(math.e + 1), rel=1e-6)
    assert objective.memory.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert objective.place.item() == 1


# -- the two settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "inside"), [("2025", True), ("2024", False)])
def test_the_own_positive_is_in_the_queue_of_2025_only(variant: str, inside: bool) -> None:
    # A teacher this sharp puts all weight on the row that is its own, if that is there: then the loss is InfoNCE.
    objective = made(variant=variant, teacher_temperature=1e-5, student_temperature=0.1)
    student, teacher, batch = inputs()
    loss = objective(student, teacher, batch)["rrd"]
    slow = SlowRRD(objective, 0.1, 1e-5, inside)
    z_s, z_t = slow.embed(student, teacher)
    queue, own = slow.queue, [slow.queue.index(min(slow.queue, key=lambda row: math.dist(row, z))) for z in z_t]
    info_nce = -sum(math.log(softmax(z, queue, 0.1)[place]) for z, place in zip(z_s, own, strict=True)) / len(z_s)
    assert (abs(loss.item() - info_nce) < 1e-6) == inside


def test_only_a_batch_that_sees_itself_is_coupled() -> None:
    assert made().batch_coupled
    assert not made(variant="2024").batch_coupled
    assert parse_objective("ce + rrd()").batch_coupled
    assert not parse_objective("rrd_2024").batch_coupled
    assert RRD.batch_coupled, "what is listed of the class is its default"


def test_the_sharper_network_is_the_student_in_2024_and_the_teacher_in_2025() -> None:
    for variant, temperatures in (("2024", (0.04, 0.10)), ("2025", (0.10, 0.02))):
        tau_student, tau_teacher = temperatures
        named = made(variant=variant)
        given = made(variant=variant, student_temperature=tau_student, teacher_temperature=tau_teacher)
        assert torch.equal(named(*inputs())["rrd"], given(*inputs())["rrd"])
    assert made().expression() == "rrd(queue=12, dim=4)"
    assert made(variant="2024").expression() == "rrd(variant='2024', queue=12, dim=4)"


def test_it_is_cross_entropy_so_that_equal_networks_leave_the_teachers_entropy() -> None:
    objective = made(variant="2024", student_temperature=0.2, teacher_temperature=0.2)
    _, teacher, batch = inputs()
    objective.student_head = nn.Linear(7, 4).double()
    with torch.no_grad():
        objective.student_head.weight.copy_(objective.teacher_weight)
        objective.student_head.bias.copy_(objective.teacher_bias)
    rows = objective.memory.clone()
    loss = objective(teacher, teacher, batch)["rrd"].item()
    z = embed(objective.teacher_weight, objective.teacher_bias, teacher.embedding)
    entropies = [-sum(p * math.log(p) for p in softmax(one, rows.tolist(), 0.2)) for one in z]
    assert loss == pytest.approx(sum(entropies) / len(entropies), rel=1e-9)


# -- what learns and what is kept -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["2024", "2025"])
def test_gradients_are_those_of_the_formula_for_the_embedding_and_the_students_head(variant: str) -> None:
    objective = made(variant=variant, student_temperature=0.5, teacher_temperature=0.5)
    student, teacher, batch = inputs(n=4)
    learned = [student.embedding.requires_grad_(), *objective.parameters()]
    assert len(learned) == 3
    start = copy.deepcopy(objective.state_dict())

    def loss(*_: Tensor) -> Tensor:
        with torch.no_grad():
            objective.memory.copy_(start["memory"])
            objective.place.copy_(start["place"])
        return objective(student, teacher, batch)["rrd"]

    assert torch.autograd.gradcheck(loss, learned)


def test_the_teachers_layer_is_a_buffer_that_no_step_and_no_optimizer_moves() -> None:
    objective = made()
    assert [name for name, _ in objective.named_parameters()] == ["student_head.weight", "student_head.bias"]
    assert {"teacher_weight", "teacher_bias", "memory", "place"} <= objective.state_dict().keys()
    before = objective.teacher_weight.clone()
    student, teacher, batch = inputs()
    embedding = teacher.embedding.requires_grad_()
    objective(student, teacher, batch)["rrd"].backward()
    assert embedding.grad is None
    assert torch.equal(objective.teacher_weight, before)


@pytest.mark.parametrize("variant", ["2024", "2025"])
def test_the_queue_carries_no_graph_and_its_change_does_not_disturb_the_gradient(variant: str) -> None:
    objective = made(variant=variant)
    first = objective(*inputs())["rrd"]
    objective(*inputs(1))
    first.backward()
    assert not objective.memory.requires_grad
    again = made(variant=variant)
    again(*inputs())["rrd"].backward()
    for one, other in zip(objective.parameters(), again.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_rows_of_the_first_queue_have_unit_length() -> None:
    objective = made(queue=500, dim=128)
    torch.testing.assert_close(objective.memory.norm(dim=1), torch.ones(500, dtype=torch.float64))
    assert objective.memory.norm(dim=0).std() > 1e-3, "columns are not what is normalised"


def test_nothing_enters_in_eval_mode() -> None:
    objective = made().eval()
    before = copy.deepcopy(objective.state_dict())
    loss = objective(*inputs())["rrd"]
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    assert loss.item() == pytest.approx(SlowRRD(objective, 0.10, 0.02, False).step(*inputs()[:2]), rel=1e-9)


def test_the_checkpoint_holds_the_queue_and_where_it_stands() -> None:
    objective = made(queue=11)
    for step in range(2):
        objective(*inputs(step))
    again = RRD(dim=4, queue=11)
    torch.manual_seed(99)
    again.build(sample_signals(5), sample_signals(6, embedding_size=7))
    again.double().load_state_dict(objective.state_dict())
    for step in range(2, 4):
        assert torch.equal(again(*inputs(step))["rrd"], objective(*inputs(step))["rrd"])
    assert torch.equal(again.memory, objective.memory)


def test_the_weight_of_a_sample_is_that_of_its_loss() -> None:
    weight = torch.tensor([2.0, 0, 0, 0, 0, 0, 0, 0]).double()
    student, teacher, batch = inputs()
    weighted = made(variant="2024")(student, teacher, replace(batch, weight=weight))["rrd"]
    alone = made(variant="2024")(*(s.map(lambda v: v[:1]) for s in (student, teacher)), batch[:1])["rrd"]
    assert weighted.item() == pytest.approx(alone.item() * 2 / 8, rel=1e-9)


# -- numbers that could leave their range ---------------------------------------------------------------------------------


def test_with_flat_distributions_the_loss_is_the_logarithm_of_the_queue() -> None:
    objective = made(queue=300, variant="2024", student_temperature=1e4, teacher_temperature=1e4)
    assert objective(*inputs())["rrd"].item() == pytest.approx(math.log(300), rel=1e-6)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", ["2024", "2025"])
def test_large_numbers_in_half_precision_stay_finite(half: torch.dtype, variant: str) -> None:
    objective = made(dtype=torch.float32, variant=variant, teacher_temperature=0.001, student_temperature=0.001)
    student, teacher, batch = inputs()
    student, teacher = (s.map(lambda v: (300 * v).to(half).requires_grad_()) for s in (student, teacher))
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = objective(student, teacher, batch)["rrd"]
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert objective.memory.dtype == torch.float32
    assert student.embedding.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in objective.parameters())


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_teacher_in_half_precision_teaches_a_student_in_full(half: torch.dtype) -> None:
    student, teacher, batch = inputs()
    loss = made(dtype=torch.float32)(student.map(Tensor.float), teacher.map(lambda v: v.to(half)), batch)["rrd"]
    assert loss.dtype == torch.float32


# -- what does not fit ----------------------------------------------------------------------------------------------------


def test_a_forgotten_head_is_an_error() -> None:
    with pytest.raises(SettingError, match=r"no head yet: call build\(student, teacher\) before"):
        RRD()(*inputs())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"variant": "2023"}, "variant: unknown value '2023'"),
        ({"variant": 2025}, "variant: unknown value '2025'"),
        ({"student_temperature": 0}, r"student_temperature must be greater than 0\.0"),
        ({"teacher_temperature": -1.0}, r"teacher_temperature must be greater than 0\.0"),
        ({"teacher_temperature": "0.1"}, "teacher_temperature must be a finite number"),
        ({"queue": 0}, "queue must be a whole number of at least 1, got 0"),
        ({"queue": 16.0}, "queue must be a whole number"),
        ({"dim": True}, "dim must be a whole number"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        RRD(**options)


def test_presets_name_both_settings() -> None:
    meant = {"rrd": "2025", "rrd+kd": "2025", "rrd_2024": "2024", "rrd_2024+kd": "2024"}
    for name, variant in meant.items():
        objective = parse_objective(presets()[name])
        assert set(objective.weights) == {1.0}
        assert [part.variant for part in objective.parts if isinstance(part, RRD)] == [variant]
    assert RRD().arguments() == {
        "variant": "2025",
        "student_temperature": None,
        "teacher_temperature": None,
        "queue": 16384,
        "dim": 128,
    }
