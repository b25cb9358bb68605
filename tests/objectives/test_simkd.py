"""simkd against its formula, and the head that it leaves behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import parse_objective
from limbeck.objectives.simkd import SimKD
from limbeck.signals import Batch, Signals
from limbeck.testing import check_objective


def signals(
    seed: int, channels: int, size: tuple[int, int], *, n: int = 5, classes: int = 3, dtype: Any = torch.float64
) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(n, channels, *size, generator=generator, dtype=dtype)
    weight = torch.randn(classes, channels, generator=generator, dtype=dtype)
    bias = torch.randn(classes, generator=generator, dtype=dtype)
    return Signals(
        logits=maps.mean((2, 3)) @ weight.T + bias,
        embedding=maps.mean((2, 3)),
        embedding_map=maps,
        constants={"classifier.weight": weight, "classifier.bias": bias},
    )


def batch(n: int = 5, weight: Tensor | None = None) -> Batch:
    return Batch(torch.zeros(n), torch.zeros(n, dtype=torch.int64), weight=weight)


def built(student: Signals, teacher: Signals, **options: Any) -> SimKD:
    torch.manual_seed(0)
    objective = SimKD(**options)
    objective.build(student, teacher)
    return objective.double()


def reference(projected: Tensor, teacher: Tensor) -> list[float]:
    """(1 / (d H W)) Σ (P(F^S) - F^T)² of each sample, with loops."""
    values = []
    for one, other in zip(projected.tolist(), teacher.tolist(), strict=True):
        total, count = 0.0, 0
        for ours, theirs in zip(one, other, strict=True):
            for row, their_row in zip(ours, theirs, strict=True):
                for a, b in zip(row, their_row, strict=True):
                    total += (a - b) ** 2
                    count += 1
        values.append(total / count)
    return values


@pytest.mark.parametrize(
    ("ours", "theirs", "common"),
    [
        ((4, 4), (4, 4), (4, 4)),
        ((8, 8), (4, 4), (4, 4)),  # the student's is averaged
        ((2, 2), (4, 4), (2, 2)),  # the teacher's is
        ((6, 4), (3, 2), (3, 2)),
    ],
)
def test_the_mean_squared_error_of_the_projected_map(
    ours: tuple[int, int], theirs: tuple[int, int], common: tuple[int, int]
) -> None:
    student, teacher = signals(1, 6, ours), signals(2, 8, theirs)
    objective = built(student, teacher)
    assert objective.head is not None
    projected = objective.head.project(student.embedding_map).detach()
    target = F.adaptive_avg_pool2d(teacher.embedding_map, common)
    values = reference(projected, target)
    terms = objective(student, teacher, batch())
    assert set(terms) == {"simkd"}
    assert terms["simkd"].item() == pytest.approx(sum(values) / 5, rel=1e-9)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.5], dtype=torch.float64)
    weighted = sum(w * value for w, value in zip(weight.tolist(), values, strict=True)) / 5
    assert objective(student, teacher, batch(weight=weight))["simkd"].item() == pytest.approx(weighted, rel=1e-9)


def test_the_projector_is_the_papers() -> None:
    student, teacher = signals(1, 6, (4, 4)), signals(2, 8, (4, 4))
    objective = built(student, teacher, factor=4)
    assert objective.head is not None
    layers = list(objective.head.projector)
    expected = student.embedding_map
    for number in range(0, 9, 3):
        convolution, norm = layers[number], layers[number + 1]
        made = F.conv2d(expected, convolution.weight, padding=convolution.weight.shape[-1] // 2)
        mean, variance = made.mean((0, 2, 3)), made.var((0, 2, 3), unbiased=False)
        made = (made - mean[:, None, None]) / (variance + norm.eps).sqrt()[:, None, None]
        expected = (made * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
    torch.testing.assert_close(objective.head.project(student.embedding_map), expected)
    assert [layers[number].weight.shape[0] for number in (0, 3, 6)] == [2, 2, 8]


def test_zero_when_the_projected_map_is_the_teachers() -> None:
    student, teacher = signals(1, 6, (4, 4)), signals(2, 8, (4, 4))
    objective = built(student, teacher)
    assert objective.head is not None
    target = Signals(embedding_map=objective.head.project(student.embedding_map).detach())
    assert objective(student, target, batch())["simkd"].item() == 0


def test_the_new_classifier_has_the_teachers_weights_in_memory_of_its_own() -> None:
    student, teacher = signals(1, 6, (4, 4)), signals(2, 8, (4, 4))
    objective = built(student, teacher)
    head = objective.new_classifier()
    assert head is objective.head
    assert head is not None
    torch.testing.assert_close(head.classifier.weight, teacher.constants["classifier.weight"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(head.classifier.bias, teacher.constants["classifier.bias"], rtol=1e-6, atol=1e-6)
    before = teacher.constants["classifier.weight"].clone()
    with torch.no_grad():
        head.classifier.weight.zero_()
    assert torch.equal(before, teacher.constants["classifier.weight"])


def test_a_perfect_projection_gives_the_teachers_logits() -> None:
    # The teacher's map is non-negative, as it is behind a ReLU; a projector that answers it leaves the teacher's classifier.
    student, teacher = signals(1, 8, (4, 4)), signals(2, 8, (4, 4))
    objective = built(student, teacher)
    assert objective.head is not None
    maps = teacher.embedding_map
    objective.head.projector = torch.nn.Identity()
    weight, bias = teacher.constants["classifier.weight"], teacher.constants["classifier.bias"]
    with torch.no_grad():
        objective.head.classifier.weight.copy_(weight)
        objective.head.classifier.bias.copy_(bias)
    torch.testing.assert_close(objective.head(maps), teacher.logits)


def test_no_gradient_reaches_the_classifier_or_the_teacher_and_every_other_weight_gets_one() -> None:
    student, teacher = signals(1, 6, (4, 4)), signals(2, 8, (4, 4))
    objective = built(student, teacher)
    for value in (student.embedding_map, teacher.embedding_map):
        value.requires_grad_(True)
    objective.requires_grad_(True)  # as the training loop does
    objective(student, teacher, batch())["simkd"].backward()
    assert teacher.embedding_map.grad is None
    assert student.embedding_map.grad is not None
    without = {name for name, parameter in objective.named_parameters() if parameter.grad is None}
    assert without == objective.dead_parameters


def test_it_is_written_back_as_text() -> None:
    assert parse_objective("0.5*simkd(factor=4)").expression() == "0.5*simkd(factor=4)"
    assert parse_objective("simkd").expression() == "simkd()"


@pytest.mark.parametrize("factor", [0, -1, 1.0, True, "2"])
def test_a_factor_that_is_no_count_is_refused(factor: Any) -> None:
    with pytest.raises(SettingError, match="factor must be a whole number of at least 1"):
        SimKD(factor=factor)


def test_what_is_missing_is_said() -> None:
    student, teacher = signals(1, 6, (4, 4)), signals(2, 8, (4, 4))
    objective = SimKD()
    with pytest.raises(SettingError, match="simkd has no head yet: call build"):
        objective(student, teacher, batch())
    bare = Signals(logits=teacher.logits, embedding=teacher.embedding, constants=teacher.constants)
    with pytest.raises(SignalError, match=r"needs the teacher's embedding_map: no map was found whose mean"):
        objective.check(student, bare, batch())
    with pytest.raises(SignalError, match=r"needs the student's embedding_map"):
        objective.check(bare, teacher, batch())
    unknown = Signals(embedding_map=teacher.embedding_map)
    with pytest.raises(
        SignalError, match=r"needs the teacher's classifier: its logits must come from one linear layer"
    ):
        objective.check(student, unknown, batch())
    objective.check(student, teacher, batch())


def test_only_one_objective_may_replace_the_classifier() -> None:
    student, teacher = signals(1, 6, (4, 4)), signals(2, 8, (4, 4))
    both = parse_objective("simkd() + simkd(factor=4)")
    both.build(student, teacher)
    with pytest.raises(SettingError, match="two objectives would replace the student's classifier"):
        both.new_classifier()
    alone = parse_objective("ce + simkd()")
    assert alone.new_classifier() is None
    alone.build(student, teacher)
    assert alone.new_classifier() is not None


def test_the_contract_holds_for_another_factor() -> None:
    check_objective("simkd(factor=4)")
