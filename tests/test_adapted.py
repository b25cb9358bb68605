"""A teacher with adapters: whose weights are whose, what trains, and what a run with it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_text_runs import Stop
from text_training import STUDENT, TEACHER, distilled, network, weights
from torch import Tensor, nn

import limbeck
from limbeck.adapted import AdaptedTeacher
from limbeck.data import load_data
from limbeck.data.text import Example, TextData
from limbeck.engine.callbacks import Callback
from limbeck.errors import SettingError
from limbeck.models.language import create_language_model
from limbeck.runs import read_metrics
from limbeck.signals import Signals
from limbeck.token_taps import TokenTapped
from limbeck.tokens import Tokens


def tokens() -> Tokens:
    drawn = torch.randint(2, 15, (3, 6), generator=torch.Generator().manual_seed(0))
    attention = torch.arange(6)[None] < torch.tensor([6, 4, 5])[:, None]
    return Tokens(drawn.where(attention, 0), attention, torch.arange(6).expand(3, 6).where(attention, 0))


def tapped() -> TokenTapped:
    return TokenTapped(network(TEACHER, 1), causal=True, vocabulary=13, classifier="lm_head").eval()


def test_at_first_it_is_the_teacher_with_the_very_same_weights() -> None:
    teacher = tapped()
    names = [name for name, _ in teacher.named_modules()]
    adapted = AdaptedTeacher(teacher, 2)
    with torch.no_grad():
        said, told = adapted(tokens(), Signals()), teacher(tokens())
    assert torch.equal(said, told.logits[:, None])
    assert said.shape == (3, 1, 6, 13)
    assert [name for name, _ in teacher.named_modules()] == names, "the teacher has been changed"
    ours = {parameter.data_ptr() for parameter in teacher.parameters()}
    copied = {parameter.data_ptr() for parameter in adapted._tapped[0].parameters() if not parameter.requires_grad}
    assert copied == ours, "what is frozen is held once"


def test_the_adapters_alone_train_and_are_saved() -> None:
    teacher = tapped()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    adapted = AdaptedTeacher(teacher, 2)
    # Four projections in each of two layers, A and B of each: 32 → 2 → 32.
    assert sum(value.numel() for value in adapted.state_dict().values()) == 4 * 2 * 2 * 2 * 32
    assert all(parameter.requires_grad for parameter in adapted.parameters())
    assert any(parameter.requires_grad for parameter in teacher.parameters()), "the teacher's own flags stay"
    optimizer = torch.optim.SGD(adapted.parameters(), lr=0.5)
    first = adapted(tokens(), Signals())
    for _ in range(2):
        optimizer.zero_grad()
        adapted(tokens(), Signals()).square().mean().backward()
        optimizer.step()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not torch.equal(adapted(tokens(), Signals()), first)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    again = AdaptedTeacher(teacher, 2)
    again.load_state_dict(adapted.state_dict())
    assert torch.equal(again(tokens(), Signals()), adapted(tokens(), Signals()))


class Look(Callback):
    """Keeps what trained."""

    state: dict[str, Tensor]

    def on_end(self, loop: Any) -> None:
        self.state = {name: value.clone() for name, value in loop.trainable.state_dict().items()}


def test_a_run_trains_student_and_adapters_and_leaves_the_teacher(tmp_path: Path) -> None:
    teacher, look = network(TEACHER, 1), Look()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    done = distilled(
        "okd", teacher=teacher, callbacks=[look], name="run", runs_dir=tmp_path, log_steps=1, clip_norm=1.0
    )
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    adapters = {name: value for name, value in look.state.items() if name.startswith("companions.")}
    assert len(adapters) == 16
    assert all(value.abs().sum() > 0 for value in adapters.values()), "B was zero, and has learnt"
    assert not any(value.shape == before["lm_head.weight"].shape for value in adapters.values())
    assert done.result.extra_parameters == sum(value.numel() for value in adapters.values()) == 2 * 4 * 2 * 8 * 32
    metrics = [record for record in read_metrics(tmp_path / "run") if record["split"] == "train"]
    assert metrics[0]["okd.drift"] == pytest.approx(0, abs=1e-6)
    assert metrics[-1]["okd.drift"] > 1e-4
    assert metrics[-1]["okd.adapted_nll"] < metrics[0]["okd.adapted_nll"]
    fresh = network(STUDENT, 2)
    assert done.student.state_dict().keys() == fresh.state_dict().keys()


def test_a_run_resumes_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    given: dict[str, Any] = {"runs_dir": tmp_path, "log_steps": 1, "checkpoint_steps": 1, "max_new_tokens": 1}
    whole = distilled("okd", name="whole", **given)
    with pytest.raises(KeyboardInterrupt):
        distilled("okd", name="stopped", callbacks=[Stop(8)], **given)
    resumed = distilled("okd", name="stopped", resume=True, **given)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_micro_batches_teach_the_same() -> None:
    whole, parts = (distilled("okd", accumulation=parts, optimizer="sgd", lr=0.1, max_new_tokens=1) for parts in (1, 3))
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, weights(parts)[name], rtol=1e-4, atol=1e-5, msg=name)


def test_classifiers_of_text_are_adapted_too() -> None:
    examples = [Example(i, prompt=f"{'good' if i % 2 else 'bad'} film {i}", label=i % 2) for i in range(48)]
    data = TextData("films", "classification", examples[:32], examples[32:40], examples[40:], ("bad", "good"))
    torch.manual_seed(0)
    teacher = create_language_model(
        "bert(layers=1, width=16, heads=2)", task="classification", vocabulary=260, num_classes=2, context=24
    ).network
    done = distilled(
        "okd",
        data=data,
        teacher=teacher,
        student="bert(layers=1, width=8, heads=2)",
        tokenizer="bytes",
        max_length=24,
        epochs=1,
    )
    assert done.result.test is not None


def test_a_teacher_that_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(SettingError, match="adapters in the teacher are for language models"):
        limbeck.distill(
            "convnet_tiny",
            "convnet_tiny",
            load_data("digits", train_limit=64),
            "okd",
            epochs=1,
            allow_weak_teacher=True,
        )
    with pytest.raises(SettingError, match="teacher: Unattentive has no linear layers in modules named"):
        distilled("okd", teacher=Unattentive(), max_new_tokens=1)


class Unattentive(nn.Module):
    """A causal model without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings, self.head = nn.Embedding(15, 8), nn.Linear(8, 15)

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embeddings(input_ids).cumsum(dim=1))
        return logits
