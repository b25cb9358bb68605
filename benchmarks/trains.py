"""Every objective on real images, for pairs of one family and across families, at the size of two CPU cores.

    python benchmarks/trains.py --data-dir DATA --output results/objectives-cifar100-subset

It asks whether each objective trains, not which is best: ten classes of CIFAR-100, 50 training and 50 test images each,
teachers of a few epochs, students of two, one seed. For each run it notes the loss of the first and of the last quarter of
the steps, and the test accuracy beside chance and the same student alone. Runs that are done are not repeated: a second
call goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import limbeck
from limbeck.data import ImageData, ImageSplit, load_data
from limbeck.engine.interrupt import Interrupted
from limbeck.errors import LimbeckError
from limbeck.files import atomic_path
from limbeck.machine import device_name, versions
from limbeck.objectives import objectives, presets

CLASSES, IMAGES = 10, 50
# Smaller networks of the families in the benchmark's 13 pairs: two pairs of one family, three across.
PAIRS = (
    ("resnet20", "resnet8"),
    ("wrn_16_2", "wrn_16_1"),
    ("resnet20", "shufflenetv1"),
    ("wrn_16_2", "shufflenetv2"),
    ("vgg8", "mobilenetv2_half"),
)


def subset(data_dir: Path | None) -> ImageData:
    """The first ten classes, 50 images of each for training and for testing."""
    data = load_data("cifar100", data_dir=data_dir, val_fraction=0)
    assert data.test is not None
    return replace(
        data,
        name=f"cifar100, {CLASSES} classes",
        train=_few(data.train),
        val=None,
        test=_few(data.test),
        classes=data.classes[:CLASSES],
    )


def _few(split: ImageSplit) -> ImageSplit:
    rows = [(split.labels == label).nonzero().flatten()[:IMAGES] for label in range(CLASSES)]
    return split.subset(torch.cat(rows))


def chosen() -> dict[str, str]:
    """The first preset of each registered objective: a first stage has one epoch, and no weight rises over the epochs."""
    found = {}
    for name, cls in objectives().items():
        text = presets().get(name) or cls.presets[next(iter(cls.presets))]
        short = {key: value for key, value in {"init_epochs": 1, "warmup_epochs": 0}.items() if cls.defaults().get(key)}
        found[name] = text.replace(f"{name}(", f"{name}({''.join(f'{key}={value}, ' for key, value in short.items())}")
    found["fitnet, two stages"] = "ce + kd(temperature=4) + 100*fitnet(init_epochs=1)"
    return found


class Losses(limbeck.Callback):
    """The loss of every logged step of the last stage."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
        if loop.position.stage == len(loop.stages) - 1:
            self.values.append(metrics["loss"])


def learn(
    data: ImageData, teacher: torch.nn.Module | None, student: str, objective: str, epochs: int
) -> dict[str, Any]:
    """Train a student and say what came of it."""
    torch.manual_seed(0)
    network = limbeck.create_model(student, num_classes=CLASSES).network
    losses, started = Losses(), time.perf_counter()
    settings: dict[str, Any] = {"epochs": epochs, "batch_size": 16, "log_steps": 1, "lr": 0.02, "device": "cpu"}
    if teacher is None:
        done = limbeck.train(network, data, callbacks=[losses], **settings)
    else:
        settings |= {"allow_weak_teacher": True}
        done = limbeck.distill(teacher, network, data, objective, callbacks=[losses], **settings)
    quarter = max(1, len(losses.values) // 4)
    assert done.result.test is not None
    return {
        "objective": done.result.objective,
        "first": statistics.mean(losses.values[:quarter]),
        "last": statistics.mean(losses.values[-quarter:]),
        "accuracy": done.result.test["accuracy"],
        "seconds": round(time.perf_counter() - started, 1),
    }


def pair_results(data: ImageData, teacher_name: str, student: str, done: dict[str, Any], keep: Any) -> None:
    """Fill in the runs of one pair that are not there yet."""
    torch.manual_seed(1)
    teacher = limbeck.create_model(teacher_name, num_classes=CLASSES).network
    trained = limbeck.train(teacher, data, epochs=10, batch_size=16, lr=0.05, schedule="cosine", device="cpu")
    assert trained.result.test is not None
    done.setdefault("teacher", {"accuracy": trained.result.test["accuracy"]})
    for name, text in {"alone": "ce", **chosen()}.items():
        if name in done:
            continue
        try:
            done[name] = learn(data, None if name == "alone" else trained.student, student, text, epochs=2)
        except Interrupted:
            raise
        except LimbeckError as error:
            done[name] = {"objective": text, "refused": str(error)}
        print(f"{teacher_name} -> {student}  {name}: {done[name]}", flush=True)
        keep()


def table(results: dict[str, Any]) -> str:
    """Markdown: a row for each objective, a column for each pair: accuracy, or why there is none."""
    pairs = list(results["pairs"])
    names = list(dict.fromkeys(name for pair in pairs for name in results["pairs"][pair]))
    lines = ["| | " + " | ".join(pairs) + " |", "|---" * (len(pairs) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(_cell(results["pairs"][p].get(name)) for p in pairs) + " |" for name in names]
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    if "refused" in found:
        return "refused"
    if "first" not in found:
        return f"{found['accuracy']:.1%}"
    falls = "" if found["last"] < found["first"] else ", **loss does not fall**"
    chance = "" if found["accuracy"] > 1 / CLASSES else ", **not above chance**"
    return f"{found['accuracy']:.1%} ({found['first']:.3g} to {found['last']:.3g}){falls}{chance}"


def main() -> None:
    """Run what is missing, and write ``results.json`` and ``table.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=None, help="where CIFAR-100 is, or is downloaded to")
    parser.add_argument("--output", type=Path, required=True, help="folder for results.json and table.md")
    parser.add_argument("--pairs", nargs="*", default=["->".join(pair) for pair in PAIRS], help="TEACHER->STUDENT")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"pairs": {}}
    results |= {"versions": versions(), "device": device_name(torch.device("cpu")), "machine": platform.machine()}

    def keep() -> None:
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n")

    data = subset(arguments.data_dir)
    for pair in arguments.pairs:
        teacher, _, student = pair.partition("->")
        pair_results(data, teacher.strip(), student.strip(), results["pairs"].setdefault(pair, {}), keep)
    (arguments.output / "table.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
