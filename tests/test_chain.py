"""Chains of assistants: each learns from the one before, and the student from the last or from all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import limbeck
from limbeck.data import ImageData, load_data
from limbeck.errors import RunFolderError, SettingError

SETTINGS = {"epochs": 1, "allow_weak_teacher": True, "objective": "kd"}


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data("digits", train_limit=160, test_limit=60)


@pytest.fixture
def teacher(data: ImageData, tmp_path: Path) -> str:
    limbeck.train("convnet(widths=[8, 16])", data, epochs=1, runs_dir=tmp_path, name="teacher")
    return str(tmp_path / "teacher")


def weights(network: nn.Module) -> list[torch.Tensor]:
    return [value.float() for value in network.state_dict().values()]


def test_a_chain_is_its_links_one_after_the_other(teacher: str, data: ImageData, tmp_path: Path) -> None:
    options = SETTINGS | {"runs_dir": tmp_path, "name": "student"}
    names = ["convnet(widths=[4, 8])", "convnet(widths=[4, 4])"]
    found = limbeck.distill(teacher, "convnet(widths=[2, 4])", data, assistants=names, **options)
    # The assistants' seeds follow the student's.
    first = limbeck.distill(teacher, names[0], data, seed=1, **SETTINGS)
    second = limbeck.distill(first.student, names[1], data, seed=2, **SETTINGS)
    last = limbeck.distill(second.student, "convnet(widths=[2, 4])", data, **SETTINGS)
    assert all(
        torch.equal(one, other) for one, other in zip(weights(found.student), weights(last.student), strict=True)
    )
    home = tmp_path / "student-assistants"
    assert sorted(path.name.split("-")[0] for path in home.iterdir()) == ["1", "2"]
    in_memory = limbeck.distill(teacher, "convnet(widths=[2, 4])", data, assistants=names, **SETTINGS)
    assert in_memory.folder is None
    assert in_memory.result.test == found.result.test

    with pytest.raises(RunFolderError, match="exists"):
        limbeck.distill(teacher, "convnet(widths=[2, 4])", data, assistants=names, **options)
    stamps = {path: path.stat().st_mtime_ns for path in home.glob("*/result.json")}
    again = limbeck.distill(teacher, "convnet(widths=[2, 4])", data, assistants=names, resume=True, **options)
    assert again.result.test == found.result.test
    assert stamps == {path: path.stat().st_mtime_ns for path in home.glob("*/result.json")}


def test_teacher_and_assistants_by_a_rule(teacher: str, data: ImageData, tmp_path: Path) -> None:
    options = SETTINGS | {"runs_dir": tmp_path, "name": "student"}
    found = limbeck.distill(
        teacher,
        "convnet(widths=[2, 4])",
        data,
        assistants=["convnet(widths=[4, 8])"],
        assistant_objective="ce + 0.5*kd()",
        taught_by="routed(pacing=0)",
        **options,
    )
    assistant = next((tmp_path / "student-assistants").iterdir())
    assert found.result.teacher == "routed(convnet(widths=[4, 8]), convnet(widths=[8, 16]), pacing=0)"
    assert found.folder is not None
    told = yaml.safe_load((found.folder / "config.yaml").read_text())
    assert told["teacher"] == f"routed({assistant}, {teacher}, pacing=0)"
    assert "0.5*kd()" in (assistant / "config.yaml").read_text()


def test_generations_of_one_network(data: ImageData) -> None:
    """Born again: every generation is as large as its teacher."""
    first = limbeck.train("convnet_tiny", data, epochs=1).student
    found = limbeck.distill(first, "convnet_tiny", data, assistants=["convnet_tiny", "convnet_tiny"], **SETTINGS)
    assert found.result.teacher_parameters == found.result.student_parameters


def test_generations_start_from_different_weights(data: ImageData) -> None:
    class First(limbeck.Callback):
        def __init__(self) -> None:
            self.seen: list[list[torch.Tensor]] = []

        def on_start(self, loop: Any) -> None:
            self.seen.append([value.clone() for value in weights(loop.trainable.student.network)])

    watch, options = First(), SETTINGS | {"seed": 3}
    teacher = limbeck.train("convnet_tiny", data, epochs=1, callbacks=[watch]).student
    limbeck.distill(teacher, "convnet_tiny", data, assistants=["convnet_tiny"] * 2, callbacks=[watch], **options)
    assert len({tuple(start[0].flatten().tolist()) for start in watch.seen}) == 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"assistants": ["convnet(widths=[16, 32])"]}, r"\[16, 32\]\) has [\d,]+ parameters, more than the"),
        ({"assistants": ["convnet(widths=[2, 2])", "convnet_tiny"]}, "from large to small"),
        ({"assistants": ["convnet_tiny"], "taught_by": "rooted"}, "did you mean 'routed'"),
        ({"assistants": ["convnet_tiny"], "taught_by": "routed(pace=1)"}, "did you mean 'pacing'"),
        ({"assistants": ["convnt_tiny"]}, "did you mean 'convnet_tiny'"),
    ],
)
def test_what_is_refused_before_anything_is_trained(
    options: dict[str, object], reason: str, teacher: str, data: ImageData, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SettingError, match=reason):
        limbeck.distill(teacher, "convnet_tiny", data, runs_dir=tmp_path, name="new", **(SETTINGS | options))
    assert sorted(tmp_path.iterdir()) == before


def test_a_loader_tells_nothing_of_assistants(data: ImageData) -> None:
    images = torch.randn(8, 1, 8, 8)
    loader = DataLoader(TensorDataset(images, torch.arange(8)), batch_size=4)
    own = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(SettingError, match="a loader tells no classes"):
        limbeck.distill(
            own, nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), loader, assistants=["convnet_tiny"], **SETTINGS
        )


def test_a_combination_has_no_assistants(data: ImageData, teacher: str) -> None:
    with pytest.raises(SettingError, match="learns from one teacher"):
        limbeck.distill(f"mean({teacher}, {teacher})", "convnet_tiny", data, assistants=["convnet_tiny"], **SETTINGS)
