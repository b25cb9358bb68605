"""Knowledge distillation on softened logits."""

from __future__ import annotations

from limbeck import losses
from limbeck.objectives._divergence import Divergence
from limbeck.objectives.base import Paper


class KD(Divergence, name="kd"):
    """Kullback-Leibler divergence from the teacher's to the student's softened class probabilities.

    Logits (B, C), or (B, L, V) of token models with the student's mask (B, L): the mean then runs over the positions that
    count, their sum over their number. Samples are weighted by ``batch.weight`` when there is one. ``kl`` is the same loss
    with T = 1 as its default, and has the other direction too.

    Args:
        temperature: T > 0; both softmaxes are taken at logits/T, and the divergence is multiplied by T² so that the size of
            its gradient does not depend on T.

    Scale:
        Zero when student and teacher agree. The benchmark of the ICD paper uses 0.1·CE + 0.9·KD at T = 4.

    Differences:
        The sum runs over classes and the mean over samples ("batchmean"); a mean over classes as well, as some public codes
        have it, is C times smaller.
    """

    formula = (
        r"\mathcal{L} = \frac{T^2}{B} \sum_i \sum_c p^T_{ic} \left( \log p^T_{ic} - \log p^S_{ic} \right), \quad "
        r"p = \mathrm{softmax}(z / T)"
    )
    paper = Paper("Distilling the Knowledge in a Neural Network", 2015, arxiv="1503.02531")
    presets = {"kd": "0.1*ce + 0.9*kd(temperature=4)"}

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__(losses.FORWARD_KL, temperature=temperature)
