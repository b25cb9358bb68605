"""Evaluation records made by hand: what ``limbeck evaluate`` writes, without evaluating anything."""

from __future__ import annotations

import base64
import itertools
import random
import struct
import zlib
from collections.abc import Sequence
from typing import Any

NAMES = ("apple", "pear", "plum", "fig", "quince")


def png(size: int = 4) -> str:
    """Base64 of a grey PNG."""
    rows = b"".join(b"\0" + bytes((row * 60 + column * 7) % 256 for column in range(size)) for row in range(size))

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


def make_record(
    students: Sequence[str] = ("icd-seed0", "kd-seed0"), classes: Sequence[str] = NAMES, *, teacher: bool = True
) -> dict[str, Any]:
    """Every part of an evaluation, all keys of each; the same numbers each time."""
    numbers = random.Random(0)
    accuracy = {"teacher": 0.9} if teacher else {}
    accuracy |= {who: 0.8 - 0.03 * place for place, who in enumerate(students)}
    return {
        "schema": 3,
        "kind": "images",
        "data": "fruit",
        "split": "test",
        "classes": list(classes),
        "command": "limbeck evaluate runs/icd-seed0 --teacher runs/teacher --all",
        "networks": {who: _network(who, value) for who, value in accuracy.items()},
        "classification": {who: _classification(value, classes, numbers) for who, value in accuracy.items()},
        "calibration": {who: _scaled(value) for who, value in accuracy.items()},
        "fidelity": {who: _fidelity(len(classes), numbers) for who in students} if teacher else None,
        "retrieval": {
            who: {"queries": 200, "map": value / 2, "precision_at_1": value, "chance": 0.1}
            for who, value in accuracy.items()
        },
        "database": {who: [_database(metric, value) for metric in ("cosine", "l2")] for who, value in accuracy.items()},
        "distribution": {who: _distribution(value) for who, value in accuracy.items()},
        "robustness": {who: _robustness(value) for who, value in accuracy.items()},
        "transfer": {who: _transfer(value) for who, value in accuracy.items()},
        "transfer_data": "stl10",
        "cost": {
            "device": "cpu, 1 thread",
            "networks": {who: _cost(who, place) for place, who in enumerate(accuracy)},
            "ratios": {who: _ratios() for who in students} if teacher else None,
        },
        "examples": {who: [_example(place, classes) for place in range(3)] for who in students} if teacher else None,
        "embedding_map": _map(list(accuracy), classes, numbers),
        "failures": {},
        "remarks": [],
        "versions": {"torch": "2.x"},
        "when": "2026-01-01T00:00:00Z",
    }


def _network(who: str, accuracy: float) -> dict[str, Any]:
    student = who != "teacher"
    return {
        "role": "student" if student else "teacher",
        "model": "small" if student else "big",
        "method": "icd+kd" if student else None,
        "parameters": 1_442 if student else 288_874,
        "count": 200,
        "accuracy": accuracy,
        "top5": 1.0,
        "nll": 0.5,
        "agreement": 0.7 if student else None,
        "kl": 0.25 if student else None,
    }


def _classification(accuracy: float, classes: Sequence[str], numbers: random.Random) -> dict[str, Any]:
    accuracies = [min(1.0, max(0.0, round(accuracy + numbers.uniform(-0.2, 0.2), 2))) for _ in classes]
    listed = [{"name": name, "count": 40, "accuracy": share} for name, share in zip(classes, accuracies, strict=True)]
    confused = [{"label": one, "prediction": other, "count": 6} for one, other in itertools.pairwise(classes)][:20]
    counts = [[40 if row == column else 0 for column in range(len(classes))] for row in range(len(classes))]
    shares = {"top1": accuracy, "top5": 1.0, "balanced": accuracy}
    return {"count": 200, **shares, "classes": listed, "confused": confused, "confusion": counts}


def _scaled(accuracy: float) -> dict[str, Any]:
    after = _calibration(accuracy, 0.02)
    return {"raw": _calibration(accuracy, 0.08), "temperature": 1.25, "fitted_on": 50, "scaled": after}


def _calibration(accuracy: float, ece: float) -> dict[str, Any]:
    edges = [place / 15 for place in range(16)]
    bins = [
        {
            "low": low,
            "high": high,
            "count": 20 * place if place > 2 else 0,
            "confidence": (low + high) / 2 if place > 2 else None,
            "accuracy": max(0.0, (low + high) / 2 - ece) if place > 2 else None,
        }
        for place, (low, high) in enumerate(itertools.pairwise(edges))
    ]
    errors = {"ece": ece, "mce": 0.2, "ece_equal_mass": ece, "error_auroc": None}
    return {"bins": 15, "nll": 0.5, "brier": 0.3, **errors, "confidence": accuracy, "reliability": bins}


