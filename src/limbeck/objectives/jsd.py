"""Generalised Jensen-Shannon divergence, the loss of generalised knowledge distillation (GKD)."""

from __future__ import annotations

from limbeck import losses
from limbeck.errors import check_number
from limbeck.objectives._divergence import Divergence
from limbeck.objectives.base import Paper


class JSD(Divergence, name="jsd"):
    """Generalised Jensen-Shannon divergence: teacher and student are each compared with a mixture of both.

    Logits (B, C), or (B, L, V) of token models: the mean then runs over the positions that the student's mask (B, L) counts,
    their sum over their number. Samples are weighted by ``batch.weight``.

    Args:
        beta: β in [0, 1], the teacher's part in the mixture M and the weight of its divergence. 0 stands for the forward and
            1 for the reverse KL.
        temperature: T > 0; both softmaxes are taken at logits/T, and the divergence is multiplied by T², as in ``kd``.

    Scale:
        Zero when student and teacher agree; at most T²·(-β ln β - (1 - β) ln(1 - β)), 0.69 at β = 0.5 and T = 1, so it is
        far smaller than ``kl`` for a student that knows nothing. Near β = 0 it is about β times the forward KL, and near 1
        about 1 - β times the reverse: at 0 and 1 themselves it jumps to them.

    Differences:
        The formula and its two ends are those of TRL's GKD trainer, which trains at T = 1, divides by the number of response
        tokens as this does, and has no factor T².
    """

    formula = (
        r"\mathcal{L} = \frac{T^2}{N} \sum_i \left( \beta \, \mathrm{KL}(p^T_i \,\|\, M_i) "
        r"+ (1 - \beta) \, \mathrm{KL}(p^S_i \,\|\, M_i) \right), \quad "
        r"M = \beta p^T + (1 - \beta) p^S, \quad p = \mathrm{softmax}(z / T)"
    )
    paper = Paper(
        "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes", 2023, arxiv="2306.13649"
    )
    presets = {"jsd": "jsd()"}

    def __init__(self, *, beta: float = 0.5, temperature: float = 1.0) -> None:
        check_number("beta", beta, low=0.0, high=1.0)
        super().__init__(losses.jensen_shannon(beta), temperature=temperature)
        self.beta = beta
