"""Cross-entropy as an objective: weights, masks, and no teacher."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from limbeck.errors import SettingError
from limbeck.objectives import CE
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch, sample_signals


def test_value_is_the_mean_over_samples_and_needs_no_teacher() -> None:
    student, batch = sample_signals(0, dtype=torch.float64), sample_batch()
    expected = 0.0
    for row, label in zip(student.logits.tolist(), batch.labels.tolist(), strict=True):
        expected -= row[label] - math.log(sum(math.exp(value) for value in row))
    assert not CE().needs_teacher
    CE().check(student, Signals(), batch)
    assert CE()(student, Signals(), batch)["ce"].item() == pytest.approx(expected / len(batch), rel=1e-9)


def test_equal_logits_cost_the_logarithm_of_the_number_of_classes_with_any_smoothing() -> None:
    student, batch = Signals(logits=torch.zeros(8, 5)), sample_batch()
    for smoothing in (0.0, 0.3):
        assert CE(label_smoothing=smoothing)(student, Signals(), batch)["ce"].item() == pytest.approx(math.log(5))


def test_smoothing_mixes_the_label_with_all_classes() -> None:
    student, batch = sample_signals(0, dtype=torch.float64), sample_batch()
    uniform = -student.logits.log_softmax(-1).mean()
    expected = 0.9 * CE()(student, Signals(), batch)["ce"] + 0.1 * uniform
    smoothed = CE(label_smoothing=0.1)(student, Signals(), batch)["ce"]
    torch.testing.assert_close(smoothed, expected, rtol=1e-9, atol=0)


def test_a_weight_of_zero_leaves_a_sample_out_and_two_counts_it_twice() -> None:
    student, batch = sample_signals(0), sample_batch()
    weighted = replace(batch, weight=torch.tensor([2.0, 0.0] * 4))
    kept = slice(0, None, 2)
    expected = CE()(student.map(lambda v: v[kept]), Signals(), batch[kept])["ce"]
    torch.testing.assert_close(CE()(student, Signals(), weighted)["ce"], expected)


def test_only_positions_inside_the_mask_count() -> None:
    student = Signals(logits=torch.randn(2, 3, 5), mask=torch.tensor([[True, True, False], [True, False, False]]))
    batch = Batch(torch.zeros(2, 1), torch.tensor([[0, 1, 2], [3, 4, 0]]))
    rows = Signals(logits=student.logits[student.mask])
    expected = CE()(rows, Signals(), Batch(torch.zeros(3, 1), batch.labels[student.mask]))["ce"]
    torch.testing.assert_close(CE()(student, Signals(), batch)["ce"], expected)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, "0.1", True])
def test_smoothing_out_of_bounds_is_refused(smoothing: object) -> None:
    with pytest.raises(SettingError, match="label_smoothing must be"):
        CE(label_smoothing=smoothing)  # type: ignore[arg-type]
