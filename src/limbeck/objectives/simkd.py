"""The teacher's classifier for the student."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck import losses
from limbeck.errors import SettingError, check_whole
from limbeck.heads import BottleneckClassifier
from limbeck.objectives.base import Objective, Paper
from limbeck.signals import Batch, Signals


class SimKD(Objective, name="simkd"):
    """The student learns the maps before the teacher's pooling, and then uses the teacher's classifier.

    The student's map (B, d_S, H, W) before pooling, averaged to the teacher's size where it is larger, passes a projector of
    1×1, 3×3 and 1×1 convolutions with batch norm and ReLU to the teacher's d_T channels and is compared with the teacher's
    map (averaged to the same size) by the mean squared error. No label is used. The finished student is the trunk, the
    projector and the teacher's frozen classifier: validation, test, ``student.safetensors`` and ``limbeck export`` have
    all three, and the parameters reported count them.

    Args:
        factor: by how much the projector's 3×3 convolution is narrower than the teacher's map; 2, 4 and 8 in the paper.

    Scale:
        0.7 for ReLU features of standard normal numbers (measured): less than both mean squares together, since neither map
        is negative anywhere.

    Differences:
        The map is the one whose mean over the positions is the input of the classifier, found by running the network; a network
        without such a map (a class token, another kind of pooling) is refused. Batch norm runs on one process's samples.
        For ShuffleNetV2 and MobileNetV2 that is the map behind their last convolution, of 1024 and 1280 channels; the authors'
        code takes the last stage's, of 464 and 160. The classifier is among the
        objective's parameters, so that it is counted and saved, and no gradient reaches it (``dead_parameters``).
    """

    needs = frozenset({"embedding_map", "classifier"})
    batch_coupled = True
    local_negatives = True
    minimum_batch = 2
    dead_parameters = frozenset({"head.classifier.weight", "head.classifier.bias"})
    formula = (
        r"\mathcal{L} = \frac{1}{B\,d_T\,H W} \sum_i \lVert \mathcal{P}(F^S_i) - F^T_i \rVert_F^2, \quad "
        r"z^S = W_T \, \mathrm{pool}(\mathcal{P}(F^S)) + b_T"
    )
    paper = Paper("Knowledge Distillation with the Reused Teacher Classifier", 2022, arxiv="2203.14001")
    presets = {"simkd": "simkd()"}

    def __init__(self, *, factor: int = 2) -> None:
        super().__init__()
        check_whole("factor", factor, low=1)
        self.factor = factor
        self.head: BottleneckClassifier | None = None

    def build(self, student: Signals, teacher: Signals) -> None:
        assert student.embedding_map is not None
        assert teacher.embedding_map is not None
        weight, bias = teacher.constants["classifier.weight"], teacher.constants["classifier.bias"]
        head = BottleneckClassifier(
            channels=student.embedding_map.shape[1],
            teacher_channels=teacher.embedding_map.shape[1],
            num_classes=len(weight),
            height=teacher.embedding_map.shape[2],
            width=teacher.embedding_map.shape[3],
            factor=self.factor,
        )
        head.classifier.load_state_dict({"weight": weight, "bias": bias})
        self.head = head.to(weight.device)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        if self.head is None:
            raise SettingError("simkd has no head yet: call build(student, teacher) before you create the optimizer.")
        assert student.embedding_map is not None
        assert teacher.embedding_map is not None
        ours, theirs = losses.align(self.head.project(student.embedding_map), teacher.embedding_map)
        return {"simkd": losses.mean(losses.squared_error(ours, theirs), weight=batch.weight)}

    def new_classifier(self) -> nn.Module | None:
        return self.head
