"""Whether a classifier is less sure of images that are of none of its classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.errors import DataError
from limbeck.evaluate.kinds import Count, Share


@dataclass(frozen=True)
class Detection:
    """How well a score tells the data from other images.

    auroc: area under the ROC curve in [0, 1], 0.5 for guessing; the data's own images are the positives. fpr95: share of the
    other images that are taken for the data's where 95 % of the data's are.
    """

    auroc: Share
    fpr95: Share


@dataclass(frozen=True)
class OutOfDistribution:
    """Detection of other images by two scores of the logits.

    msp: the largest probability (arXiv 1610.02136). energy: log Σ_c exp(logit_c), the negative energy (arXiv 2010.03759).
    inside, outside: numbers of images. Nothing was fitted, and no other image was seen before.
    """

    other: str
    inside: Count
    outside: Count
    msp: Detection
    energy: Detection


def out_of_distribution(logits: Tensor, other_logits: Tensor, *, other: str) -> OutOfDistribution:
    """Figures from the logits (N, C) of the data and (M, C) of other images, ``other`` in words.

    Raises:
        DataError: one of them has no images.
    """
    inside, outside = logits.double(), other_logits.double()
    return OutOfDistribution(
        other=other,
        inside=len(inside),
        outside=len(outside),
        msp=detection(confidence(inside), confidence(outside)),
        energy=detection(inside.logsumexp(dim=1), outside.logsumexp(dim=1)),
    )


def confidence(logits: Tensor) -> Tensor:
    """(N,) logarithm of the odds of the likeliest class, from (N, C): it orders as its probability, and does not round to 1."""
    top, place = logits.max(dim=1)
    return top - logits.scatter(1, place[:, None], -torch.inf).logsumexp(dim=1)


def detection(inside: Tensor, outside: Tensor) -> Detection:
    """From scores (N,) of the data's images and (M,) of others; a higher score should mean the data.

    Raises:
        DataError: one of them is empty.
    """
    from sklearn.metrics import roc_auc_score

    if len(inside) == 0 or len(outside) == 0:
        raise DataError("AUROC and FPR95 need images of the data and others; one of the two has none.")
    truth = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))])
    values = torch.cat([inside, outside])
    return Detection(float(roc_auc_score(truth.numpy(), values.numpy())), fpr_at(inside, outside))


def fpr_at(inside: Tensor, outside: Tensor, *, recall: float = 0.95) -> float:
    """Share of ``outside`` that scores at least as high as the threshold which ``recall`` of ``inside`` reaches."""
    # The highest threshold that at least so many reach; the product may be a rounding above a whole number.
    reaching = max(1, math.ceil(len(inside) * recall - 1e-9))
    threshold = inside.sort(descending=True).values[reaching - 1]
    return (outside >= threshold).double().mean().item()
