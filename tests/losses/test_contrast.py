"""Losses on the similarity matrix against explicit loops, and what their shape promises."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck import losses

seeds = st.integers(0, 10**6)


def matrix(seed: int, n: int = 5) -> Tensor:
    return 2 * torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def excluding(similarity: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    mask = torch.zeros_like(similarity, dtype=torch.bool)
    for i, j in pairs:
        mask[i, j] = mask[j, i] = True
    return similarity.masked_fill(mask, -math.inf)


def slow_softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def slow_info_nce(similarity: Tensor) -> float:
    rows = similarity.tolist()
    return -sum(math.log(slow_softmax(row)[i]) for i, row in enumerate(rows)) / len(rows)


def slow_invariance(similarity: Tensor) -> float:
    rows, columns = similarity.tolist(), similarity.T.tolist()
    total = 0.0
    for i in range(len(rows)):
        p, q = slow_softmax(rows[i]), slow_softmax(columns[i])
        for p_ij, q_ij in zip(p, q, strict=True):
            if q_ij > 0:
                total += q_ij * (math.log(q_ij) - math.log(p_ij))
    return total / len(rows)


EXCLUSIONS: list[list[tuple[int, int]]] = [[], [(0, 1)], [(0, 1), (2, 3), (0, 4)]]


@pytest.mark.parametrize("pairs", EXCLUSIONS)
@pytest.mark.parametrize(("fast", "slow"), [(losses.info_nce, slow_info_nce), (losses.invariance, slow_invariance)])
def test_values_are_the_formula_with_and_without_excluded_pairs(fast, slow, pairs: list[tuple[int, int]]) -> None:
    similarity = excluding(matrix(0), pairs)
    assert fast(similarity).item() == pytest.approx(slow(similarity), rel=1e-9)


def test_cosines_are_the_formula_for_any_number_of_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (4, 6))
    cosines = losses.cosine_similarity_matrix(student, teacher)
    assert cosines.shape == (4, 6)
    for i, s in enumerate(student.tolist()):
        for j, t in enumerate(teacher.tolist()):
            dot = sum(a * b for a, b in zip(s, t, strict=True))
            assert cosines[i, j].item() == pytest.approx(dot / (math.hypot(*s) * math.hypot(*t)), rel=1e-9)


def test_the_cosine_of_a_zero_row_is_zero_with_a_finite_gradient() -> None:
    student = torch.zeros(2, 3, requires_grad=True)
    cosines = losses.cosine_similarity_matrix(student, torch.eye(2, 3))
    cosines.sum().backward()
    assert cosines.abs().max() == 0
    assert student.grad is not None
    assert student.grad.isfinite().all()


@given(seeds, st.integers(2, 6))
def test_invariance_is_zero_for_symmetric_matrices(seed: int, n: int) -> None:
    half = matrix(seed, n)
    assert losses.invariance(half + half.T).abs() < 1e-12


@given(seeds, st.integers(3, 6), st.floats(0.05, 3), st.data())
def test_invariance_is_positive_as_soon_as_one_pair_differs(
    seed: int, n: int, change: float, data: st.DataObject
) -> None:
    half = matrix(seed, n)
    similarity = half + half.T
    i = data.draw(st.integers(0, n - 1))
    similarity[i, (i + 1) % n] += change
    value = losses.invariance(similarity).item()
    assert value > 0
    assert value == pytest.approx(slow_invariance(similarity), rel=1e-6, abs=1e-13)


@given(seeds, st.permutations(range(5)), st.sampled_from(EXCLUSIONS))
def test_the_order_of_the_samples_does_not_matter(seed: int, order: list[int], pairs: list[tuple[int, int]]) -> None:
    similarity = excluding(matrix(seed), pairs)
    shuffled = similarity[order][:, order]
    for loss in (losses.info_nce, losses.invariance):
        torch.testing.assert_close(loss(shuffled), loss(similarity), rtol=1e-9, atol=1e-12)


@given(seeds, st.floats(-20, 20))
def test_a_constant_added_to_the_matrix_changes_nothing_and_has_no_gradient(seed: int, bias: float) -> None:
    similarity, b = matrix(seed), torch.tensor(bias, dtype=torch.float64, requires_grad=True)
    for loss in (losses.info_nce, losses.invariance):
        value = loss(similarity + b)
        torch.testing.assert_close(value, loss(similarity), rtol=1e-9, atol=1e-12)
        (gradient,) = torch.autograd.grad(value, b)
        assert gradient.abs() < 1e-12


def test_info_nce_of_equal_similarities_is_the_logarithm_of_their_number() -> None:
    assert losses.info_nce(torch.zeros(7, 7)).item() == pytest.approx(math.log(7))


def test_a_fixed_target_changes_the_gradient_and_not_the_value() -> None:
    similarity = matrix(0).requires_grad_()
    free, fixed = losses.invariance(similarity), losses.invariance(similarity, detach_target=True)
    assert torch.equal(free, fixed)
    (through_both,) = torch.autograd.grad(free, similarity)
    (through_p,) = torch.autograd.grad(fixed, similarity)
    assert (through_both - through_p).abs().max() > 1e-3
    # The gradient of KL(q ‖ p) with q fixed is (p - q)/N in each row.
    p, q = similarity.softmax(1), similarity.T.softmax(1)
    torch.testing.assert_close(through_p, (p - q) / len(similarity), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pairs", EXCLUSIONS[1:])
@pytest.mark.parametrize("loss", [losses.info_nce, losses.invariance])
def test_excluded_pairs_give_no_nan_and_get_no_gradient(loss, pairs: list[tuple[int, int]]) -> None:
    similarity = matrix(0).requires_grad_()
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        (gradient,) = torch.autograd.grad(loss(excluding(similarity, pairs)), similarity)
    assert gradient.isfinite().all()
    for i, j in pairs:
        assert gradient[i, j] == 0
        assert gradient[j, i] == 0


def test_what_stands_at_an_excluded_pair_does_not_matter() -> None:
    other = matrix(0)
    other[0, 1] = 100.0
    for loss in (losses.info_nce, losses.invariance):
        assert torch.equal(loss(excluding(other, [(0, 1)])), loss(excluding(matrix(0), [(0, 1)])))


@pytest.mark.parametrize("pairs", EXCLUSIONS)
@pytest.mark.parametrize("loss", [losses.info_nce, losses.invariance])
def test_gradients_are_those_of_the_formula(loss, pairs: list[tuple[int, int]]) -> None:
    similarity = matrix(0).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: loss(excluding(m, pairs)), similarity)


def test_unit_rows_are_the_rows_over_their_length() -> None:
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for row, scaled in zip(rows.tolist(), losses.unit(rows).tolist(), strict=True):
        assert scaled == pytest.approx([value / math.hypot(*row) for value in row], rel=1e-12)


@given(seeds, st.floats(1e-3, 1e3))
def test_unit_rows_have_length_1_and_forget_their_size(seed: int, size: float) -> None:
    rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scaled = losses.unit(size * rows)
    torch.testing.assert_close(scaled.norm(dim=1), torch.ones(4, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(scaled, losses.unit(rows), rtol=1e-9, atol=1e-12)


def test_a_row_of_zeros_stays_with_a_finite_gradient() -> None:
    rows = torch.zeros(2, 3, requires_grad=True)
    scaled = losses.unit(rows)
    scaled.sum().backward()
    assert scaled.abs().max() == 0
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


def test_unit_rows_of_large_numbers_in_half_precision_are_finite() -> None:
    rows = torch.full((1, 512), 300.0, dtype=torch.float16)
    # The square of their length, 46 million, is beyond float16.
    torch.testing.assert_close(losses.unit(rows), torch.full((1, 512), 512**-0.5))
