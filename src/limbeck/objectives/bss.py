"""Boundary supporting samples: distillation on images that an attack moves to the teacher's decision boundary."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck import losses
from limbeck.distributed import gather_rows, world_size
from limbeck.errors import SettingError, check_number, check_whole
from limbeck.objectives.base import Attack, Objective, Paper
from limbeck.signals import Batch, Signals


class BSS(Objective, name="bss"):
    """Cross-entropy with the teacher's softened probabilities, on the images and on images at the teacher's boundary.

    Logits (B, C). The terms are ``clean`` (r times the cross-entropy from the teacher's to the student's softmax at T, mean
    over samples, which are weighted by ``batch.weight``) and ``boundary`` (b times the same on attacked images, mean over
    those, of all processes together). Over the epochs e = 0 … E - 1 of a run r falls from ``clean + 1`` to 1 and b from
    ``boundary`` to 0 at three quarters of them; afterwards nothing is attacked. For a batch without attacked images, as in a
    loop of your own, the term is 0.

    The images are attacked on the teacher, once a step for this student: of those that both networks get right (the student
    in eval mode), the ``samples`` on which their probabilities are furthest apart (squared distance). The class that an image
    moves to is drawn with the teacher's probabilities, the label left out, from the student's own random numbers, so that a
    resumed run draws the same. Each of at most ``steps`` steps goes down the gradient of the gap between the logits of label
    and class, by ``step`` · (gap + ``epsilon``), and ends where the teacher's decision changes; pixels are cut off at
    ±``clip``. Units are those of the teacher's normalisation. Student and teacher see the same images, each through its own
    preprocessing; those of the batch and the attacked ones go through the student together.

    A step costs at most ``steps`` passes of the teacher forward and back, and one forward, on ``samples`` images, and of the
    student one more forward on the batch and the training step on ``samples`` more. It needs a teacher that is one network,
    asked live: there is no teacher cache and no budget of calls. Several processes attack a share of ``samples`` each.

    Args:
        temperature: T > 0 of both softmaxes; there is no factor T².
        clean: by how much r is above 1 at first, at least 0.
        boundary: b at first, at least 0; 0 attacks nothing.
        epochs: E, at least 1; the stage's own number when not given.
        samples: images attacked a step, at least 1.
        steps: of an attack, at least 1.
        step: size of a step, above 0.
        epsilon: added to the gap, above 0, so that a step crosses the boundary.
        clip: largest absolute value of an attacked pixel, above 0.

    Scale:
        Each cross-entropy is at least the entropy of the teacher's softened probabilities and ln C for equal logits of the
        student: with C = 10 clean starts near 4·2.3 and boundary near 2·2.3.

    Differences:
        The authors' schedules are for 80 epochs, r = max(3(1 - e/80), 0) + 1 and b = max(2(1 - (4/3)e/80), 0); here E takes the
        place of 80. Their cross-entropy with the labels is ``ce`` beside it, as in the preset. Chosen here, since only
        the description was followed: the squared distance, the student's eval mode, logits as the scores of the attack, means
        over attacked images, and one pass of the student for both kinds of image.
    """

    needs = frozenset({"labels", "logits", "attack"})
    batch_coupled = True
    formula = (
        r"\mathcal{L} = \frac{r(e)}{B} \sum_i H\!\left(p^T_i, p^S_i\right) + \frac{b(e)}{|A|} \sum_{a \in A} "
        r"H\!\left(p^T_a, p^S_a\right), \quad H(p, q) = -\sum_c p_c \log q_c, \quad p = \mathrm{softmax}(z / T)"
    )
    paper = Paper(
        "Knowledge Distillation with Adversarial Samples Supporting Decision Boundary", 2019, arxiv="1805.05532"
    )
    presets = {"bss": "ce + bss()"}
    weights: Tensor

    def __init__(
        self,
        *,
        temperature: float = 3.0,
        clean: float = 3.0,
        boundary: float = 2.0,
        epochs: int | None = None,
        samples: int = 64,
        steps: int = 10,
        step: float = 0.3,
        epsilon: float = 1e-4,
        clip: float = 2.5,
    ) -> None:
        super().__init__()
        for name, value in (("temperature", temperature), ("step", step), ("epsilon", epsilon), ("clip", clip)):
            check_number(name, value, low=0.0, open_low=True)
        for name, value in (("clean", clean), ("boundary", boundary)):
            check_number(name, value, low=0.0)
        for name, count in (
            ("samples", samples),
            ("steps", steps),
            *((("epochs", epochs),) if epochs is not None else ()),
        ):
            check_whole(name, count, low=1)
        self.temperature, self.clean, self.boundary, self.epochs = temperature, clean, boundary, epochs
        self.samples, self.steps, self.step, self.epsilon, self.clip = samples, steps, step, epsilon, clip
        self._stage_epochs = 1
        self._attacks = boundary > 0
        if not boundary:
            self.needs, self.batch_coupled = frozenset({"logits"}), False
        # Of the clean and of the attacked images. A tensor: of numbers, torch.compile would make a new program every epoch.
        self.register_buffer("weights", torch.tensor([clean + 1.0, boundary]))

    @property
    def attack(self) -> Attack | None:
        if not self._attacks:
            return None
        return Attack(self.samples, self.steps, self.step, self.epsilon, self.clip)

    def set_epochs(self, epochs: int) -> None:
        self._stage_epochs = epochs

    def build(self, student: Signals, teacher: Signals) -> None:
        assert student.logits is not None
        self.to(student.logits.device)

    def start_epoch(self, epoch: int) -> None:
        done = (epoch - 1) / (self.epochs or self._stage_epochs)
        boundary = self.boundary * max(1 - 4 / 3 * done, 0.0)
        self.weights.copy_(torch.tensor([self.clean * max(1 - done, 0.0) + 1, boundary]))
        self._attacks = boundary > 0

    def monitors(self) -> dict[str, Tensor]:
        return {"weight.clean": self.weights[0].clone(), "weight.boundary": self.weights[1].clone()}

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        assert student.logits is not None
        assert teacher.logits is not None
        clean = losses.soft_cross_entropy(student.logits, teacher.logits, temperature=self.temperature)
        terms = {"clean": self.weights[0] * losses.mean(clean, weight=batch.weight)}
        if self.boundary:
            terms["boundary"] = self.weights[1] * self._at_boundary(student, teacher, batch)
        return terms

    def _at_boundary(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        if batch.attacked is None:
            return self.weights.new_zeros(())
        if student.attacked is None or teacher.attacked is None:
            raise SettingError("bss: the batch tells of attacked images, and a network's signals do not.")
        counts = (batch.attacked >= 0).float()
        values = losses.soft_cross_entropy(student.attacked, teacher.attacked, temperature=self.temperature)
        # DDP averages over processes what each of them divides by the number of all.
        return world_size() * (values * counts).sum() / gather_rows(counts).sum().clamp(min=1)
