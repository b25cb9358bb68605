"""Whether a classifier is as sure as it is right."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck import losses
from limbeck.evaluate.kinds import Count, Number, Positive, Share

BINS = 15
_TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class Bin:
    """The predictions whose confidence lies in (low, high]: their number, and the means of confidence and of being right."""

    low: Share
    high: Share
    count: Count
    confidence: Share | None
    accuracy: Share | None


@dataclass(frozen=True)
class Calibration:
    """Figures of a classifier's probabilities.

    nll: mean negative log likelihood in nats. brier: mean over the samples of Σ_c (p_c − y_c)², in [0, 2]. ece: expected
    calibration error of the largest probability over ``bins`` bins of equal width, in [0, 1]; mce: the largest gap of those
    bins. ece_equal_mass: the same over bins of equally many samples. confidence: mean of the largest probability.
    error_auroc: how well confidence tells right from wrong predictions (area under the ROC curve); None where all are right or
    all wrong. reliability: the bins of equal width.
    """

    bins: Count
    nll: Number
    brier: Number
    ece: Share
    mce: Share
    ece_equal_mass: Share
    confidence: Share
    error_auroc: Share | None
    reliability: tuple[Bin, ...]


@dataclass(frozen=True)
class Scaled:
    """Calibration before and after temperature scaling.

    temperature: by which logits are divided; it minimises the negative log likelihood of the ``fitted_on`` images of the
    validation split. These three are None where there is no split to fit it on.
    """

    raw: Calibration
    temperature: Positive | None = None
    fitted_on: Count | None = None
    scaled: Calibration | None = None


def calibration(logits: Tensor, labels: Tensor, *, bins: int = BINS) -> Calibration:
    """Figures from logits (N, C) and labels (N,)."""
    probabilities = logits.double().softmax(dim=1)
    confidence, prediction = probabilities.max(dim=1)
    right = (prediction == labels).double()
    reliability = reliability_bins(confidence, right, bins)
    return Calibration(
        bins=bins,
        nll=losses.cross_entropy(logits.double(), labels).mean().item(),
        brier=brier(probabilities, labels),
        ece=sum(part.count * gap(part) for part in reliability) / len(labels),
        mce=max(gap(part) for part in reliability),
        ece_equal_mass=ece_equal_mass(confidence, right, bins),
        confidence=confidence.mean().item(),
        error_auroc=_auroc(confidence, right),
        reliability=reliability,
    )


def scaled_calibration(
    logits: Tensor, labels: Tensor, validation: tuple[Tensor, Tensor] | None, *, bins: int = BINS
) -> Scaled:
    """Figures of logits (N, C) before and after the temperature fitted on the validation split's logits and labels."""
    raw = calibration(logits, labels, bins=bins)
    if validation is None:
        return Scaled(raw)
    temperature = fit_temperature(*validation)
    return Scaled(raw, temperature, len(validation[1]), calibration(logits / temperature, labels, bins=bins))


def brier(probabilities: Tensor, labels: Tensor) -> float:
    """Mean of Σ_c (p_c − y_c)² over the samples, from probabilities (N, C); 0 is the best and 2 the worst."""
    truth = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    return (probabilities - truth).square().sum(dim=1).mean().item()


def reliability_bins(confidence: Tensor, right: Tensor, bins: int = BINS) -> tuple[Bin, ...]:
    """Bins of equal width from confidences in [0, 1] and whether each is right (0 or 1), both (N,).

    A confidence on an edge belongs to the bin below it, as in Guo et al. (arXiv 1706.04599).
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    place = torch.bucketize(confidence.double(), edges[1:-1])
    counts = torch.bincount(place, minlength=bins)
    sums = [torch.bincount(place, weights=value.double(), minlength=bins) for value in (confidence, right)]
    return tuple(
        Bin(low, high, count, *((None, None) if count == 0 else (sure / count, told / count)))
        for low, high, count, sure, told in zip(
            edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), *(part.tolist() for part in sums), strict=True
        )
    )


def gap(part: Bin) -> float:
    """How far confidence and accuracy of a bin are apart; 0 for an empty one."""
    return 0.0 if part.confidence is None or part.accuracy is None else abs(part.confidence - part.accuracy)


def ece_equal_mass(confidence: Tensor, right: Tensor, bins: int = BINS) -> float:
    """Expected calibration error over bins of equally many samples (they differ by one at most), from (N,) values."""
    order = confidence.argsort(stable=True)
    parts = [rows for rows in order.tensor_split(bins) if len(rows)]
    gaps = (len(rows) * (confidence[rows].double().mean() - right[rows].double().mean()).abs().item() for rows in parts)
    return sum(gaps) / len(confidence)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The number in [0.05, 20] that minimises the negative log likelihood when logits (N, C) are divided by it.

    Fit it on a validation split and never on the split whose figures are reported.
    """
    from scipy.optimize import minimize_scalar

    values = logits.double()

    def nll(log_temperature: float) -> float:
        return losses.cross_entropy(values / math.exp(log_temperature), labels).mean().item()

    low, high = map(math.log, _TEMPERATURES)
    # One minimum: the likelihood is concave in 1 / temperature.
    return math.exp(minimize_scalar(nll, bounds=(low, high), method="bounded", options={"xatol": 1e-5}).x)


def _auroc(confidence: Tensor, right: Tensor) -> float | None:
    from sklearn.metrics import roc_auc_score

    if right.min() == right.max():
        return None
    return float(roc_auc_score(right.numpy(), confidence.numpy()))
