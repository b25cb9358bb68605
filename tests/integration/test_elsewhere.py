"""Every objective works outside limbeck: in a plain loop, in a Lightning module, and in a Hugging Face Trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from limbeck.objectives import WeightedSum, objectives, parse_objective
from limbeck.signals import Batch, Signals
from limbeck.taps import Tapped, find_classifier

N, CLASSES, STEPS = 16, 4, 12
# Images have no documents.
EXPRESSIONS = [f"{name}()" for name in objectives() if name not in ("documents", "embed_match")] + ["icd+kd"]


def images() -> Tensor:
    return torch.randn(N, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def labels() -> Tensor:
    return torch.arange(N) % CLASSES


def tapped(width: int, seed: int) -> Tapped:
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(2 * width, CLASSES),
    )
    made = Tapped(network, features={"stage1": "0", "stage2": "1"}, classifier=find_classifier(network, images()))
    for group, name, path in (
        ("preactivations", "stage1", "0.2:input"),
        ("preactivations", "stage2", "1.2:input"),
        ("stem", "stem", "0.0"),
        ("embedding_map", "embedding_map", "1"),
    ):
        made.record(group, name, path)
    return made


def constants(network: nn.Sequential) -> dict[str, Tensor]:
    """What an objective may ask of a teacher beside its answers."""
    return {
        "classifier.weight": network[3].weight,
        "classifier.bias": network[3].bias,
        "stage1.shift": network[0][1].bias,
        "stage1.scale": network[0][1].weight,
        "stage2.shift": network[1][1].bias,
        "stage2.scale": network[1][1].weight,
    }


class Distilled(nn.Module):
    """A student and its objective, which train, beside a teacher, which does not: what each of the loops below holds."""

    def __init__(self, expression: str) -> None:
        super().__init__()
        self.student = tapped(4, seed=1)
        self.objective: WeightedSum = parse_objective(expression)
        equal = any(part.equal_channels for _, _, part in self.objective.entries())
        teacher = tapped(4 if equal else 8, seed=2).eval().requires_grad_(False)
        self.teach = teacher.forward
        self.objective.set_training_labels(labels())
        asked = self.objective.companions()
        self.peers = nn.ModuleList(tapped(4, seed=3 + number) for number in range(asked.count if asked else 0))
        with torch.no_grad():
            known = replace(self.teach(images()), constants=constants(teacher.network))
            self.objective.build(self.learn(images()), known)

    def learn(self, pixels: Tensor) -> Signals:
        student: Signals = self.student(pixels)
        if not self.peers:
            return student
        peers = torch.stack([peer(pixels).logits for peer in self.peers], dim=1)
        return replace(student, peers=peers, trunk=student.features["stage1"])

    def forward(self, pixels: Tensor, classes: Tensor, index: Tensor) -> dict[str, Tensor]:
        batch = Batch(pixels, classes, index=index)
        with torch.no_grad():
            teacher: Signals = self.teach(pixels)
        return self.objective(self.learn(pixels), teacher, batch)

    def loss(self, pixels: Tensor, classes: Tensor, index: Tensor) -> Tensor:
        return torch.stack(list(self(pixels, classes, index).values())).sum()


@pytest.fixture
def distilled(request: pytest.FixtureRequest) -> Distilled:
    return Distilled(request.param)


each_objective = pytest.mark.parametrize("distilled", EXPRESSIONS, indirect=True)
# What an objective does there is what it does in a loop of one's own: a few stand for all.
some_objectives = pytest.mark.parametrize("distilled", ["icd+kd", "kd()", "at()"], indirect=True)


def check_trained(distilled: Distilled, before: dict[str, Tensor], losses: list[float]) -> None:
    assert len(losses) == STEPS
    assert losses[-1] < losses[0], losses
    learned = {name for name, value in distilled.objective.named_parameters() if not torch.equal(value, before[name])}
    assert learned == before.keys() - distilled.objective.dead_parameters


def heads(distilled: Distilled) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in distilled.objective.named_parameters()}


@each_objective
def test_in_somebodys_own_loop(distilled: Distilled) -> None:
    before, losses = heads(distilled), []
    optimizer = torch.optim.AdamW(distilled.parameters(), lr=0.02, weight_decay=0.0)
    for _ in range(STEPS):
        loss = distilled.loss(images(), labels(), torch.arange(N))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    check_trained(distilled, before, losses)


@some_objectives
# Lightning 2.6 advises more workers than 16 images need, and uses a class that torch's pytree has deprecated.
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
def test_in_a_lightning_module(distilled: Distilled, tmp_path: Path) -> None:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.distilled = distilled
            self.losses: list[float] = []

        def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
            loss = self.distilled.loss(*batch)
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=0.02, weight_decay=0.0)

    before, module = heads(distilled), Module()
    data = torch.utils.data.TensorDataset(images(), labels(), torch.arange(N))
    trainer = lightning.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=N))
    check_trained(distilled, before, module.losses)


@some_objectives
def test_in_a_hugging_face_trainer(distilled: Distilled, tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    losses = []

    class DistillationTrainer(Trainer):
        def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], **more: object) -> Tensor:
            loss = torch.stack(list(model(**inputs).values())).sum()
            losses.append(loss.item())
            return loss

    rows = [
        {"pixels": x, "classes": y, "index": i} for x, y, i in zip(images(), labels(), torch.arange(N), strict=True)
    ]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=STEPS,
        per_device_train_batch_size=N,
        learning_rate=0.02,
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    before = heads(distilled)
    DistillationTrainer(model=distilled, args=arguments, train_dataset=rows).train()
    check_trained(distilled, before, losses)
