"""Representative teacher keys, reconstructed: a stage of the student learns from the few of the teacher it is most like."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.errors import SettingError, check_flag, check_number, check_whole
from limbeck.objectives._stage_attention import StagePairs
from limbeck.objectives.base import Paper


class RTK(StagePairs, name="rtk"):
    """Mean squared distances of attention maps of pairs of stages, of which learned similarities keep a few: a reconstruction.

    Stages (B, C, H, W) of both networks, matched or not, of any number, channels and sizes; the value of a stage is that of
    ``afd``. Each stage of the student asks with a query and all stages of the teacher answer with keys: for each sample the
    ``keys`` most similar stages are kept, a softmax over these divides a weight of 1 among them, and the others have none.
    Computed in float32. The heads train with the student and are discarded after training. Samples are weighted by
    ``batch.weight``. ``attention.STUDENT.TEACHER`` in the metrics is the mean weight of a pair over the samples since the
    epoch began.

    The heads hold about dim² weights for each stage of the student and dim for each channel of both networks' stages; a step
    holds B · S · T · dim numbers for their products (S, T: how many stages the student and the teacher have).

    Args:
        keys: how many of the teacher's stages are kept for each of the student's, all where there are not more; at least 2
            where heads learn, since the weight of a single one is 1 whatever they say. The controls have no keys to keep.
        dim: width of queries and keys.
        attention: "learned"; or, as controls without heads, "uniform" (all of the teacher's stages with the same weight) and
            "diagonal" (the one that ends at the nearest share of its network's depth, the deeper of two that are as near;
            with equally many stages the first learns from the first, and so on).
        detach_attention: hold the weights fixed in the loss, so that neither heads nor student can lower it by moving the
            weights. Nothing else teaches the heads: they stay as they were drawn, without an optimizer. What is kept is then
            a fixed random function of the maps, which is a control too, rather than a method.
        entropy_floor: in [0, 1], below 1 where heads learn: the least entropy of the weights of the kept, as a share of that
            of equal weights. They are mixed with equal weights in this share, which keeps the entropy there by its concavity.

    Scale:
        A sum over the student's stages, each a mean of at most 2/(H·W) of the teacher's maps; about 0.002 for three stages of
        unrelated ReLU maps (64 channels, sides 32, 16 and 8). Zero for equal networks with diagonal attention, or where each
        has one stage. A mean over positions is smaller on larger maps, and 0 on maps of one position, whose value is 1 whatever
        they hold: learned attention leans towards the teacher's stages where there is least to lose, and ``entropy_floor``
        limits how far. ``afd`` chooses among the student's stages at one size, and does not have this.

    Differences:
        A reconstruction from the abstract, which says that similarities of the maps are considered and useless information of
        the teacher is filtered out, and that an attention-based method is surpassed. No code of the authors is known, and the
        loss, the layers, the number of keys, the weights and the numbers were not recovered; nothing here is the paper's
        result. Chosen were: that keys come from the teacher and queries from the student; to keep the ``keys`` largest
        similarities for each sample, 2 by default; AFD's values, and AFD's heads with the roles of the networks exchanged,
        without biases that can have no effect, so that ``rtk`` with as many keys as the teacher has stages is AFD from the
        student's side; AFD's weight of 200 and its 0.9 for KD in the presets; both ways out of the trivial solution, in which
        the attention runs to pairs that are alike anyway. It is a filter in the style of RTK upon AFD: compare it with
        ``afd`` on the same stages and with its own controls. A batch norm takes its statistics from the samples of one
        process, and from small batches (below 16 or so) poorly.
    """

    chooser = "student"
    formula = (
        r"\mathcal{L} = \frac{1}{B} \sum_i \sum_s \sum_{t \in K_{is}} a_{ist} \, \frac{1}{H_t W_t} "
        r"\left\lVert A(F^S_{is}) - A(F^T_{it}) \right\rVert_2^2, \quad "
        r"a_{is} = \mathrm{softmax}_{t \in K_{is}} \sigma_{ist}, \quad K_{is} = \mathrm{top}_m(\sigma_{is}), \quad "
        r"\sigma_{ist} = \frac{\langle q_{is}, k_{its} \rangle + \langle p_s, p_t \rangle}{\sqrt{d}}"
    )
    paper = Paper(
        "Representative Teacher Keys for Knowledge Distillation Model Compression Based on Attention Mechanism for Image "
        "Classification",
        2022,
        arxiv="2206.12788",
    )
    presets = {"rtk": "ce + 200*rtk()", "rtk+kd": "ce + 200*rtk() + 0.9*kd(temperature=4)"}

    def __init__(
        self,
        *,
        keys: int = 2,
        dim: int = 128,
        attention: str = "learned",
        detach_attention: bool = False,
        entropy_floor: float = 0.0,
    ) -> None:
        check_whole("keys", keys, low=1)
        check_flag("detach_attention", detach_attention)
        check_number("entropy_floor", entropy_floor, low=0.0, high=1.0)
        super().__init__(dim=dim, attention=attention, learn=not detach_attention)
        self.keys, self.detach_attention, self.entropy_floor = keys, detach_attention, entropy_floor
        self._check_together()

    def _check_together(self) -> None:
        if self.attention != "learned":
            if self.detach_attention or self.entropy_floor:
                raise SettingError(
                    f"rtk: detach_attention and entropy_floor are for attention='learned', not for '{self.attention}', whose "
                    "weights are fixed."
                )
        elif not self.detach_attention:
            if self.keys == 1:
                raise SettingError(
                    "rtk: the weight of a single key is 1 whatever the heads say, so they would never learn: keys must be at "
                    "least 2, or 1 with detach_attention=True."
                )
            if self.entropy_floor == 1:
                raise SettingError(
                    "rtk: with an entropy_floor of 1 all kept weights are equal whatever the heads say, so they would never "
                    "learn: it must be less than 1, or stand with detach_attention=True."
                )

    def divide(self, similarities: Tensor) -> Tensor:
        count = min(self.keys, similarities.shape[-1])
        best = similarities.topk(count, dim=-1).indices
        kept = torch.zeros_like(similarities, dtype=torch.bool).scatter(-1, best, True)
        weights = torch.softmax(similarities.masked_fill(~kept, -torch.inf), dim=-1)
        return weights + self.entropy_floor * (kept / count - weights)
