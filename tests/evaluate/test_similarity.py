"""CKA against its definition by N × N matrices; what the consistency figures say of symmetric matrices and rotations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck import losses
from limbeck.evaluate.similarity import aligned, consistency, linear_cka


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hsic(one: Tensor, other: Tensor) -> float:
    count = len(one)
    centring = torch.eye(count, dtype=torch.float64) - 1 / count
    return torch.trace(one @ one.T @ centring @ other @ other.T @ centring).item()


def unbiased_hsic(one: Tensor, other: Tensor) -> float:
    """Song et al. 2012, equation 5, entry by entry."""
    count = len(one)
    k, q = (value @ value.T * (1 - torch.eye(count, dtype=torch.float64)) for value in (one, other))
    total = torch.trace(k @ q) + k.sum() * q.sum() / ((count - 1) * (count - 2))
    return ((total - 2 / (count - 2) * (k @ q).sum()) / (count * (count - 3))).item()


@given(st.integers(5, 30), st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_cka_is_that_of_the_kernels(count: int, width: int, other_width: int, seed: int) -> None:
    one = normal(count, width, seed=seed).double()
    other = one @ normal(width, other_width, seed=seed + 1).double() + normal(count, other_width, seed=seed + 2) + 3
    for debiased, product in ((False, hsic), (True, unbiased_hsic)):
        scale = product(one, one) * product(other, other)
        found = linear_cka(one, other, debiased=debiased)
        if scale > 1e-9:
            assert found == pytest.approx(product(one, other) / math.sqrt(scale), rel=1e-6, abs=1e-8)


def test_cka_sees_no_rotation_scale_or_shift() -> None:
    rows = normal(50, 6)
    rotation, _ = torch.linalg.qr(normal(6, 6, seed=1))
    assert linear_cka(rows, 3 * rows @ rotation + 2) == pytest.approx(1.0, abs=1e-6)
    assert linear_cka(rows, 3 * rows @ rotation + 2, debiased=True) == pytest.approx(1.0, abs=1e-6)
    unrelated = normal(50, 100, seed=2), normal(50, 100, seed=3)
    biased, debiased = linear_cka(*unrelated), linear_cka(*unrelated, debiased=True)
    assert biased is not None
    assert debiased is not None
    assert biased > 0.5  # what the bias alone makes
    assert abs(debiased) < 0.1


def test_cka_of_constant_rows_or_too_few_is_none() -> None:
    assert linear_cka(torch.ones(5, 2), normal(5, 2)) is None
    assert linear_cka(normal(3, 2), normal(3, 2), debiased=True) is None


def test_equal_rows_make_a_symmetric_matrix() -> None:
    rows = normal(200, 16)
    found = consistency(rows, rows)
    assert found is not None
    assert found.invariance == pytest.approx(0, abs=1e-9)
    assert found.asymmetry == pytest.approx(0, abs=1e-9)
    assert found.own_teacher == 1.0
    assert found.same_structure == pytest.approx(1.0)
    assert found.batch == 64


def test_unrelated_rows_are_neither_symmetric_nor_found() -> None:
    found = consistency(normal(640, 16), normal(640, 16, seed=1))
    assert found is not None
    assert found.invariance > 1
    assert found.asymmetry == pytest.approx(1.0, abs=0.05)
    assert found.own_teacher < 0.06
    assert found.same_structure == pytest.approx(0.0, abs=0.05)


def test_invariance_is_the_objectives_term() -> None:
    mine, theirs = normal(32, 8), normal(32, 8, seed=1)
    found = consistency(mine, theirs, scale=5.0)
    assert found is not None
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    similarity = 5.0 * losses.cosine_similarity_matrix(mine[order].double(), theirs[order].double())
    assert found.invariance == pytest.approx(losses.invariance(similarity).item())
    assert consistency(mine[:1], theirs[:1]) is None


@pytest.mark.parametrize("widths", [(6, 6), (6, 10), (10, 6)])
def test_alignment_finds_a_rotation_on_other_samples(widths: tuple[int, int]) -> None:
    narrow, wide = min(widths), max(widths)
    rows = normal(200, narrow)
    turned = rows @ torch.linalg.qr(normal(wide, narrow, seed=1))[0].T + 1
    pair = (rows, turned) if widths[0] <= widths[1] else (turned, rows)
    student, teacher = aligned(pair[0][100:], pair[1][100:], (pair[0][:100], pair[1][:100]))
    assert student.shape == teacher.shape
    assert torch.allclose(student, teacher, atol=1e-5)
