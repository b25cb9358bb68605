"""Run folders made by hand: what a run writes, without training one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.runs import Result

TEACHER_ACCURACY = 0.8


def make_result(objective: str, seed: int, accuracy: float, **changes: Any) -> Result:
    distilled = changes.get("teacher", "big") is not None
    test = {"count": 100, "accuracy": accuracy, "top5": 1.0, "nll": 1.0} | ({"agreement": 0.5} if distilled else {})
    values: dict[str, Any] = {
        "objective": objective,
        "student": "small",
        "teacher": "big",
        "data": "digits",
        "seed": seed,
        "epochs": 3,
        "select": "best",
        "validation_last": accuracy - 0.02,
        "validation_best": accuracy - 0.01,
        "best_epoch": 2,
        "test": test,
        "teacher_validation": 0.79 if distilled else None,
        "teacher_test": {"count": 100, "accuracy": TEACHER_ACCURACY} if distilled else None,
        "student_parameters": 1_000,
        "teacher_parameters": 200_000 if distilled else None,
        "seconds": 2.0,
        "peak_memory_mb": 10.0,
        "device": "cpu",
        "processes": 1,
        "versions": {"torch": "2.x"},
        "command": f"limbeck distill --objective '{objective}' --seed {seed}",
        "finished": "2026-01-01T00:00:00Z",
    }
    return Result(**{**values, **changes})


def write_run(folder: Path, result: Result | None, *, settings: dict[str, Any] | None = None, epochs: int = 3) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"epochs": 3, "lr": 0.1, "seed": 0} | (settings or {})))
    records: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        position = {"step": 10 * epoch, "stage": 0, "epoch": float(epoch), "seconds": float(epoch)}
        terms = {"loss": 3.0 / epoch, "ce": 2.0 / epoch, "icd.contrast": 1.0 / epoch}
        records.append({"split": "train", **position, **terms, "train_accuracy": 0.5, "icd.scale": 10.0, "lr": 0.1})
        records.append({"split": "validation", **position, "accuracy": 0.2 * epoch, "nll": 1.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result.as_dict()))
    return folder


def make_evaluation(**changes: Any) -> dict[str, Any]:
    """An evaluation of the networks that :func:`make_result` tells of; the student takes a sixth of the operations."""
    networks = {
        "teacher": {"role": "teacher", "model": "big", "method": None, "parameters": 200_000, "accuracy": 0.8},
        "icd-seed0": {"role": "student", "model": "small", "method": "icd", "parameters": 1_000, "accuracy": 0.76},
    }
    for network in networks.values():
        network |= {"count": 100, "top5": 1.0, "nll": 1.0, "agreement": None, "kl": None}
    costs = {"teacher": _cost(200_000, 60_000, 50.0), "icd-seed0": _cost(1_000, 10_000, 20.0)}
    values = {
        "schema": 2,
        "data": "digits",
        "split": "test",
        "classes": ["0", "1"],
        "command": "limbeck evaluate runs/icd-0 --teacher runs/teacher --all",
        "networks": networks,
        "cost": {"device": "cpu, 1 thread", "networks": costs, "ratios": None},
        "failures": {"transfer": "no data were named"},
        "remarks": ["a remark"],
        "versions": {"torch": "2.y"},
        "when": "2026-01-02T00:00:00Z",
    }
    return values | changes


def _cost(parameters: int, macs: int, milliseconds: float) -> dict[str, Any]:
    timed = {"repeats": 9, "low_ms": milliseconds, "high_ms": milliseconds, "images_per_second": 1.0}
    return {
        "input": [1, 8, 8],
        "parameters": parameters,
        "macs": macs,
        "bytes": 4 * parameters,
        "file_bytes": None,
        "latency": [{"batch": batch, "median_ms": milliseconds} | timed for batch in (1, 128)],
        "memory_bytes": 1,
        "allocated_bytes": None,
    }


def write_evaluation(path: Path, values: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(make_evaluation() if values is None else values), encoding="utf-8")
    return path


UNFINISHED = {
    "data": "digits",
    "teacher": "big@teacher.safetensors",
    "student": "small",
    "objective": "icd",
    "epochs": 10,
}
"""Settings of a run that make it one of a method before it has a result."""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two methods and the student alone over two seeds, one unfinished run and three damaged ones."""
    folder = tmp_path / "runs"
    for seed, (alone, icd, both) in enumerate([(0.60, 0.70, 0.72), (0.64, 0.72, 0.78)]):
        alone_result = make_result("ce()", seed, alone, teacher=None)
        write_run(folder / f"alone-{seed}", alone_result, settings={"seed": seed})
        write_run(folder / f"icd-{seed}", make_result("ce() + icd()", seed, icd), settings={"seed": seed})
        write_run(folder / f"both-{seed}", make_result("ce() + icd() + kd()", seed, both), settings={"seed": seed})
    unfinished = write_run(folder / "unfinished", None, epochs=2)
    with (unfinished / "metrics.jsonl").open("a") as file:
        file.write('{"split": "tr')  # a crash cut the last line
    damaged = write_run(folder / "damaged", None)
    (damaged / "result.json").write_text('{"objective": "ce')
    other = write_run(folder / "other", None)
    (other / "result.json").write_text('{"objective": "ce()"}')
    binary = write_run(folder / "binary", None)
    (binary / "metrics.jsonl").write_bytes(b"\xff\xfe\x00")
    return folder
