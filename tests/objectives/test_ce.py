"""Cross-entropy as an objective: weights, masks, and no teacher."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import CE, parse_objective
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


def test_the_first_view_alone_is_labelled_where_that_is_asked_for() -> None:
    student, batch = sample_signals(0), replace(sample_batch(), weight=torch.linspace(0, 2, 8))
    first = CE()(student.map(lambda v: v[:4]), Signals(), batch[:4])["ce"]
    chosen = CE(views="first")
    assert torch.equal(chosen(student, Signals(), replace(batch, copies=2))["ce"], first)
    assert torch.equal(chosen(student, Signals(), batch)["ce"], CE()(student, Signals(), batch)["ce"])
    both = CE()(student, Signals(), replace(batch, copies=2))["ce"]
    assert torch.equal(both, CE()(student, Signals(), batch)["ce"])


def test_the_first_view_of_tokens_has_its_own_mask() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, True], [False, True, True]])
    student = Signals(logits=torch.randn(4, 3, 5), mask=mask)
    batch = Batch(torch.zeros(4, 1), torch.arange(12).view(4, 3) % 5, copies=2)
    expected = CE()(Signals(logits=student.logits[:2], mask=mask[:2]), Signals(), batch[:2])["ce"]
    assert torch.equal(CE(views="first")(student, Signals(), batch)["ce"], expected)


@pytest.mark.parametrize(
    ("expression", "mixed", "view"),
    [
        ("ce", (True,), 1),
        ("ce", (False, True), 2),
        ("ce(views='first')", (True, False), 1),
        ("kd() + lskd(kd() + ce())", (False, True), 2),
        ("ckd", (False, True), 2),
        ("dkd()", (True,), 1),
    ],
)
def test_labels_of_mixed_images_are_refused(expression: str, mixed: tuple[bool, ...], view: int) -> None:
    signals, batch = sample_signals(0), replace(sample_batch(), copies=len(mixed), mixed=mixed)
    with pytest.raises(SignalError, match=f"reads the labels, and view {view} mixes each sample with another"):
        parse_objective(expression).check(signals, signals, batch)


@pytest.mark.parametrize(
    ("expression", "mixed"),
    [
        ("ce(views='first') + kd()", (False, True)),
        ("lskd(kd() + ce(views='first'))", (False, True)),
        ("r2kd", (False, True)),
        ("ckd(classification=0)", (True,)),
        ("ce + kd()", (False, False)),
    ],
)
def test_mixtures_whose_labels_are_not_read_are_taken(expression: str, mixed: tuple[bool, ...]) -> None:
    signals, batch = sample_signals(0), replace(sample_batch(), copies=len(mixed), mixed=mixed)
    parse_objective(expression).check(signals, signals, batch)


def test_views_that_do_not_exist_are_refused() -> None:
    with pytest.raises(SettingError, match="views: unknown value 'frist'; did you mean 'first'"):
        CE(views="frist")


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, "0.1", True])
def test_smoothing_out_of_bounds_is_refused(smoothing: object) -> None:
    with pytest.raises(SettingError, match="label_smoothing must be"):
        CE(label_smoothing=smoothing)  # type: ignore[arg-type]


def mixture(seed: int = 0) -> Batch:
    """Four samples as they are, and mixed with others."""
    batch = sample_batch(seed)
    share = torch.tensor([1, 1, 1, 1, 0.9, 0.25, 0.5, 1])
    return replace(batch, copies=2, mixed=(False, True), other_labels=batch.labels.roll(1), share=share)


@pytest.mark.parametrize(("views", "rows"), [("all", range(8)), ("first", range(4)), ("mixed", range(4, 8))])
def test_the_label_of_a_mixture_is_the_mixture_of_labels(views: str, rows: range) -> None:
    student, batch = sample_signals(0, dtype=torch.float64), mixture()
    assert student.logits is not None
    assert batch.share is not None
    assert batch.other_labels is not None
    expected = 0.0
    for i in rows:
        log_p = student.logits[i].log_softmax(0)
        own, part = log_p[batch.labels[i]].item(), batch.share[i].item()
        expected -= (part * own + (1 - part) * log_p[batch.other_labels[i]].item()) / len(rows)
    objective = CE(views=views)
    objective.check(student, Signals(), batch)
    assert objective(student, Signals(), batch)["ce"].item() == pytest.approx(expected, rel=1e-6)


def test_views_that_mix_are_asked_for_where_there_is_none() -> None:
    with pytest.raises(SignalError, match="reads views that mix, and there is none"):
        CE(views="mixed").check(sample_signals(0), Signals(), sample_batch())
