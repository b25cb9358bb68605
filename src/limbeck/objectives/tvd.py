"""Total variation distance."""

from __future__ import annotations

from limbeck import losses
from limbeck.objectives._divergence import Divergence
from limbeck.objectives.base import Paper


class TVD(Divergence, name="tvd"):
    """Total variation distance: half the sum of the absolute differences of student's and teacher's probabilities.

    Logits (B, C), or (B, L, V) of token models: the mean then runs over the positions that the student's mask (B, L) counts,
    their sum over their number. Samples are weighted by ``batch.weight``.

    Args:
        temperature: T > 0; both softmaxes are taken at logits/T, and the distance is multiplied by T: of absolute differences
            the gradient falls with 1/T, not with 1/T² as of ``kl``.

    Scale:
        Zero when student and teacher agree, at most T. It is the probability with which the two, sampled as alike as can be,
        say different things. The gradient does not shrink as they come near, and where a probability of the student is
        tiny it has nearly none: it is slow for a student that knows nothing.

    Differences:
        The paper derives the word-level loss from the distance of whole sequences, and mixes text of teacher and student; here
        it is taken on the given text. Where two probabilities are equal the gradient is 0.
    """

    power = 1
    formula = r"\mathcal{L} = \frac{T}{2 N} \sum_i \sum_c \left| p^T_{ic} - p^S_{ic} \right|, \quad p = \mathrm{softmax}(z / T)"
    paper = Paper("f-Divergence Minimization for Sequence-Level Knowledge Distillation", 2023, arxiv="2307.15190")
    presets = {"tvd": "tvd()"}

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__(losses.TOTAL_VARIATION, temperature=temperature)
