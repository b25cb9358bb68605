"""Hints: the student's map is led to the teacher's by a regressor."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck import losses
from limbeck.errors import SettingError, SignalError, check_whole
from limbeck.objectives._regressors import regressor
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals, paired


class FitNet(Objective, name="fitnet"):
    """Mean squared error between the teacher's map at one stage and what a regressor makes of the student's.

    Maps (B, C, H, W) of one matched stage. The regressor is a convolution, a batch norm and a ReLU; its kernel follows from
    the two sizes: 1×1 for equal ones, 3×3 with stride 2 where the student's map is twice as large, transposed 4×4 where it is
    half as large, else as large as what is too much. It is discarded after training. Samples are weighted by ``batch.weight``
    when there is one. The error is computed in float32.

    Args:
        hint: which of the matched stages, counted from 1, from shallow to deep.
        init_epochs: 0 for one loss among others throughout; N > 0 for the two stages of the paper: for N epochs student
            and regressor learn this loss alone, at weight 1, and in the main stage it is gone.

    Scale:
        A mean over all elements, so that it is of the size of the teacher's squares: near 0.7 at initialisation for a teacher's
        map after batch norm and ReLU. Zero when the regressor gives the teacher's map, which it cannot where that is negative.

    Differences:
        The paper trains in two stages, the hint first and softened logits then; the benchmark of the CRD paper has one stage
        with both losses, the default here. ``fitnet_two_stages`` is the paper's form, with the number of epochs that the
        benchmark gives to the first stages of other methods, not the paper's own. The paper's regressor is one convolution,
        with a maxout or ReLU; batch norm is the benchmark's. The benchmark's convolution has a bias that the batch norm takes
        out again; here there is none. Batch norm takes its statistics over the samples of one process.
    """

    needs = frozenset({"features"})
    # By the batch norm of the regressor, whose statistics are of the batch in one process.
    batch_coupled = True
    local_negatives = True
    minimum_batch = 2
    formula = (
        r"\mathcal{L} = \frac{1}{B C_T H_T W_T} \sum_i \left\lVert r(F^S_i) - F^T_i \right\rVert_2^2, \quad "
        r"r = \mathrm{ReLU} \circ \mathrm{BN} \circ \mathrm{conv}"
    )
    paper = Paper("FitNets: Hints for Thin Deep Nets", 2014, arxiv="1412.6550")
    presets = {
        "fitnet": "ce + 100*fitnet()",
        "fitnet+kd": "ce + 100*fitnet() + kd(temperature=4)",
        "fitnet_two_stages": "ce + kd(temperature=4) + 100*fitnet(init_epochs=30)",
    }

    def __init__(self, *, hint: int = 2, init_epochs: int = 0) -> None:
        super().__init__()
        for setting, value, low in (("hint", hint, 1), ("init_epochs", init_epochs, 0)):
            check_whole(setting, value, low=low)
        self.hint, self.init_epochs = hint, init_epochs
        self.regressor: nn.Module | None = None

    def build(self, student: Signals, teacher: Signals) -> None:
        ours, theirs = self._maps(student, teacher)
        self.regressor = regressor(ours.shape, theirs.shape, relu=True).to(ours.device)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        if self.regressor is None:
            raise SettingError(
                "fitnet has no regressor yet: call build(student, teacher) before you create the optimizer."
            )
        ours, theirs = self._maps(student, teacher)
        return {"fitnet": losses.mean(losses.squared_error(self.regressor(ours), theirs), weight=batch.weight)}

    def _maps(self, student: Signals, teacher: Signals) -> tuple[Tensor, Tensor]:
        pairs = paired(student.features, teacher.features)
        if self.hint > len(pairs):
            found = ", ".join(f"{number} is {name}" for number, (name, _, _) in enumerate(pairs, start=1))
            raise SignalError(
                f"{self.expression()} takes its hint from matched stage {self.hint}, and there are {len(pairs)}: "
                f"{found or 'none'}. Give hint a number among these, or name more layers with 'taps'."
            )
        _, ours, theirs = pairs[self.hint - 1]
        return ours, theirs
