"""limbeck's step for CE + KD beside the loops and libraries that others would use for it.

All train the same student from the same teacher on the same random images of CIFAR's shape, with the same losses
(0.1 CE + 0.9 · 4² KL at temperature 4), optimizer, batch and number of threads, in fp32 unless a name says otherwise:

- limbeck: as it comes in a long training, with the memory order that it measures and chooses; then with each setting named;
  "cached" reads the teacher's logits of two views of each sample from a teacher cache, which was written before;
- plain: the loop of public KD code: PIL images, torchvision's crop and flip, a DataLoader with workers, ``.item()`` in each
  step for the meters;
- bare: the same networks and losses on images that are ready on the device;
- torchdistill: its DistillationBox and KDLoss, in the loop of its image classification example;
- timm: its LogitDistillationTask, in the shortest loop around it. It and torchdistill get the plain loop's images.

Each is a process of its own, so that neither its caches, threads nor memory are another's, and all take turns on an otherwise
idle machine: a turn of each is a round (A B C … A B C …), the first round is left out, and every figure is the median over
rounds of the ratio of two times in a round. Setting up is not timed, nor is the start of a loader's workers, which live on
between turns. Peak memory is that of the whole process without a loader's workers; all import limbeck for its networks.

    pip install torchdistill==1.1.5 timm torchvision
    python benchmarks/beside.py --threads 1
    python benchmarks/beside.py --pairs "resnet56->resnet20" --compile --minutes 8 --json beside.json
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from _rounds import (
    CLASSES,
    EPOCHS,
    MEAN,
    STD,
    Bar,
    Paced,
    Spread,
    Timed,
    Turns,
    Way,
    add_common_options,
    check_rounds,
    has_bf16,
    machine,
    print_bars,
    print_facts,
    print_table,
    random_images,
    take_turns,
    write_json,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

PAIRS = ("resnet56->resnet20", "resnet32x4->resnet8x4")
TEMPERATURE, CE_WEIGHT = 4.0, 0.1  # limbeck's preset kd: 0.1*ce + 0.9*kd(temperature=4)
OURS, PLAIN, BARE = "limbeck", "plain", "bare"
CACHED, COMPILED, BF16 = "limbeck, cached", "limbeck, compiled", "limbeck, channels last, bf16"
# Where the CPU has bfloat16 instructions; other pairs have the easier bar.
MOST_OF_PLAIN_IN_BF16 = {"resnet56->resnet20": 0.40}
SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}


@dataclass(frozen=True)
class Pair:
    """What is trained, and how much in a turn."""

    teacher: str
    student: str
    batch: int
    steps: int
    workers: int
    device: str

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """The same teacher in eval mode and student in every process."""
        import limbeck

        torch.manual_seed(0)
        teacher, student = (
            limbeck.create_model(name, num_classes=CLASSES).network.to(self.device)
            for name in (self.teacher, self.student)
        )
        return teacher.eval(), student.train()

    @property
    def samples(self) -> int:
        return self.batch * self.steps


def main() -> None:
    """Measure each pair, print the tables and bars, and write the JSON file."""
    options = _options()
    facts = machine(options.device, options.threads)
    print_facts(facts)
    found = []
    for text in options.pairs:
        teacher, student = text.split("->")
        pair = Pair(teacher, student, options.batch, options.steps, options.workers, options.device)
        ways = take_turns(_ways(pair, options), options)
        bars = _bars(text, ways)
        _tell(text, pair, ways)
        print_bars(bars)
        found.append(
            {"pair": text, "ways": [way.as_dict() for way in ways.values()], "bars": [bar.as_dict() for bar in bars]}
        )
        write_json(options.json, {"machine": facts, "options": vars(options), "pairs": found})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), help='quoted, as in "teacher->student"')
    parser.add_argument("--workers", type=int, default=2, help="of the loops that load images as PIL does")
    parser.add_argument("--compile", action="store_true", help="limbeck with compile=True too; a minute more")
    add_common_options(parser, steps=2, rounds=9, minutes=3.5)
    options = parser.parse_args()
    check_rounds(parser, options.rounds)
    return options


def _ways(pair: Pair, options: argparse.Namespace) -> list[Way]:
    ours: dict[str, dict[str, Any]] = {
        OURS: {},
        "limbeck, contiguous": {"channels_last": False},
        "limbeck, channels last": {"channels_last": True},
        CACHED: {"views": 2},
    }
    if options.compile:
        ours[COMPILED] = {"compile": True}
    if has_bf16():
        ours[BF16] = {"channels_last": True, "precision": "bf16"}
        if options.compile:
            ours[f"{BF16}, compiled"] = {"channels_last": True, "precision": "bf16", "compile": True}
        ours[f"{CACHED}, bf16"] = {"views": 2, "channels_last": True, "precision": "bf16"}
    ways = [
        Way(name, _limbeck, {"pair": pair, "cached": name.startswith(CACHED), "settings": settings}, pair.samples)
        for name, settings in ours.items()
    ]
    others: dict[str, Callable[..., None]] = {PLAIN: _plain, BARE: _bare}
    for library, work in {"torchdistill": _torchdistill, "timm": _timm}.items():
        if importlib.util.find_spec(library) is None:
            print(f"{library} is not installed and left out: pip install {library}", flush=True)
        else:
            others[library] = work
    return ways + [Way(name, work, {"pair": pair}, pair.samples) for name, work in others.items()]


# -- the ways ----------------------------------------------------------------------------------------------------------


def _limbeck(turns: Turns, pair: Pair, cached: bool, settings: dict[str, Any]) -> None:
    import limbeck

    teacher, student = pair.networks()
    with tempfile.TemporaryDirectory() as folder:
        limbeck.distill(
            teacher,
            student,
            random_images(pair.samples),
            "kd",
            callbacks=[Paced(turns)],
            epochs=EPOCHS,
            batch_size=pair.batch,
            device=torch.device(pair.device).type,
            allow_weak_teacher=True,
            **settings,
            **({"teacher_cache": folder} if cached else {}),
        )


def _plain(turns: Turns, pair: Pair) -> None:
    teacher, student = pair.networks()
    optimizer = torch.optim.SGD(student.parameters(), **SGD)
    loader = _loader(pair)
    for _ in turns:
        losses, correct, count = 0.0, 0.0, 0
        for images, labels in loader:
            images, labels = images.to(pair.device), labels.to(pair.device)
            logits = student(images)
            with torch.no_grad():
                told = teacher(images)
            loss = _loss(logits, told, labels)
            losses += loss.item() * len(labels)
            correct += (logits.argmax(1) == labels).sum().item()
            count += len(labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _bare(turns: Turns, pair: Pair) -> None:
    teacher, student = pair.networks()
    optimizer = torch.optim.SGD(student.parameters(), **SGD)
    split = random_images(pair.samples).train
    assert isinstance(split.images, Tensor)
    images, labels = ((split.images.float() / 255 - MEAN) / STD).to(pair.device), split.labels.to(pair.device)
    for _ in turns:
        for x, y in zip(images.split(pair.batch), labels.split(pair.batch), strict=True):
            with torch.no_grad():
                told = teacher(x)
            loss = _loss(student(x), told, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _torchdistill(turns: Turns, pair: Pair) -> None:
    from torchdistill.core.distillation import get_distillation_box
    from torchdistill.misc.log import MetricLogger, SmoothedValue

    teacher, student = pair.networks()
    device = torch.device(pair.device)
    box = get_distillation_box(
        teacher, student, {"train": _Pictures(pair.samples)}, _box_settings(pair), device, None, False, 1
    )
    for epoch, _ in enumerate(turns):
        box.pre_epoch_process(epoch=epoch)
        meters = MetricLogger(delimiter="  ")
        meters.add_meter("lr", SmoothedValue(window_size=1, fmt="{value}"))
        for images, labels, extra in meters.log_every(box.train_data_loader, 1000):
            loss = box.forward_process(images.to(device), labels.to(device), extra)
            box.post_forward_process(loss=loss)
            meters.update(loss=loss.item(), lr=box.optimizer.param_groups[0]["lr"])
        box.post_epoch_process()


def _box_settings(pair: Pair) -> dict[str, Any]:
    """What torchdistill's sample of KD says, for this pair."""
    ends = {f"{who}_module_{what}": value for who in ("student", "teacher") for what, value in _LOGITS.items()}
    loss = {"key": "KDLoss", "kwargs": {**ends, "temperature": TEMPERATURE, "alpha": CE_WEIGHT}}
    return {
        "num_epochs": EPOCHS,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler, "kwargs": {}},
            "kwargs": _loader_settings(pair),
        },
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {"key": "SGD", "kwargs": dict(SGD)},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": loss, "weight": 1.0}}}},
    }


