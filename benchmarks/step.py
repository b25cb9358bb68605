"""What limbeck's step costs beside a bare loop of the same two networks.

Both train the same student from the same teacher in one process, in turn (A B A B …), in the same precision and with the
data in memory. The bare loop is what a user would write by hand: images already augmented, normalised and on the device;
teacher without gradient; cross-entropy, KD and ICD written out; backward; SGD. limbeck's step also augments, normalises,
schedules the learning rate, sums the terms and looks for NaN. The figure is the median over rounds of the ratio of the two
times.

    python benchmarks/step.py                                # resnet20 → resnet8 at batch 64
    python benchmarks/step.py --teacher resnet56 --student resnet20 --steps 4
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from _rounds import CLASSES, MEAN, STD, Clock, Spread, check_rounds, machine, random_images
from torch import Tensor, nn

import limbeck
from limbeck.data import ImageData
from limbeck.engine.callbacks import Callback
from limbeck.taps import Tapped, find_classifier


def main() -> None:
    """Measure, and print the ratio with its spread."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    data = random_images(options.batch * options.steps)
    teacher, student = (
        limbeck.create_model(name, num_classes=CLASSES).network.to(device)
        for name in (options.teacher, options.student)
    )
    rounds = _Rounds(_bare_steps(copy.deepcopy(teacher), copy.deepcopy(student), data, options.batch, device), device)
    limbeck.distill(
        teacher,
        student,
        data,
        "icd+kd",
        callbacks=[rounds],
        epochs=options.rounds + 1,  # the first round warms both up
        batch_size=options.batch,
        device=options.device,
        log_steps=10**6,
        allow_weak_teacher=True,
    )
    _tell(options, rounds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="resnet20")
    parser.add_argument("--student", default="resnet8")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8, help="steps a round of each")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves PyTorch's own number")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    check_rounds(parser, options.rounds)
    return options


class _Rounds(Callback):
    """Times limbeck's epoch, then the same number of bare steps, and again."""

    def __init__(self, bare: Callable[[], None], device: torch.device) -> None:
        self.bare, self.clock = bare, Clock(device)
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self.started = 0.0

    def on_start(self, loop: Any) -> None:
        self.started = self.clock.now()

    def on_epoch(self, loop: Any, metrics: dict[str, float]) -> None:
        middle = self.clock.now()
        self.bare()
        end = self.clock.now()
        self.ours.append(middle - self.started)
        self.theirs.append(end - middle)
        self.started = self.clock.now()


def _bare_steps(
    teacher: nn.Module, student: nn.Module, data: ImageData, batch: int, device: torch.device
) -> Callable[[], None]:
    assert isinstance(data.train.images, Tensor)
    images = ((data.train.images.float() / 255 - MEAN) / STD).to(device)
    labels = data.train.labels.to(device)
    teacher_tapped, student_tapped = (
        Tapped(network, classifier=find_classifier(network, images[:2])) for network in (teacher.eval(), student)
    )
    width = [tapped(images[:2]).embedding.shape[1] for tapped in (student_tapped, teacher_tapped)]
    heads = nn.ModuleList(nn.Linear(size, 128) for size in width).to(device)
    log_scale = torch.ones((), device=device, requires_grad=True)
    parameters = [*student.parameters(), *heads.parameters(), log_scale]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)

    def steps() -> None:
        student.train()
        for start in range(0, len(images), batch):
            x, y = images[start : start + batch], labels[start : start + batch]
            with torch.no_grad():
                told = teacher_tapped(x)
            said = student_tapped(x)
            loss = F.cross_entropy(said.logits, y) + _kd(said.logits, told.logits)
            loss = loss + _icd(heads[0](said.embedding), heads[1](told.embedding), log_scale)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return steps


def _kd(student: Tensor, teacher: Tensor) -> Tensor:
    return 16 * F.kl_div(
        F.log_softmax(student / 4, 1), F.log_softmax(teacher / 4, 1), reduction="batchmean", log_target=True
    )


def _icd(student: Tensor, teacher: Tensor, log_scale: Tensor) -> Tensor:
    similarity = log_scale.exp() * F.normalize(student) @ F.normalize(teacher).T
    rows, columns = F.log_softmax(similarity, 1), F.log_softmax(similarity.T, 1)
    return -rows.diagonal().mean() + 0.5 * F.kl_div(rows, columns, reduction="batchmean", log_target=True)


def _tell(options: argparse.Namespace, rounds: _Rounds) -> None:
    ours, theirs = rounds.ours[1:], rounds.theirs[1:]
    ratio, facts = Spread.of_ratios(ours, theirs), machine(options.device, options.threads)
    found = {
        "pair": f"{options.teacher} → {options.student}",
        "batch": options.batch,
        "ratio": round(ratio.middle, 3),
        "quartiles": [round(ratio.low, 3), round(ratio.high, 3)],
        "limbeck_ms": round(1000 * statistics.median(ours) / options.steps, 2),
        "bare_ms": round(1000 * statistics.median(theirs) / options.steps, 2),
        "rounds": options.rounds,
        "threads": facts["threads"],
        "device": facts["device"],
        "load": facts["load"],
        "torch": torch.__version__,
    }
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for name, value in found.items():
        print(f"{name:<11} {value}")


if __name__ == "__main__":
    main()
