"""How far a student follows its teacher, beyond being right as often."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck import losses
from limbeck.errors import SignalError
from limbeck.evaluate.collect import Gathered
from limbeck.evaluate.kinds import Count, Matrix, Number, Share
from limbeck.evaluate.similarity import Centred, Consistency, aligned, consistency, linear_ckas

_FIRST_BATCH = 256
_MOST_CLASSES = 200
_DECIMALS = 3


@dataclass(frozen=True)
class MatrixDifference:
    """Mean and maximum of the absolute differences of two matrices' entries, and what was done in words.

    matrix: (C, C) the absolute differences, rounded to 3 decimals, to be drawn; entries that do not count in mean and
    maximum are 0 in it. None for more than 200 classes.
    """

    procedure: str
    mean: Number
    maximum: Number
    matrix: Matrix | None = None


@dataclass(frozen=True)
class LayerCka:
    """Linear CKA of a student's stage and a teacher's, each map averaged over its positions first; paths of the layers."""

    student: str
    teacher: str
    cka: Number | None
    debiased: Number | None


@dataclass(frozen=True)
class Fidelity:
    """Figures of a student against its teacher over ``count`` samples.

    agreement: share of equal predictions. agreement_where_wrong: the same among the samples that the teacher gets wrong; None
    where there is none. kl, reverse_kl: means of KL(teacher ‖ student) and KL(student ‖ teacher) in nats. retention: accuracy
    of the student over the teacher's; None for a teacher that is never right. kept, lost, gained, both_wrong: numbers of
    samples that both get right, the teacher alone, the student alone, and none.

    correlation_paper_2024, correlation_paper_2025, correlation: differences of correlations between classes, each by its own
    procedure. cka_embedding: linear CKA of the embeddings, cka_embedding_debiased without its bias. cka_stages: of each pair
    of stages. consistency_logits, consistency_embedding: of the similarity matrix that ICD's invariance term makes symmetric,
    between logits centred over the classes, and between embeddings after a rotation fitted on ``aligned_on``.
    """

    count: Count
    agreement: Share
    agreement_where_wrong: Share | None
    kl: Number
    reverse_kl: Number
    retention: Number | None
    kept: Count
    lost: Count
    gained: Count
    both_wrong: Count
    correlation_paper_2024: MatrixDifference
    correlation_paper_2025: MatrixDifference
    correlation: MatrixDifference
    cka_embedding: Number | None
    cka_embedding_debiased: Number | None
    cka_stages: tuple[LayerCka, ...]
    consistency_logits: Consistency | None
    consistency_embedding: Consistency | None
    aligned_on: str | None


def fidelity(
    student: Gathered,
    teacher: Gathered,
    *,
    fit: tuple[Gathered, Gathered] | None = None,
    fit_name: str = "other images",
    samples: str = "images",
) -> Fidelity:
    """Figures of two networks that were gathered on the same samples, student first.

    fit: both on other samples, to fit the rotation between embeddings on, ``fit_name`` in words; None fits it on a half of
    the samples and measures the other half. samples: what they are, in the plural.

    Raises:
        SignalError: their logits are not of the same classes.
    """
    ours, theirs = student.logits, teacher.logits
    if ours.shape != theirs.shape:
        raise SignalError(f"student and teacher must have logits of the same shape, got {_shapes(ours, theirs)}.")
    mine, its = ours.argmax(dim=1), theirs.argmax(dim=1)
    right, teacher_right = mine == student.labels, its == student.labels
    same = mine == its
    wrong = ~teacher_right
    between, aligned_on = _consistency_of_embeddings(student, teacher, fit, (fit_name, samples))
    of_embeddings = _cka(student.embedding, teacher.embedding)
    return Fidelity(
        count=len(student),
        agreement=_share(same),
        agreement_where_wrong=_share(same[wrong]) if wrong.any() else None,
        kl=losses.kl_divergence(ours, theirs).mean().item(),
        reverse_kl=losses.kl_divergence(theirs, ours).mean().item(),
        retention=_share(right) / _share(teacher_right) if teacher_right.any() else None,
        kept=int((right & teacher_right).sum()),
        lost=int((~right & teacher_right).sum()),
        gained=int((right & wrong).sum()),
        both_wrong=int((~right & wrong).sum()),
        correlation_paper_2024=correlation_paper_2024(ours, theirs),
        correlation_paper_2025=correlation_paper_2025(ours, theirs, student.labels),
        correlation=correlation_difference(ours, theirs),
        cka_embedding=of_embeddings[0],
        cka_embedding_debiased=of_embeddings[1],
        cka_stages=_cka_of_stages(student, teacher),
        consistency_logits=consistency(_centred(ours), _centred(theirs)),
        consistency_embedding=between,
        aligned_on=aligned_on,
    )


def correlation_paper_2024(student: Tensor, teacher: Tensor) -> MatrixDifference:
    """The procedure of ICD's first code: the first 256 samples only, logits (N, C) standardised for each class.

    C = ZᵀZ / 256 with the unbiased standard deviation in Z, so its diagonal is 255/256.
    """
    ours, theirs = (_class_products(value[:_FIRST_BATCH].double()) for value in (student, teacher))
    count = min(_FIRST_BATCH, len(student))
    counted = torch.ones(ours.shape, dtype=torch.bool)
    return _difference(ours - theirs, counted, f"authors' 2024 code: first {count} samples, all entries of ZᵀZ/N")


def _class_products(logits: Tensor) -> Tensor:
    centred = logits - logits.mean(dim=0)
    return _standardised(centred).T @ _standardised(centred) / len(logits)


def _standardised(centred: Tensor) -> Tensor:
    deviation = (centred.square().sum(dim=0) / max(1, len(centred) - 1)).sqrt()
    # A class whose logit never changes has no correlation with any.
    return centred / deviation.where(deviation > 0, torch.ones_like(deviation))


def correlation_paper_2025(student: Tensor, teacher: Tensor, labels: Tensor) -> MatrixDifference:
    """The procedure of the authors' later code: what logits look like for each true class, no correlation in the strict sense.

    Logits (N, C) are standardised for each sample over the classes and averaged over the samples of each class; the diagonal
    of the difference counts as 0. Classes without samples are left out.
    """
    difference = class_profiles(student, labels) - class_profiles(teacher, labels)
    counted = torch.zeros(difference.shape, dtype=torch.bool)
    counted[labels] = True
    procedure = "authors' 2025 code: mean standardised logits of each class, diagonal 0"
    return _difference(difference.fill_diagonal_(0.0), counted, procedure)


def class_profiles(logits: Tensor, labels: Tensor) -> Tensor:
    """(C, C) float64: row k is the mean over the samples of class k of their standardised logits; zeros where it has none."""
    classes = logits.shape[1]
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    sums = torch.zeros(classes, classes, dtype=torch.float64)
    return sums.index_add_(0, labels, losses.standardise(logits.double())) / counts[:, None]


def correlation_difference(student: Tensor, teacher: Tensor) -> MatrixDifference:
    """Pearson correlations between the logits (N, C) of each two classes over all samples; their own diagonals left out."""
    ours, theirs = class_correlations(student), class_correlations(teacher)
    others = ~torch.eye(len(ours), dtype=torch.bool)
    return _difference(ours - theirs, others, f"Pearson over all {len(student)} samples, each two different classes")


def class_correlations(logits: Tensor) -> Tensor:
    """(C, C) float64 Pearson correlations between classes, from logits (N, C)."""
    products = _class_products(logits.double())
    return products * len(logits) / max(1, len(logits) - 1)


def _difference(values: Tensor, counted: Tensor, procedure: str) -> MatrixDifference:
    """Of a matrix (C, C) of differences, the entries where ``counted`` (C, C) is true."""
    found = values.abs()
    matrix = found.where(counted, 0.0).numpy().round(_DECIMALS).tolist() if len(found) <= _MOST_CLASSES else None
    return MatrixDifference(
        procedure,
        found[counted].mean().item(),
        found[counted].max().item(),
        None if matrix is None else tuple(map(tuple, matrix)),
    )


def _cka(one: Tensor | None, other: Tensor | None) -> tuple[float | None, float | None]:
    return (None, None) if one is None or other is None else linear_ckas(Centred.of(one), Centred.of(other))


def _cka_of_stages(student: Gathered, teacher: Gathered) -> tuple[LayerCka, ...]:
    ours, theirs = (
        {path: Centred.of(maps.flatten(1)) for path, maps in each.signals.features.items()}
        for each in (student, teacher)
    )
    return tuple(
        LayerCka(path, other, *linear_ckas(mine, its)) for path, mine in ours.items() for other, its in theirs.items()
    )


def _consistency_of_embeddings(
    student: Gathered, teacher: Gathered, fit: tuple[Gathered, Gathered] | None, words: tuple[str, str]
) -> tuple[Consistency | None, str | None]:
    fit_name, samples = words
    ours, theirs = student.embedding, teacher.embedding
    if ours is None or theirs is None or len(ours) < 4:
        return None, None
    if fit is not None and fit[0].embedding is not None and fit[1].embedding is not None:
        pairs = (fit[0].embedding, fit[1].embedding)
        return consistency(*aligned(ours, theirs, pairs)), f"{len(pairs[0])} {samples} of {fit_name}"
    order = torch.randperm(len(ours), generator=torch.Generator().manual_seed(1))
    first, second = order.tensor_split(2)
    found = consistency(*aligned(ours[second], theirs[second], (ours[first], theirs[first])))
    return found, f"{len(first)} of these {samples}; the other {len(second)} are measured"


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(dim=1, keepdim=True)


def _share(values: Tensor) -> float:
    return values.double().mean().item()


def _shapes(one: Tensor, other: Tensor) -> str:
    return f"{tuple(one.shape)} and {tuple(other.shape)}"
