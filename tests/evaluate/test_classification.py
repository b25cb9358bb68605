"""Accuracy by class and confusions against scikit-learn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from limbeck.errors import SignalError
from limbeck.evaluate.classification import classification
from limbeck.evaluate.collect import Gathered
from limbeck.signals import Signals


def gathered(count: int, classes: int, seed: int, present: int | None = None) -> Gathered:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator)
    return Gathered(Signals(logits=logits), torch.randint(0, present or classes, (count,), generator=generator))


@given(st.integers(8, 60), st.integers(6, 12), st.integers(0, 1000))
def test_figures_are_those_of_scikit_learn(count: int, classes: int, seed: int) -> None:
    each = gathered(count, classes, seed)
    names = [f"class {number}" for number in range(classes)]
    found = classification(each, names)
    predictions = each.logits.argmax(dim=1)
    matrix = confusion_matrix(each.labels, predictions, labels=range(classes))
    assert [list(row) for row in found.confusion] == matrix.tolist()
    top5 = top_k_accuracy_score(each.labels, each.logits, k=5, labels=range(classes))
    assert found.top5 == pytest.approx(top5)
    assert found.top1 == pytest.approx((predictions == each.labels).float().mean().item())
    present = [number for number in range(classes) if (each.labels == number).any()]
    kept = [matrix[n, n] / matrix[n].sum() for n in present]
    assert found.balanced == pytest.approx(sum(kept) / len(kept))
    if set(predictions.tolist()) <= set(present):
        assert found.balanced == pytest.approx(balanced_accuracy_score(each.labels, predictions))


def test_classes_without_images_and_the_most_frequent_mistakes() -> None:
    logits = torch.eye(4)[torch.tensor([0, 1, 1, 1, 2, 2])]
    labels = torch.tensor([0, 0, 0, 1, 2, 0])
    found = classification(Gathered(Signals(logits=logits), labels), "abcd")
    assert [each.accuracy for each in found.classes] == [0.25, 1.0, 1.0, None]
    assert found.balanced == pytest.approx(0.75)
    assert [(each.label, each.prediction, each.count) for each in found.confused] == [("a", "b", 2), ("a", "c", 1)]
    assert found.top5 == 1.0


@pytest.mark.parametrize("classes", [50, 51, 120])
def test_of_more_than_50_classes_the_counts_that_are_not_0_are_written(classes: int) -> None:
    each = gathered(400, classes, 1)
    found = classification(each, [f"class {number}" for number in range(classes)])
    matrix = confusion_matrix(each.labels, each.logits.argmax(dim=1), labels=range(classes))
    if classes == 50:
        assert [list(row) for row in found.confusion] == matrix.tolist()
        return
    assert all(count > 0 for _, _, count in found.confusion)
    assert {(label, taken): count for label, taken, count in found.confusion} == {
        (label, taken): matrix[label, taken] for label, taken in zip(*matrix.nonzero(), strict=True)
    }
    assert len(found.confused) == 20
    assert len(found.classes) == classes


def test_a_split_of_one_class_is_told_like_any_other() -> None:
    logits = torch.eye(3)[torch.tensor([1, 1, 2, 1])]
    found = classification(Gathered(Signals(logits=logits), torch.full((4,), 1)), "abc")
    assert (found.top1, found.balanced, found.top5) == (0.75, 0.75, 1.0)
    assert [(each.count, each.accuracy) for each in found.classes] == [(0, None), (4, 0.75), (0, None)]
    assert found.confusion == ((0, 0, 0), (0, 3, 1), (0, 0, 0))


def test_other_classes_are_refused() -> None:
    with pytest.raises(SignalError, match="7 logits for 3 classes"):
        classification(gathered(5, 7, 0), "abc")
