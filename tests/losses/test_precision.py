"""Losses stay in float32 whatever the precision around them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from limbeck import losses


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


LOSSES: dict[str, tuple[Callable[..., Tensor], dict[str, Tensor]]] = {
    "cross_entropy": (losses.cross_entropy, {"logits": draw(4, 5), "labels": torch.tensor([0, 1, 2, 3])}),
    "kl_divergence": (losses.kl_divergence, {"student_logits": draw(4, 5), "teacher_logits": draw(4, 5).flip(0)}),
    "divergence": (losses.divergence, {"student_logits": draw(4, 5), "teacher_logits": draw(4, 5).flip(0)}),
    "sorted_distance": (losses.sorted_distance, {"student_logits": draw(4, 5), "teacher_logits": draw(4, 7)}),
    "standardise": (losses.standardise, {"logits": draw(4, 5)}),
    "tempered": (partial(losses.tempered, temperature=0.05), {"logits": draw(4, 5)}),
    "unit": (losses.unit, {"rows": draw(4, 5)}),
    "cosines": (losses.cosine_similarity_matrix, {"student": draw(4, 5), "teacher": draw(4, 5).flip(0)}),
    "info_nce": (losses.info_nce, {"similarity": draw(4, 4)}),
    "invariance": (losses.invariance, {"similarity": draw(4, 4)}),
}


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_gives_the_float32_value_of_the_same_numbers(
    name: str, half: torch.dtype, by_name: bool
) -> None:
    loss, arguments = LOSSES[name]
    lowered = {key: value.to(half) if value.is_floating_point() else value for key, value in arguments.items()}
    raised = {key: value.float() if value.is_floating_point() else value for key, value in lowered.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(**lowered) if by_name else loss(*lowered.values())
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(**raised))


@pytest.mark.parametrize("name", LOSSES)
def test_float64_stays(name: str) -> None:
    loss, arguments = LOSSES[name]
    doubled = {key: value.double() if value.is_floating_point() else value for key, value in arguments.items()}
    assert loss(**doubled).dtype == torch.float64


def test_autocast_goes_on_after_the_loss() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses.info_nce(draw(4, 4))
        assert (draw(2, 2) @ draw(2, 2)).dtype == torch.bfloat16


def test_gradients_come_back_in_the_precision_of_the_input() -> None:
    similarity = draw(4, 4).bfloat16().requires_grad_()
    losses.invariance(similarity).backward()
    assert similarity.grad is not None
    assert similarity.grad.dtype == torch.bfloat16


def test_a_projection_runs_in_the_precision_of_its_head() -> None:
    head = torch.nn.Linear(2048, 4, bias=False)
    rows = torch.full((2, 2048), 300.0, dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected = losses.project(rows, head)
    assert projected.dtype == torch.float32
    torch.testing.assert_close(projected, head(rows.float()))
