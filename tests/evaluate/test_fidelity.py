"""Figures of a student against its teacher, each against its definition in loops."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck.errors import SignalError
from limbeck.evaluate.collect import Gathered
from limbeck.evaluate.fidelity import (
    class_correlations,
    correlation_difference,
    correlation_paper_2024,
    correlation_paper_2025,
    fidelity,
)
from limbeck.signals import Signals


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gathered(logits: Tensor, labels: Tensor, width: int = 8, seed: int = 0) -> Gathered:
    features = {"one": normal(len(labels), 3, seed=seed)[..., None, None]}
    return Gathered(Signals(logits=logits, embedding=normal(len(labels), width, seed=seed), features=features), labels)


LABELS = torch.arange(600) % 5


def test_correlations_of_classes_are_those_of_numpy() -> None:
    ours, theirs = normal(600, 5), normal(600, 5, seed=1)
    expected = np.corrcoef(ours.double().numpy(), rowvar=False)
    assert np.allclose(class_correlations(ours).numpy(), expected)
    difference = np.abs(expected - np.corrcoef(theirs.double().numpy(), rowvar=False))[~np.eye(5, dtype=bool)]
    found = correlation_difference(ours, theirs)
    assert found.mean == pytest.approx(difference.mean())
    assert found.maximum == pytest.approx(difference.max())
    assert found.matrix is not None
    assert np.allclose(np.array(found.matrix)[~np.eye(5, dtype=bool)], difference, atol=5.1e-4)
    assert not np.diagonal(found.matrix).any()


def test_the_authors_first_procedure_in_numpy() -> None:
    def matrix(logits: Tensor) -> np.ndarray:
        rows = logits[:256].numpy()
        z = (rows - rows.mean(axis=0)) / rows.std(axis=0, ddof=1)
        return z.T @ z / 256

    ours, theirs = normal(600, 5).double(), normal(600, 5, seed=1).double()
    difference = np.abs(matrix(ours) - matrix(theirs))
    found = correlation_paper_2024(ours, theirs)
    assert found.mean == pytest.approx(difference.mean())
    assert found.maximum == pytest.approx(difference.max())
    assert found.mean == pytest.approx(correlation_paper_2024(ours[:256], theirs[:256]).mean)
    assert "first 256" in found.procedure
    assert np.allclose(found.matrix, difference, atol=5.1e-4)
    assert all(value == round(value, 3) for row in found.matrix or () for value in row)


def test_the_authors_later_procedure_in_numpy() -> None:
    def matrix(logits: Tensor) -> np.ndarray:
        rows = logits.numpy()
        z = (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, ddof=1, keepdims=True)
        return np.stack([z[LABELS.numpy() == label].mean(axis=0) for label in range(5)])

    ours, theirs = normal(600, 5).double(), normal(600, 5, seed=1).double()
    difference = np.abs(matrix(ours) - matrix(theirs))
    np.fill_diagonal(difference, 0)
    found = correlation_paper_2025(ours, theirs, LABELS)
    assert found.mean == pytest.approx(difference.mean(), rel=1e-5)
    assert found.maximum == pytest.approx(difference.max(), rel=1e-5)
    assert np.allclose(found.matrix, difference, atol=5.1e-4)


def test_a_class_without_samples_is_left_out() -> None:
    labels = torch.zeros(20, dtype=torch.int64)
    ours, theirs = normal(20, 3), normal(20, 3, seed=1)
    found = correlation_paper_2025(ours, theirs, labels)
    assert found.mean > 0.9 * found.maximum / 3  # one row alone; rows of zeros would divide it by three more
    assert np.isfinite(found.mean)
    assert found.matrix is not None
    assert found.matrix[0][0] == 0
    assert np.mean(found.matrix[0]) == pytest.approx(found.mean, abs=5.1e-4)
    assert found.matrix[1:] == ((0.0, 0.0, 0.0),) * 2


@pytest.mark.parametrize("classes", [200, 201])
def test_matrices_of_more_than_200_classes_are_not_kept(classes: int) -> None:
    labels = torch.arange(300) % classes
    ours, theirs = gathered(normal(300, classes), labels), gathered(normal(300, classes, seed=1), labels)
    found = fidelity(ours, theirs)
    for difference in (found.correlation, found.correlation_paper_2024, found.correlation_paper_2025):
        assert difference.mean > 0
        assert np.shape(difference.matrix) == ((200, 200) if classes == 200 else ())


def test_a_network_against_itself_differs_in_nothing() -> None:
    each = gathered(normal(600, 5), LABELS)
    found = fidelity(each, each)
    assert (found.agreement, found.retention, found.lost, found.gained) == (1.0, 1.0, 0, 0)
    assert found.agreement_where_wrong == 1.0
    assert found.kl == pytest.approx(0, abs=1e-6)
    for difference in (found.correlation, found.correlation_paper_2024, found.correlation_paper_2025):
        assert difference.maximum == 0
    assert found.cka_embedding == pytest.approx(1.0)
    assert [each.cka for each in found.cka_stages] == [pytest.approx(1.0)]
    assert found.consistency_embedding is not None
    assert found.consistency_embedding.asymmetry == pytest.approx(0, abs=1e-6)
    assert found.aligned_on == "300 of these images; the other 300 are measured"


def test_counts_and_divergences_are_those_of_loops() -> None:
    student, teacher = gathered(normal(600, 5), LABELS), gathered(normal(600, 5, seed=1), LABELS, width=12, seed=3)
    found = fidelity(student, teacher, fit=(student, teacher), fit_name="themselves")
    mine, its = student.logits.argmax(dim=1).tolist(), teacher.logits.argmax(dim=1).tolist()
    told = [(one == label, other == label) for one, other, label in zip(mine, its, LABELS.tolist(), strict=True)]
    counts = [told.count(pair) for pair in ((True, True), (False, True), (True, False), (False, False))]
    assert [found.kept, found.lost, found.gained, found.both_wrong] == counts
    assert found.retention == pytest.approx((counts[0] + counts[2]) / (counts[0] + counts[1]))
    p, q = teacher.logits.double().softmax(dim=1).numpy(), student.logits.double().softmax(dim=1).numpy()
    assert found.kl == pytest.approx(np.mean(np.sum(p * np.log(p / q), axis=1)), rel=1e-4)
    assert found.reverse_kl == pytest.approx(np.mean(np.sum(q * np.log(q / p), axis=1)), rel=1e-4)
    assert found.aligned_on == "600 images of themselves"
    wrong = [one == other for one, other, label in zip(mine, its, LABELS.tolist(), strict=True) if other != label]
    assert found.agreement_where_wrong == pytest.approx(np.mean(wrong))


@pytest.mark.parametrize("count", [1, 2, 5, 40])
@pytest.mark.parametrize("constant", [False, True])
def test_a_split_of_one_class_has_finite_figures(count: int, constant: bool) -> None:
    labels = torch.full((count,), 2)
    logits = [torch.zeros(count, 4) if constant else normal(count, 4, seed=seed) for seed in (0, 1)]
    student, teacher = (gathered(each, labels, seed=seed) for seed, each in enumerate(logits))
    for found in (fidelity(student, teacher), fidelity(student, teacher, fit=(teacher, student))):
        assert found.kept + found.lost + found.gained + found.both_wrong == count
        assert all(np.isfinite(value) for value in numbers(asdict(found)))
        assert found.retention is None or found.kept + found.lost > 0


def numbers(value: object) -> list[float]:
    """All numbers in lists and mappings."""
    if isinstance(value, dict | list | tuple):
        return [number for each in (value.values() if isinstance(value, dict) else value) for number in numbers(each)]
    return [value] if isinstance(value, float) else []


def test_without_embeddings_the_rest_is_told() -> None:
    bare = Gathered(Signals(logits=normal(600, 5)), LABELS)
    found = fidelity(bare, bare)
    assert found.agreement == 1.0
    assert (found.cka_embedding, found.consistency_embedding, found.aligned_on, found.cka_stages) == (
        None,
        None,
        None,
        (),
    )


def test_logits_of_other_classes_are_refused() -> None:
    with pytest.raises(SignalError, match="same shape"):
        fidelity(gathered(normal(600, 5), LABELS), gathered(normal(600, 6), LABELS))
