"""Methods that train in stages of their own, or put another classifier in the place of the student's."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import limbeck
from limbeck.cli import main
from limbeck.config import DistillSettings
from limbeck.data import ImageData, load_data
from limbeck.distillation import run
from limbeck.engine.callbacks import Callback
from limbeck.engine.checkpoint import load_checkpoint
from limbeck.errors import LimbeckError, SettingError, SignalError
from limbeck.heads import Projected
from limbeck.job import Distilled, job_of
from limbeck.models import create_model
from limbeck.networks import open_network, read_card, resolve
from limbeck.signals import Batch
from tests.engine.networks import small
from tests.engine.test_resume import KillAt, records

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data("digits", train_limit=128, test_limit=60)


def network(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return create_model(name, num_classes=10, in_channels=1).network


def distil(data: ImageData, objective: str, **settings: Any) -> Distilled:
    teacher = settings.pop("teacher", None) or network("convnet(widths=[12, 20])", 7)
    student = settings.pop("student", None) or network("convnet_tiny", 0)
    defaults = {"epochs": 1, "batch_size": 32, "allow_weak_teacher": True}
    return limbeck.distill(teacher, student, data, objective, **{**defaults, **settings})


def state_of(module: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same(one: State, two: State) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


class Watch(Callback):
    """The student and the objectives of all stages at the start and after each epoch, and the terms that were logged."""

    def __init__(self) -> None:
        self.students: list[State] = []
        self.objectives: list[State] = []
        self.modes: list[tuple[bool, bool]] = []
        self.terms: list[set[str]] = []
        self.rates: list[float] = []

    def _look(self, loop: Any) -> None:
        self.students.append(state_of(loop.trainable.student.network))
        self.objectives.append(state_of(loop.trainable.objectives))

    def on_start(self, loop: Any) -> None:
        self._look(loop)

    def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
        self.terms.append(set(metrics) - {"loss", "lr", "train_accuracy"})
        self.rates.append(metrics["lr"])
        self.modes.append((loop.trainable.student.training, loop.trainable.objective.training))

    def on_epoch(self, loop: Any, metrics: dict[str, float]) -> None:
        self._look(loop)


# -- stages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "teacher", "first"),
    [
        ("ce + 2*ab(init_epochs=2)", "convnet(widths=[12, 20])", "ab"),
        ("ce + 100*fitnet(init_epochs=2)", "convnet(widths=[12, 20])", "fitnet"),
    ],
)
def test_a_method_with_a_first_stage_trains_in_it_alone(
    data: ImageData, objective: str, teacher: str, first: str
) -> None:
    watch = Watch()
    done = distil(data, objective, teacher=network(teacher, 7), callbacks=[watch], log_steps=100)
    assert watch.terms == [{first}, {first}, {"ce"}]
    start, one, two, end = watch.students
    assert not same(start, one)
    assert not same(one, two)
    # Nothing of the first stage reaches the classifier.
    assert torch.equal(start["classifier.weight"], two["classifier.weight"])
    assert not torch.equal(two["classifier.weight"], end["classifier.weight"])
    assert not same(watch.objectives[0], watch.objectives[2])
    assert same(watch.objectives[2], watch.objectives[3])
    assert done.result.objective == str(limbeck.parse_objective(objective))


def test_factor_transfer_trains_the_paraphraser_then_the_student(data: ImageData) -> None:
    watch = Watch()
    distil(data, "ce + 200*ft(init_epochs=1, init_lr=0.02)", callbacks=[watch], log_steps=100)
    assert watch.terms == [{"paraphraser"}, {"ce", "ft"}]
    assert watch.rates == [0.02, 0.05]
    assert watch.modes[0][0] is False  # the student's batch norm rests, too
    start, first, end = watch.students
    assert same(start, first)
    assert not same(first, end)
    begin, one, two = watch.objectives
    paraphraser = [name for name in begin if name.startswith("0.")]
    translator = [name for name in begin if not name.startswith("0.")]
    assert paraphraser
    assert translator
    assert not any(torch.equal(begin[name], one[name]) for name in paraphraser)
    assert all(torch.equal(one[name], two[name]) for name in paraphraser)
    assert all(torch.equal(begin[name], one[name]) for name in translator)
    assert not all(torch.equal(one[name], two[name]) for name in translator)


def test_fsp_trains_first_between_networks_of_one_family(data: ImageData) -> None:
    watch = Watch()
    # The digits are too few for eight-pixel ResNets to teach; what trains when is what counts here.
    distil(
        data,
        "ce + 50*fsp(init_epochs=1)",
        teacher=network("resnet14", 7),
        student=network("resnet8", 0),
        callbacks=[watch],
        log_steps=100,
    )
    assert watch.terms == [{"fsp"}, {"ce"}]
    start, first, end = watch.students
    assert not torch.equal(start["conv1.weight"], first["conv1.weight"])
    assert torch.equal(start["fc.weight"], first["fc.weight"])
    assert not same(first, end)


def test_a_recipes_own_stages_come_before(data: ImageData) -> None:
    watch = Watch()
    stages = [{"objective": "kd()", "epochs": 1, "trains": ["student"], "lr": 0.03}]
    distil(data, "ce + ab(init_epochs=1)", stages=stages, callbacks=[watch], log_steps=100)
    assert watch.terms == [{"kd"}, {"ab"}, {"ce"}]
    assert watch.rates == [0.03, 0.05, 0.05]


# -- resuming ----------------------------------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {
    "teacher": "convnet(widths=[12, 20])",
    "student": "tests.engine.test_stages_of_objectives:learner",
    "allow_weak_teacher": True,
    "train_limit": 192,
    "epochs": 1,
    "batch_size": 32,
    "checkpoint_steps": 2,
    "log_steps": 1,
    "augment": "crop=1",
}


def learner(*, num_classes: int, in_channels: int) -> nn.Module:
    return create_model("convnet_tiny", num_classes=num_classes, in_channels=in_channels).network


def settings(folder: Path, **changes: Any) -> DistillSettings:
    return DistillSettings.make({**SETTINGS, "runs_dir": folder, "name": "run", **changes})


def train_and_die(folder: Path, step: int, objective: str) -> None:
    torch.set_num_threads(1)
    run(job_of(settings(folder, objective=objective)), callbacks=[KillAt(step)])


# 5 steps an epoch: inside the first stage, the second and the main one; crd draws from its banks in every step.
@pytest.mark.parametrize(
    ("objective", "step"),
    [
        ("ce + ft(init_epochs=1) + ab(init_epochs=1)", 3),
        pytest.param("ce + ft(init_epochs=1) + ab(init_epochs=1)", 8, marks=pytest.mark.slow),
        pytest.param("ce + ft(init_epochs=1) + ab(init_epochs=1)", 12, marks=pytest.mark.slow),
        pytest.param("ce + 0.8*crd(negatives=20, dim=8)", 3, marks=pytest.mark.slow),
        pytest.param("simkd()", 3, marks=pytest.mark.slow),
    ],
)
def test_killed_in_a_stage_and_resumed_is_bit_identical(tmp_path: Path, server: Any, objective: str, step: int) -> None:
    torch.set_num_threads(1)
    run(job_of(settings(tmp_path / "whole", objective=objective)))
    child = server.Process(target=train_and_die, args=(tmp_path / "cut", step, objective))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    run(job_of(settings(tmp_path / "cut", objective=objective, resume=True)))
    whole, cut = tmp_path / "whole" / "run", tmp_path / "cut" / "run"
    assert same(load_file(whole / "student.safetensors"), load_file(cut / "student.safetensors"))
    assert records(whole) == records(cut)
    ends = [
        load_checkpoint(folder / "checkpoints" / "last.pt")["learners"]["student"]["model"] for folder in (whole, cut)
    ]
    assert same(*ends)


def test_the_banks_are_in_the_checkpoint(data: ImageData, tmp_path: Path) -> None:
    watch = Watch()
    objective = "ce + 0.8*crd(negatives=20, dim=8)"
    distil(data, objective, name="crd", runs_dir=tmp_path, callbacks=[watch])
    saved = load_checkpoint(tmp_path / "crd" / "checkpoints" / "last.pt")["learners"]["student"]["model"]
    for bank in ("student_bank", "teacher_bank"):
        name = f"0.parts.1.{bank}"
        assert saved[f"objectives.{name}"].shape == (128, 8)
        assert torch.equal(saved[f"objectives.{name}"], watch.objectives[-1][name])
        renewed = (watch.objectives[0][name] != watch.objectives[-1][name]).any(dim=1)
        assert bool(renewed.all())  # every sample was seen in the epoch
    assert not any("bank" in name for name in load_file(tmp_path / "crd" / "student.safetensors"))


# -- a new classifier --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def projected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Distilled, nn.Module, Path]:
    folder = tmp_path_factory.mktemp("simkd")
    torch.manual_seed(0)
    teacher = limbeck.train("convnet(widths=[12, 20])", load_data("digits"), epochs=12, select="last").student
    done = limbeck.distill(teacher, "convnet_tiny", "digits", "simkd", epochs=10, name="simkd", runs_dir=folder)
    return done, teacher, folder


def test_the_finished_student_ends_in_the_teachers_classifier(
    projected: tuple[Distilled, nn.Module, Path],
) -> None:
    done, teacher, _ = projected
    assert isinstance(done.student, Projected)
    head: Any = done.student.head
    inner: Any = teacher
    assert torch.equal(head.classifier.weight, inner.classifier.weight)
    assert torch.equal(head.classifier.bias, inner.classifier.bias)
    assert done.result.student_parameters == sum(parameter.numel() for parameter in done.student.parameters())
    assert done.result.student_parameters > 1442
    assert done.result.test is not None
    assert done.result.test["accuracy"] > 0.3  # guessing gives 0.1; more epochs give more
    with torch.no_grad():
        assert done.student(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_the_file_makes_the_same_student_again(projected: tuple[Distilled, nn.Module, Path]) -> None:
    done, _, folder = projected
    file = folder / "simkd" / "student.safetensors"
    assert read_card(file)["model"].startswith("projected:student(network='convnet_tiny', path='stages.1', ")
    images = torch.randint(0, 256, (5, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    floats = images / 255
    with torch.no_grad():
        expected = done.student(floats)
        created = create_model(resolve(str(file)), num_classes=10, in_channels=1)
        assert torch.equal(created.network.eval()(floats), expected)
        opened = open_network(
            str(folder / "simkd"),
            who="student",
            data=load_data("digits"),
            probe=Batch(images, torch.zeros(5, dtype=torch.int64)),
            device=torch.device("cpu"),
            classifier=None,
        )
        assert torch.equal(opened.tapped.eval()(floats).logits, expected)
    assert opened.tapped.classifier == "head.classifier"
    assert opened.parameters == done.result.student_parameters


def test_evaluate_and_export_take_it(
    projected: tuple[Distilled, nn.Module, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done, _, folder = projected
    assert done.result.test is not None
    capsys.readouterr()
    assert main(["evaluate", str(folder / "simkd"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["networks"]["simkd"]
    assert found["accuracy"] == pytest.approx(done.result.test["accuracy"])
    words = ["export", str(folder / "simkd"), "--output", str(tmp_path / "out"), "--json"]
    assert main([*words, "--to", "safetensors", "--to", "torch"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [file["format"] for file in files] == ["safetensors", "torch"]
    assert all(file["difference"] < 1e-5 for file in files)


def test_it_can_teach_and_be_trained_on(projected: tuple[Distilled, nn.Module, Path], data: ImageData) -> None:
    done, _, _ = projected
    before = state_of(done.student)
    again = distil(data, "icd+kd", teacher=done.student)
    assert same(before, state_of(done.student))
    assert again.result.teacher_validation is not None


def test_the_best_weights_are_those_of_the_trunk_and_the_projector(data: ImageData) -> None:
    watch = Watch()
    done = distil(data, "simkd()", epochs=2, callbacks=[watch], select="best")
    best = watch.students[done.result.best_epoch or 0]
    inner: Any = done.student
    # The student's own classifier is gone.
    trunk = {name: value for name, value in best.items() if not name.startswith("classifier.")}
    assert len(trunk) == len(best) - 2
    assert same(trunk, state_of(inner.network))
    head = {name.removeprefix("0.parts.0.head."): value for name, value in watch.objectives[-1].items()}
    if done.result.best_epoch == 2:
        assert same(head, state_of(inner.head))


def test_a_moving_average_of_a_student_with_a_new_classifier_is_refused(data: ImageData) -> None:
    with pytest.raises(
        SettingError, match=r"ema averages the student alone, and 'simkd\(\)' gives it a new classifier"
    ):
        distil(data, "simkd()", ema=0.9)


def test_a_network_without_such_a_map_is_refused(data: ImageData) -> None:
    plain = small(num_classes=10, in_channels=1)
    with pytest.raises(SignalError, match=r"simkd\(\) needs the student's embedding_map: no map was found"):
        distil(data, "simkd()", student=plain)
    with pytest.raises(SignalError, match=r"simkd\(\) needs the teacher's embedding_map: no map was found"):
        distil(data, "simkd()", teacher=plain)


# -- what is compared with what ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "change", "sentence"),
    [
        (
            "ce + fsp(init_epochs=1)",
            {},
            r"fsp\(init_epochs=1\) needs the teacher's stem: the end of its first convolution is not known",
        ),
        (
            "ce + fsp(init_epochs=1)",
            {"teacher": "resnet8x4", "student": "resnet8"},
            r"fsp\(init_epochs=1\) has no projection: the student's features must have as many channels as the teacher's, and "
            "at 'layer1' they have 16 and 64",
        ),
        (
            "ce + ofd()",
            {"student": "flat"},
            r"ofd\(\) needs the student's preactivations: name the layers with 'taps'",
        ),
        (
            "ce + fitnet(hint=3)",
            {},
            "takes its hint from matched stage 3, and there are 2: 1 is stages.0, 2 is stages.1",
        ),
        ("ab()", {}, "is trained in a stage of its own only, and nothing is left for the main one"),
        ("ce + ab(init_epochs=0)", {"batch_size": 1}, "it needs at least 2, got 1"),
        ("ce + ft(init_epochs=1)", {"accumulation": 2}, "accumulation is 2"),
        (
            "ce + at()",
            {"student": "resnet8", "taps": {"layer1": "stages.5"}},
            r"has no module 'stages\.5'",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_any_step(
    data: ImageData, tmp_path: Path, objective: str, change: dict[str, Any], sentence: str
) -> None:
    networks = {
        who: _flat() if name == "flat" else network(name, 0)
        for who, name in change.items()
        if who in ("teacher", "student")
    }
    watch = Watch()
    with pytest.raises(LimbeckError, match=sentence):
        distil(data, objective, **{**change, **networks}, name="bad", runs_dir=tmp_path, callbacks=[watch])
    assert watch.students == []
    assert not (tmp_path / "bad").exists()


def _flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def test_the_lines_say_what_is_compared(data: ImageData, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="limbeck")
    distil(data, "ce + at()", teacher=network("convnet(widths=[12, 16, 20])", 7))
    first = next(number for number, line in enumerate(caplog.messages) if line.startswith("taps"))
    assert caplog.messages[first : first + 3] == [
        "taps        stages.0 (8×8×8) with the teacher's stages.0 (12×8×8)",
        "            stages.1 (16×4×4) with the teacher's stages.1 (16×4×4)",
        "            no partner for the teacher's stages.2 (20×2×2)",
    ]
    caplog.clear()
    distil(data, "kd")
    assert not any(line.startswith("taps") for line in caplog.messages)


def test_named_taps_are_trained_on(data: ImageData) -> None:
    watch = Watch()
    distil(data, "ce + at()", taps={"stages.1.2:input": "stages.0"}, callbacks=[watch], log_steps=100)
    assert watch.terms == [{"ce", "at"}]
    assert not same(watch.students[0], watch.students[-1])