def _fidelity(classes: int, numbers: random.Random) -> dict[str, Any]:
    matrix = [
        [0.0 if one == other else round(numbers.random() / 2, 3) for other in range(classes)] for one in range(classes)
    ]
    consistency = {"batch": 64, "scale": 10.0, "invariance": 0.3, "asymmetry": 0.23, "own_teacher": 0.7}
    consistency |= {"same_structure": None}
    return {
        "count": 200,
        "agreement": 0.7,
        "agreement_where_wrong": 0.4,
        "kl": 0.25,
        "reverse_kl": 0.35,
        "retention": 0.9,
        "kept": 150,
        "lost": 30,
        "gained": 5,
        "both_wrong": 15,
        "correlation_paper_2024": {"procedure": "authors' 2024 code", "mean": 0.081, "maximum": 0.41, "matrix": None},
        "correlation_paper_2025": {"procedure": "authors' 2025 code", "mean": 0.152, "maximum": 0.8, "matrix": None},
        "correlation": {"procedure": "Pearson over all 200 samples", "mean": 0.0865, "maximum": 0.4, "matrix": matrix},
        "cka_embedding": 0.83,
        "cka_embedding_debiased": 0.81,
        "cka_stages": [
            {"student": own, "teacher": other, "cka": 0.66, "debiased": None if own == other else 0.44}
            for own in ("stages.0", "stages.1")
            for other in ("blocks.0", "stages.1")
        ],
        "consistency_logits": consistency,
        "consistency_embedding": None,
        "aligned_on": None,
    }


def _database(metric: str, accuracy: float) -> dict[str, Any]:
    figures = {"map": accuracy / 2, "top": 100, "precision": accuracy, "chance": 0.2}
    return {"metric": metric, "queries": 200, "database": 1000, **figures}


def _distribution(accuracy: float) -> dict[str, Any]:
    energy, msp = {"auroc": accuracy, "fpr95": 0.4}, {"auroc": 0.6, "fpr95": 0.7}
    return {"other": "200 images of uniform noise", "inside": 200, "outside": 200, "msp": msp, "energy": energy}


def _robustness(accuracy: float) -> dict[str, Any]:
    def kinds(names: Sequence[str]) -> list[dict[str, Any]]:
        levels = [accuracy * (1 - 0.15 * severity) for severity in range(1, 6)]
        return [{"name": name, "mean": sum(levels) / 5, "severities": levels} for name in names]

    attacks = [
        {"name": name, "budget": budget, "steps": steps, "accuracy": accuracy / (1 + budget)}
        for name, steps in (("fgsm", 1), ("pgd", 10))
        for budget in (1, 2, 4)
    ]
    return {
        "count": 200,
        "clean": accuracy,
        "mean_corruption": accuracy * 0.55,
        "relative": 0.55,
        "corruptions": kinds(("gaussian_noise", "contrast", "pixelate")),
        "attacks": attacks,
        "cifar_c": kinds(("fog", "snow")),
    }


def _transfer(accuracy: float) -> dict[str, Any]:
    logistic = {"accuracy": accuracy / 2, "setting": 0.1, "settings": [0.01, 0.1, 1.0]}
    knn = {"accuracy": accuracy / 3, "setting": 5.0, "settings": [1.0, 5.0, 20.0]}
    frozen = {"train": 90, "validation": 10, "test": 50, "logistic": logistic, "knn": knn}
    return {"frozen": frozen, "authors": {"train": 100, "test": 50, "epochs": 120, "accuracy": 0.61, "batch_norms": 3}}


def _ratios() -> dict[str, Any]:
    return {"parameters": 200.3, "macs": 89.1, "bytes": 193.9, "latency": [2.5, 18.6], "memory_bytes": 9.4}


def _cost(who: str, place: int) -> dict[str, Any]:
    scale = 89 if who == "teacher" else 1
    times = [
        {
            "batch": batch,
            "repeats": 9,
            "median_ms": ms,
            "low_ms": ms * 0.9,
            "high_ms": ms * 1.2,
            "images_per_second": 99.0,
        }
        for batch, ms in ((1, 0.4 + 0.1 * scale + 0.01 * place), (128, 12.0 * scale + place))
    ]
    return {
        "input": [1, 8, 8],
        "parameters": 1_442 * scale,
        "macs": 23_200 * scale,
        "bytes": 5_976 * scale,
        "file_bytes": None,
        "latency": times,
        "memory_bytes": 628_568 * scale,
        "allocated_bytes": None,
    }


def _example(place: int, classes: Sequence[str]) -> dict[str, Any]:
    label, other = classes[place % len(classes)], classes[(place + 1) % len(classes)]
    sure = {"student_confidence": 0.8, "teacher_confidence": 0.9}
    image = {"width": 4, "height": 4, "png": png()}
    return {"index": 17 + place, "label": label, "student": other, "teacher": label, **sure, **image}


def _map(networks: Sequence[str], classes: Sequence[str], numbers: random.Random) -> dict[str, Any]:
    shown = list(classes)[:10]
    labels = [place % len(shown) for place in range(10 * len(shown))]

    def point(label: int) -> list[float]:
        return [round(9.0 * (label % 4) + numbers.gauss(0, 2), 2), round(9.0 * (label // 4) + numbers.gauss(0, 2), 2)]

    return {
        "method": f"t-SNE of {len(labels)} samples",
        "perplexity": 30.0,
        "classes": shown,
        "labels": labels,
        "networks": {who: [point(label) for label in labels] for who in networks},
        "trustworthiness": dict.fromkeys(networks, 0.97),
    }
