"""ECE, Brier score, reliability and temperature against loops, scikit-learn and a fine grid."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from torch import Tensor

from limbeck.evaluate.calibration import calibration, ece_equal_mass, fit_temperature, scaled_calibration


def drawn(count: int, classes: int, seed: int, sharpness: float = 2.0) -> tuple[Tensor, Tensor]:
    """Logits, and labels drawn from their softmax: a calibrated classifier when it is taken as it is."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(count, classes, generator=generator)
    return logits, torch.multinomial(logits.softmax(dim=1), 1, generator=generator).flatten()


def loop_ece(logits: Tensor, labels: Tensor, bins: int) -> tuple[float, float]:
    probabilities = logits.double().softmax(dim=1).numpy()
    total, largest = 0.0, 0.0
    edges = np.linspace(0, 1, bins + 1)
    for low, high in pairwise(edges):
        rows = [n for n, row in enumerate(probabilities) if low < row.max() <= high]
        if rows:
            sure = np.mean([probabilities[n].max() for n in rows])
            told = np.mean([probabilities[n].argmax() == labels[n].item() for n in rows])
            total += len(rows) / len(labels) * abs(sure - told)
            largest = max(largest, abs(sure - told))
    return total, largest


@given(st.integers(1, 80), st.integers(2, 9), st.integers(0, 1000), st.integers(1, 20))
def test_figures_are_those_of_loops(count: int, classes: int, seed: int, bins: int) -> None:
    logits, labels = drawn(count, classes, seed, 3.0)
    found = calibration(logits, labels, bins=bins)
    ece, largest = loop_ece(logits, labels, bins)
    assert found.ece == pytest.approx(ece, abs=1e-9)
    assert found.mce == pytest.approx(largest, abs=1e-9)
    probabilities = logits.double().softmax(dim=1).numpy()
    truth = np.eye(classes)[labels.numpy()]
    assert found.brier == pytest.approx(np.mean(np.sum((probabilities - truth) ** 2, axis=1)))
    assert found.nll == pytest.approx(log_loss(labels, probabilities, labels=range(classes)), rel=1e-5)
    assert sum(each.count for each in found.reliability) == count
    assert 0 <= found.ece <= found.mce <= 1
    assert 0 <= found.brier <= 2


@pytest.mark.slow  # torchmetrics is imported
def test_ece_is_that_of_torchmetrics() -> None:
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    logits, labels = drawn(2000, 10, 3)
    theirs = metrics.multiclass_calibration_error(logits.softmax(dim=1), labels, num_classes=10, n_bins=15)
    assert calibration(logits, labels).ece == pytest.approx(theirs.item(), abs=1e-6)


def test_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    found = calibration(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]), bins=2)
    assert [each.count for each in found.reliability] == [4, 0]
    assert found.reliability[0].accuracy == 0.75
    assert found.reliability[1].accuracy is None
    assert found.ece == pytest.approx(0.25)


def test_bins_of_equal_mass_hold_equally_many() -> None:
    confidence = torch.tensor([0.9, 0.1, 0.8, 0.2])
    right = torch.tensor([1.0, 0.0, 0.0, 1.0])
    # {0.1, 0.2} and {0.8, 0.9}: both half right.
    assert ece_equal_mass(confidence, right, 2) == pytest.approx((0.5 - 0.15 + 0.85 - 0.5) / 2)
    assert ece_equal_mass(confidence, right, 50) == pytest.approx((0.1 + 0.1 + 0.8 + 0.8) / 4)


def test_a_calibrated_classifier_has_next_to_no_error_and_a_sharpened_one_more() -> None:
    logits, labels = drawn(20_000, 10, 0)
    assert calibration(logits, labels).ece < 0.015
    assert calibration(4 * logits, labels).ece > 0.1


@pytest.mark.parametrize("factor", [0.3, 1.0, 5.0])
def test_the_temperature_undoes_a_sharpening_and_minimises_the_likelihood(factor: float) -> None:
    logits, labels = drawn(20_000, 10, 1)
    found = fit_temperature(factor * logits, labels)
    assert found == pytest.approx(factor, rel=0.05)
    grid = found * torch.linspace(0.9, 1.1, 21)
    losses = [torch.nn.functional.cross_entropy(factor * logits / each, labels).item() for each in grid]
    assert np.argmin(losses) == 10


def test_scaling_leaves_accuracy_and_is_left_out_without_a_split() -> None:
    logits, labels = drawn(5000, 10, 2)
    found = scaled_calibration(5 * logits[:2500], labels[:2500], (5 * logits[2500:], labels[2500:]))
    assert found.scaled is not None
    assert found.fitted_on == 2500
    assert found.scaled.ece < found.raw.ece / 3
    assert found.scaled.nll < found.raw.nll
    without = scaled_calibration(logits, labels, None)
    assert (without.temperature, without.scaled, without.fitted_on) == (None, None, None)


def test_auroc_of_errors_needs_right_and_wrong_ones() -> None:
    logits = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    assert calibration(logits, torch.tensor([0, 0, 0])).error_auroc is None
    assert calibration(logits, torch.tensor([0, 0, 1])).error_auroc == 1.0
    assert calibration(logits, torch.tensor([1, 0, 0])).error_auroc == 0.0


def test_a_split_of_one_class_has_its_figures() -> None:
    logits, _ = drawn(50, 4, 0)
    labels = torch.full((50,), 2)
    found = scaled_calibration(logits, labels, (logits, labels))
    assert found.scaled is not None
    assert found.raw.error_auroc is not None  # right and wrong predictions there are
    assert found.scaled.nll <= found.raw.nll
    always = torch.tensor([[0.0, 0.0, 30.0, 0.0]]).expand(50, 4)
    sure = scaled_calibration(always, labels, (always, labels))
    assert (sure.raw.error_auroc, sure.raw.ece) == (None, pytest.approx(0, abs=1e-9))
    assert sure.temperature is not None
    assert 0.05 <= sure.temperature <= 20  # no temperature is better than another
