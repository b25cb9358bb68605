"""Kullback-Leibler divergence, in either direction."""

from __future__ import annotations

from limbeck import losses
from limbeck.errors import check_choice
from limbeck.objectives._divergence import Divergence
from limbeck.objectives.base import Paper


class KL(Divergence, name="kl"):
    """Kullback-Leibler divergence between the teacher's and the student's probabilities, forward or reverse.

    Logits (B, C), or (B, L, V) of token models: the mean then runs over the positions that the student's mask (B, L) counts,
    their sum over their number. Samples are weighted by ``batch.weight``. ``kd`` is this loss, forward, with T = 4 as its
    default: the two are one function, equal to the last bit at equal temperatures. For two vocabularies see ``uld``.

    Args:
        temperature: T > 0; both softmaxes are taken at logits/T, and the divergence is multiplied by T², as in ``kd``.
        direction: "forward" is KL(teacher ‖ student), which asks the student to cover all that the teacher may say;
            "reverse" is KL(student ‖ teacher), which asks it to say nothing that the teacher would not.

    Scale:
        Zero when student and teacher agree. Forward, a student of equal logits has ln V less the teacher's entropy (at most
        10.4 for 32,000 tokens); reverse, it is larger the surer the teacher is, without a bound.

    Differences:
        Forward is the word-level distillation of the paper, less the teacher's entropy, which has no gradient. It is GKD's
        loss at β = 0 and the default of speculative knowledge distillation (2410.11325). Reverse is taken position by
        position on the given text, as in GKD at β = 1; MiniLLM (2306.08543) minimises it over whole sequences that the
        student writes, by policy gradient. None of these codes multiplies by T²; at T = 1 that is no difference.
    """

    formula = (
        r"\mathcal{L} = \frac{T^2}{N} \sum_i \mathrm{KL}(p^T_i \,\|\, p^S_i) \quad \text{or} \quad "
        r"\frac{T^2}{N} \sum_i \mathrm{KL}(p^S_i \,\|\, p^T_i), \quad p = \mathrm{softmax}(z / T)"
    )
    paper = Paper("Sequence-Level Knowledge Distillation", 2016, arxiv="1606.07947")
    presets = {"kl": "kl()"}

    def __init__(self, *, temperature: float = 1.0, direction: str = "forward") -> None:
        check_choice("direction", direction, ("forward", "reverse"))
        super().__init__(losses.FORWARD_KL if direction == "forward" else losses.REVERSE_KL, temperature=temperature)
        self.direction = direction
