"""Runs are matched to cells by what they are, and those at another protocol are kept apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from evaluations import make_record

from limbeck.config import DistillSettings, TrainSettings
from limbeck.objectives import parse_objective
from limbeck.published.measured import Measured, read_shelf
from limbeck.published.plans import Plan, plan
from limbeck.published.tables import find_table
from limbeck.runs import Result

PROTOCOL = {"data": "cifar100", "val_fraction": 0, "select": "last"}  # all else is limbeck's default


def write(folder: Path, accuracy: float, objective: str = "icd_paper", seed: int = 0, **changes: Any) -> Path:
    """A finished run of resnet32x4 -> resnet8x4, as ``limbeck distill`` leaves it."""
    taught = {"teacher": "runs/cifar100-resnet32x4", "student": "resnet8x4", "objective": objective}
    alone = objective == "ce"
    kind, own = (TrainSettings, {"model": "resnet8x4"}) if alone else (DistillSettings, taught)
    values = kind.make({**PROTOCOL, **own, "seed": seed, **changes}).model_dump(mode="json")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    (folder / "metrics.jsonl").write_text("")
    result = Result(
        objective=str(parse_objective(objective)),
        student="resnet8x4",
        teacher=None if alone else "resnet32x4",
        data="cifar100",
        seed=seed,
        epochs=changes.get("epochs", 240),
        select=values["select"],
        validation_last=None,
        validation_best=None,
        best_epoch=None,
        test={"count": 10000, "accuracy": accuracy},
        teacher_validation=None,
        teacher_test=None if alone else {"count": 10000, "accuracy": 0.794},
        student_parameters=1_233_540,
        teacher_parameters=None if alone else 7_433_860,
        seconds=1.0,
        peak_memory_mb=1.0,
        device="cpu",
        processes=1,
    )
    (folder / "result.json").write_text(json.dumps(result.as_dict()))
    return folder


def plan_of(method: str) -> Plan:
    cells = find_table("distillers_v1_cifar100_same").cells()
    return plan(next(c for c in cells if c.method == method and c.column.student == "resnet8x4"))


def measured(folder: Path, method: str = "ICD") -> Measured:
    return read_shelf([folder]).measured(plan_of(method))


def test_the_mean_is_over_seeds_and_a_seed_counts_once(tmp_path: Path) -> None:
    for name, accuracy, seed in (("a", 0.74, 0), ("b", 0.75, 1), ("again", 0.77, 1)):
        write(tmp_path / name, accuracy, seed=seed)
    found = measured(tmp_path)
    assert found.figure is not None
    assert found.figure.mean == pytest.approx(75.0)
    assert found.figure.std == pytest.approx(2**0.5)
    assert found.figure.count == 2
    assert found.teacher is not None
    assert found.teacher.mean == pytest.approx(79.4)
    assert len(found.runs) == 3
    assert found.other == {}


def test_the_same_objective_counts_however_it_is_written(tmp_path: Path) -> None:
    write(tmp_path / "a", 0.75, "kd(temperature=4) + ce + icd(variant='paper')")
    assert measured(tmp_path, "ICD+KD").figure is not None
    assert measured(tmp_path, "ICD") == Measured()


def test_limbecks_own_variant_is_not_the_papers(tmp_path: Path) -> None:
    write(tmp_path / "a", 0.75, "icd")
    shelf = read_shelf([tmp_path])
    assert shelf.measured(plan_of("ICD")) == Measured()
    assert shelf.measured(plan_of("ICD"), "icd").figure is not None


def test_the_student_alone_is_matched_by_its_network(tmp_path: Path) -> None:
    write(tmp_path / "a", 0.72, "ce")
    assert measured(tmp_path, "student alone").figure is not None
    assert measured(tmp_path, "teacher") == Measured()


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"epochs": 30}, "epochs 30, not 240"),
        ({"train_limit": 10000}, "train_limit 10000, not None"),
        ({"batch_size": 128}, "batch_size 128, not 64"),
        ({"val_fraction": 0.1}, "val_fraction 0.1, not 0"),
        ({"lr": 0.01}, "lr 0.01, not 0.05"),
        ({"select": "best"}, "select best, not last"),
        ({"augment": "none"}, "augment none, not crop=4,flip"),
        ({"ema": 0.99}, "ema 0.99, not None"),
        ({"student": "resnet8x4@weights.safetensors"}, "the student starts from weights"),
    ],
)
def test_another_protocol_is_named_and_in_no_figure(tmp_path: Path, change: dict[str, Any], differs: str) -> None:
    write(tmp_path / "paper", 0.74)
    other = write(tmp_path / "other", 0.99, seed=1, **change)
    found = measured(tmp_path)
    assert found.figure is not None
    assert (found.figure.mean, found.figure.count) == (pytest.approx(74.0), 1)
    assert differs in found.other[other]


@pytest.mark.parametrize(
    "change",
    [
        {"augment": "crop=4, flip"},
        {"milestones": [150, 180, 210]},
        {"lr": 0.05, "epochs": 240},
        {"channels_last": True, "device": "cuda", "compile": True},
        {"workers": 0, "log_steps": 1, "name": "mine"},
    ],
)
def test_what_changes_nothing_is_the_same_protocol(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path / "a", 0.74, **change)
    assert measured(tmp_path).other == {}


def test_a_run_without_settings_is_in_no_figure(tmp_path: Path) -> None:
    (write(tmp_path / "a", 0.74) / "config.yaml").unlink()
    assert measured(tmp_path).figure is None
    assert measured(tmp_path).other == {tmp_path / "a": ("its settings are missing",)}


def test_damaged_folders_are_skipped_with_a_reason_and_unfinished_ones_counted(tmp_path: Path) -> None:
    (write(tmp_path / "damaged", 0.74) / "result.json").write_text("{")
    (write(tmp_path / "unfinished", 0.74) / "result.json").unlink()
    write(tmp_path / "deep" / "er" / "fine", 0.74)
    shelf = read_shelf([tmp_path, tmp_path / "absent"])
    assert len(shelf.runs) == 1
    assert shelf.unfinished == 1
    assert set(shelf.skipped) == {tmp_path / "damaged", tmp_path / "absent"}
    assert "damaged" in shelf.skipped[tmp_path / "damaged"]


def test_a_comparisons_students_are_runs(tmp_path: Path) -> None:
    write(tmp_path / "comparison" / "icd_paper-seed0", 0.74)
    (tmp_path / "comparison" / "config.yaml").write_text("objectives: [icd_paper]\n")
    shelf = read_shelf([tmp_path, tmp_path / "comparison"])
    assert [run.name for run in shelf.runs] == ["comparison/icd_paper-seed0"]
    assert shelf.skipped == {}


PROBED = next(
    cell
    for cell in find_table("distillers_v3_transfer").cells()
    if cell.method == "DCD" and cell.column.transfer == "CIFAR-100->STL-10"
)


def evaluate(path: Path, who: str, epochs: int | None = 120, accuracy: float = 0.5, method: str = "icd_paper") -> Path:
    """An evaluation of one student of a made-up accuracy, with a probe on STL-10 by the authors' protocol or a frozen one."""
    value = make_record(students=[who], teacher=False)
    value |= dict.fromkeys(("classification", "calibration", "cost", "database", "retrieval", "robustness"))
    authors = {"train": 5000, "test": 8000, "epochs": epochs, "accuracy": accuracy, "batch_norms": 20}
    network = {"accuracy": 0.74, "parameters": 1_233_540, "model": "resnet8x4", "method": method}
    value["networks"][who] |= network
    value |= {"data": "cifar100", "transfer_data": "stl10"}
    value["transfer"] = {who: value["transfer"][who] | {"authors": authors if epochs else None}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def probed(folder: Path) -> Measured:
    return read_shelf([folder]).measured(plan(PROBED))


def student_of_the_probe(folder: Path, accuracy: float, seed: int = 0, **changes: Any) -> Path:
    run = plan(PROBED)
    found = write(folder, accuracy, run.objective or "", seed, student=run.student, **changes)
    result = json.loads((found / "result.json").read_text()) | {"student": run.student, "teacher": run.teacher}
    (found / "result.json").write_text(json.dumps(result))
    return found


def test_a_probe_is_read_from_an_evaluation_of_the_cells_run(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.61, 0.63)):
        folder = student_of_the_probe(tmp_path / f"icd-seed{seed}", 0.74, seed)
        evaluate(folder / "evaluation.json", folder.name, accuracy=accuracy)
    found = probed(tmp_path)
    assert found.figure is not None
    assert (found.figure.mean, found.figure.count) == (pytest.approx(62.0), 2)
    assert found.on == "8,000 test images of stl10"
    assert len(found.runs) == 2
    assert found.other == {}


