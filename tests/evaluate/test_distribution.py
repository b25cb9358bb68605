"""AUROC and the false positive rate against every pair and every threshold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import DataError
from limbeck.evaluate.distribution import detection, fpr_at, out_of_distribution

SCORES = st.lists(st.integers(-5, 5), min_size=1, max_size=40)


@given(SCORES, SCORES)
def test_auroc_and_fpr_are_those_of_loops(inside: list[int], outside: list[int]) -> None:
    found = detection(torch.tensor(inside).double(), torch.tensor(outside).double())
    wins = sum((one > other) + 0.5 * (one == other) for one in inside for other in outside)
    assert found.auroc == pytest.approx(wins / len(inside) / len(outside))
    reached = [t for t in sorted({*inside}) if sum(one >= t for one in inside) >= 0.95 * len(inside)]
    assert found.fpr95 == pytest.approx(sum(other >= max(reached) for other in outside) / len(outside))


def test_the_threshold_is_not_moved_by_rounding() -> None:
    # 0.95 · 20 is 19 and not a rounding above it: one may be left out.
    inside = torch.arange(20).double()
    assert fpr_at(inside, torch.tensor([0.5, 1.0])) == 0.5


def test_sure_logits_are_told_from_flat_ones_by_both_scores() -> None:
    sure = 20 * torch.eye(10)
    found = out_of_distribution(sure, torch.zeros(30, 10), other="nothing")
    assert (found.msp.auroc, found.energy.auroc, found.msp.fpr95) == (1.0, 1.0, 0.0)
    same = out_of_distribution(sure, sure, other="itself")
    assert same.msp.auroc == 0.5
    assert same.energy.fpr95 == 1.0


def test_probabilities_that_round_to_one_are_still_ordered() -> None:
    inside = torch.tensor([[60.0, 0.0], [59.0, 0.0]])
    outside = torch.tensor([[50.0, 0.0], [45.0, 0.0]])
    assert out_of_distribution(inside, outside, other="").msp.auroc == 1.0


def test_a_network_that_says_the_same_of_every_image_guesses() -> None:
    found = out_of_distribution(torch.ones(5, 3), torch.ones(1, 3), other="more of it")
    assert (found.msp.auroc, found.energy.auroc, found.msp.fpr95, found.energy.fpr95) == (0.5, 0.5, 1.0, 1.0)


def test_no_image_is_said() -> None:
    with pytest.raises(DataError, match="one of the two has none"):
        detection(torch.zeros(0), torch.zeros(2))
