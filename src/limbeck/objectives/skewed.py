"""Skewed Kullback-Leibler divergence, the loss of DistiLLM."""

from __future__ import annotations

from limbeck import losses
from limbeck.errors import check_choice, check_number
from limbeck.objectives._divergence import Divergence
from limbeck.objectives.base import Paper


class Skewed(Divergence, name="skewed"):
    """Kullback-Leibler divergence to a mixture in which a little of the other side bounds the gradient.

    Logits (B, C), or (B, L, V) of token models: the mean then runs over the positions that the student's mask (B, L) counts,
    their sum over their number. Samples are weighted by ``batch.weight``.

    Args:
        alpha: α in [0, 1), the part in the mixture of what is compared with it. 0 is ``kl`` in the same direction.
        temperature: T > 0; both softmaxes are taken at logits/T, and the divergence is multiplied by T², as in ``kd``.
        direction: "forward" compares the teacher with α·teacher + (1 - α)·student; "reverse" the student with
            (1 - α)·teacher + α·student.

    Scale:
        Zero when student and teacher agree; at most -T²·ln α: 2.3 at α = 0.1 and T = 1.

    Differences:
        α = 0.1 is the authors', for both directions. Their code leaves out the teacher's entropy in the forward direction,
        so that its value is not zero at the minimum; the gradient is the same. It has no temperature. Their schedule of
        student-written text is no part of a loss and not here.
    """

    formula = (
        r"\mathcal{L} = \frac{T^2}{N} \sum_i \mathrm{KL}(p^T_i \,\|\, \alpha p^T_i + (1 - \alpha) p^S_i) \quad \text{or} \quad "
        r"\frac{T^2}{N} \sum_i \mathrm{KL}(p^S_i \,\|\, (1 - \alpha) p^T_i + \alpha p^S_i), \quad p = \mathrm{softmax}(z / T)"
    )
    paper = Paper("DistiLLM: Towards Streamlined Distillation for Large Language Models", 2024, arxiv="2402.03898")
    presets = {"skewed": "skewed()"}

    def __init__(self, *, alpha: float = 0.1, temperature: float = 1.0, direction: str = "forward") -> None:
        check_number("alpha", alpha, low=0.0, high=0.999)
        check_choice("direction", direction, ("forward", "reverse"))
        super().__init__(losses.skewed_kl(alpha, reverse=direction == "reverse"), temperature=temperature)
        self.alpha, self.direction = alpha, direction