def test_a_probe_at_another_protocol_is_named(tmp_path: Path) -> None:
    frozen, short, run = (student_of_the_probe(tmp_path / n, 0.74, s) for s, n in enumerate(("frozen", "short", "run")))
    evaluate(frozen / "evaluation.json", "frozen", epochs=None)
    evaluate(short / "evaluation.json", "short", epochs=30)
    other = student_of_the_probe(tmp_path / "other", 0.74, 3, epochs=30)
    evaluate(other / "evaluation.json", "other")
    alien = evaluate(tmp_path / "deep" / "evaluation.json", "alien", method=plan(PROBED).objective or "")
    value = json.loads(alien.read_text())
    value["networks"]["alien"]["accuracy"] = 0.1  # of no run here
    alien.write_text(json.dumps(value))
    damaged = tmp_path / "damaged" / "evaluation.json"
    damaged.parent.mkdir()
    damaged.write_text('{"schema": 2')
    shelf = read_shelf([tmp_path])
    found = shelf.measured(plan(PROBED))
    assert found.figure is None
    assert found.other[frozen] == ("a frozen network, not the authors' protocol",)
    assert found.other[short] == ("30 epochs of the probe, not 120",)
    assert "epochs 30, not 240" in found.other[other]
    assert found.other[alien] == ("its run is not in these folders, so its protocol is not known",)
    assert run not in found.other
    assert list(shelf.skipped) == [damaged]
    assert "evaluation.json is damaged" in shelf.skipped[damaged]