_LOGITS = {"path": ".", "io": "output"}


def _timm(turns: Turns, pair: Pair) -> None:
    from timm.task import DistillationTeacher, LogitDistillationTask

    teacher, student = pair.networks()
    for network in (teacher, student):  # else it takes them for ImageNet's
        network.pretrained_cfg = {"mean": (MEAN,) * 3, "std": (STD,) * 3}  # type: ignore[assignment]
    device = torch.device(pair.device)
    task = LogitDistillationTask(
        student,
        DistillationTeacher(teacher, device=device),
        criterion=nn.CrossEntropyLoss(),
        task_loss_weight=CE_WEIGHT,
        temperature=TEMPERATURE,
        device=device,
        verbose=False,
    )
    task.train()
    optimizer = torch.optim.SGD(student.parameters(), **SGD)
    loader = _loader(pair)
    for _ in turns:
        for images, labels in loader:
            loss = task(images.to(device), labels.to(device))["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    soft = F.kl_div(F.log_softmax(student / TEMPERATURE, 1), F.softmax(teacher / TEMPERATURE, 1), reduction="batchmean")
    return CE_WEIGHT * F.cross_entropy(student, labels) + (1 - CE_WEIGHT) * TEMPERATURE**2 * soft


class _Pictures(Dataset[tuple[Tensor, int]]):
    """The same images as torchvision's CIFAR100 gives them: PIL images through a transform."""

    def __init__(self, count: int) -> None:
        from torchvision import transforms

        split = random_images(count).train
        assert isinstance(split.images, Tensor)
        self.pixels, self.labels = split.images.permute(0, 2, 3, 1).numpy(), split.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((MEAN,) * 3, (STD,) * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def _loader(pair: Pair) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(_Pictures(pair.samples), shuffle=True, **_loader_settings(pair))


def _loader_settings(pair: Pair) -> dict[str, Any]:
    return {
        "batch_size": pair.batch,
        "num_workers": pair.workers,
        "persistent_workers": pair.workers > 0,
        "pin_memory": torch.device(pair.device).type == "cuda",
        "drop_last": True,
    }


# -- figures -----------------------------------------------------------------------------------------------------------


def _bars(pair: str, ways: dict[str, Timed]) -> list[Bar]:
    def time(text: str, ours: str, theirs: str, most: float) -> Bar:
        return Bar.of(text, Spread.of_ratios(ways[ours].per_sample, ways[theirs].per_sample), most)

    live = [name for name in ways if name.startswith(OURS) and not name.startswith(CACHED) and BF16 not in name]
    fastest = max(live, key=lambda name: ways[name].per_second)
    bars = [time("limbeck ÷ bare", OURS, BARE, 1.05), time("limbeck ÷ plain", OURS, PLAIN, 0.75)]
    if fastest != OURS:
        bars.append(time(f"{fastest} ÷ plain", fastest, PLAIN, 0.75))
    for name in ways:
        if name.startswith(BF16):
            bars.append(time(f"{name} ÷ plain", name, PLAIN, MOST_OF_PLAIN_IN_BF16.get(pair, 0.45)))
        if name.startswith(CACHED):
            bars.append(time(f"{name} ÷ plain", name, PLAIN, 0.25))
    for library in ("torchdistill", "timm"):
        if library in ways:
            memory = ways[OURS].peak_mib / ways[library].peak_mib
            bars += [
                time(f"limbeck ÷ {library}", OURS, library, 1.0),
                Bar(f"limbeck ÷ {library}, peak memory", memory, 1.0),
            ]
    return bars


def _tell(title: str, pair: Pair, ways: dict[str, Timed]) -> None:
    print_table(
        f"{title}, batch {pair.batch}, {len(ways[OURS].seconds)} rounds of {pair.steps} steps",
        ["way", "images a second", "time ÷ plain", "time ÷ bare", "peak, MiB", "first turn, s", "chosen"],
        list(_rows(ways)),
    )


def _rows(ways: dict[str, Timed]) -> Iterator[list[object]]:
    for way in ways.values():
        against = [Spread.of_ratios(way.per_sample, ways[name].per_sample) for name in (PLAIN, BARE)]
        order = way.notes.get("channels_last")
        chosen = "" if order is None else "channels last" if order else "contiguous"
        yield [way.name, f"{way.per_second:.1f}", *against, f"{way.peak_mib:.0f}", f"{way.first:.1f}", chosen]


if __name__ == "__main__":
    main()
