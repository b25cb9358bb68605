"""Information-flow distillation: who is like whom in a batch, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from limbeck import losses
from limbeck.distributed import gather_rows
from limbeck.errors import check_choice
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals, paired

_LAYERS = {"last": {"embedding"}, "intermediate": {"features"}, "all": {"embedding", "features"}}
# Added to a similarity before the rows are divided by their sums: that of two opposite samples is 0, and has no logarithm.
_EPSILON = 1e-6


def _cosine(rows: Tensor) -> Tensor:
    return losses.cosine_kernel(rows) + _EPSILON


_KERNELS: dict[str, Callable[[Tensor], Tensor]] = {"cosine": _cosine, "student_t": losses.student_t_kernel}


class InfoFlow(Objective, name="infoflow"):
    """Jeffreys divergence between which samples of a batch are alike, student's and teacher's, at the layers of both.

    At each layer the samples i of a batch of B have probabilities p(j|i) = K(x_i, x_j) / Σ_k K(x_i, x_k) of the others, by
    two kernels: the cosine brought to [0, 1], and Student's t, 1/(1 + ‖x_i - x_j‖). Only these (B, B) matrices are compared,
    so layers may have any width and size, and nothing is trained. The last layer is the embedding (B, D), the intermediate
    ones are the maps (B, C, H, W) of the stages that are matched one to one; all have weight 1 here. The terms are
    ``cosine`` and ``student_t``, each a sum over the layers. Computed in float32. Memory is that of the flattened maps and
    of B² numbers for each layer and kernel. Among several processes the rows are gathered, so that the matrices are those of
    the whole batch. In a batch of two every probability is 1, and nothing is taught.

    The paper's scheme: early in training the intermediate layers count most, so the preset gives the last layer the weight 1
    and the others ``decay(100, 0.7)``. Since networks of different kinds have no layers in common, an auxiliary teacher of
    the student's depth and twice its width first learns from the teacher's last layer alone (``infoflow_assistant``), and the
    student then from it (``infoflow``). Both are without labels, as in the paper's retrieval experiments: the classifier of
    the student learns nothing, so that weights are kept with ``select=last`` and judged by retrieval.

    Args:
        layers: ``last`` (the embedding), ``intermediate`` (the matched stages) or ``all``.
        kernel: ``both`` (their losses added), ``cosine`` or ``student_t``.
        reduction: ``rows``: the sum over the others j ≠ i, and the mean over the samples i. ``paper``: the mean over all B²
            pairs with i = j among them, in the probabilities too, as in the authors' code.
        maps: ``flat``: a map is one long row, as in the authors' code. ``pooled``: its mean over the positions.

    Scale:
        For 64 independent embeddings of normal numbers the cosine is 0.032 at d = 64 and 0.008 at d = 256, student_t 0.011
        and 0.0024. ``paper`` is about B times less, which makes no difference to Adam, and to SGD all the difference. Zero
        for equal rows, also after a rotation of one network's rows, and the cosine after any scaling. Flattened maps of
        unlike samples are nearly equally far from each other, so that theirs is small: 6e-5 and 1e-4, the sum of three
        stages of random ReLU maps, for which the paper's weight of 100 at the start makes up.

    Differences:
        The paper sums over pairs j ≠ i; the authors' code takes the mean over B² with the diagonal kept (``paper``), and has
        nothing inside the logarithms, which are infinite for exactly opposite samples: here 1e-6 is added to the cosine's
        similarities. The 1e-6 under the root of the distance is theirs; distances are those of rows less their mean, which
        loses fewer digits. The maps are those of the stages, where the authors' networks have a map after each of three
        convolutions. The paper adds cross-entropy in its classification experiment at a weight that was not recovered: the
        preset ``infoflow+ce``, with weight 1, is ours. The authors train with Adam, made anew in each epoch; here the run's
        optimiser goes on. Where several processes train, the authors' code has no counterpart.
    """

    needs = frozenset({"embedding", "features"})
    batch_coupled = True
    minimum_batch = 2
    zero_when_equal = True
    formula = (
        r"\mathcal{L} = \sum_l \sum_K \frac{1}{B} \sum_i \sum_{j \neq i} \left( p^T_{j|i} - p^S_{j|i} \right) "
        r"\log \frac{p^T_{j|i}}{p^S_{j|i}}, \quad p_{j|i} = \frac{K(x_i, x_j)}{\sum_{k \neq i} K(x_i, x_k)}, \quad "
        r"K_{\cos} = \frac{\cos(x_i, x_j) + 1}{2} + \varepsilon, \quad K_t = \frac{1}{1 + \lVert x_i - x_j \rVert_2}"
    )
    paper = Paper(
        "Heterogeneous Knowledge Distillation using Information Flow Modeling", 2020, arxiv="2005.00727", venue="CVPR"
    )
    presets = {
        "infoflow": "infoflow(layers='last') + decay(100, 0.7)*infoflow(layers='intermediate')",
        "infoflow_assistant": "infoflow(layers='last')",
        "infoflow+ce": "ce + infoflow(layers='last') + decay(100, 0.7)*infoflow(layers='intermediate')",
    }

    def __init__(
        self, *, layers: str = "all", kernel: str = "both", reduction: str = "rows", maps: str = "flat"
    ) -> None:
        super().__init__()
        check_choice("layers", layers, _LAYERS)
        check_choice("kernel", kernel, ("both", *_KERNELS))
        check_choice("reduction", reduction, ("rows", "paper"))
        check_choice("maps", maps, ("flat", "pooled"))
        self.layers, self.kernel, self.reduction, self.maps = layers, kernel, reduction, maps
        self.needs = frozenset(_LAYERS[layers])

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        layers = [(gather_rows(ours), gather_rows(theirs)) for ours, theirs in self._rows(student, teacher)]
        names = _KERNELS if self.kernel == "both" else (self.kernel,)
        return {name: torch.stack([self._divergence(_KERNELS[name], *rows) for rows in layers]).sum() for name in names}

    def _rows(self, student: Signals, teacher: Signals) -> Iterator[tuple[Tensor, Tensor]]:
        """(B, D) rows of each layer, student's and teacher's."""
        if "embedding" in self.needs:
            assert student.embedding is not None
            assert teacher.embedding is not None
            yield student.embedding, teacher.embedding
        if "features" in self.needs:
            for _, ours, theirs in paired(student.features, teacher.features):
                yield self._row(ours), self._row(theirs)

    def _row(self, maps: Tensor) -> Tensor:
        return maps.flatten(1) if self.maps == "flat" else _pooled(maps)

    def _divergence(self, kernel: Callable[[Tensor], Tensor], ours: Tensor, theirs: Tensor) -> Tensor:
        one, other = kernel(ours), kernel(theirs)
        if self.reduction == "rows":
            return losses.jeffreys(one, other).mean()
        return losses.jeffreys(one, other, itself=True).mean() / len(one)


@losses.in_float32
def _pooled(maps: Tensor) -> Tensor:
    return maps.mean(dim=(2, 3))
