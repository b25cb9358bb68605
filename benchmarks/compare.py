"""What teaching N students of one teacher at once costs, beside N runs for one student each.

Ways, each a process of its own, which take turns on an otherwise idle machine (A B C … A B C …, the first round left out):

- ``limbeck.compare`` with N students of the same kind and the objective kd; with as many as ``--many`` also from a teacher
  cache that was written before; and with one student on twice and four times the data;
- ``limbeck.distill``, one student; a turn is as many epochs as ``--many`` single runs have together;
- the parts alone, on images that are ready: the teacher's forward as limbeck runs it, and the student's step with the teacher's
  logits given.

A turn is the training alone, an epoch of it; setting up is not timed. All is contiguous and fp32. The ratios are of two times
in the same round, and the bound is what the parts make of it. Time and peak memory of the process over N lie on a straight
line, or they do not: the residual is the farthest point from it, as a share of its value. Memory over data is that of
processes that hold so many images and train a few steps on them.

    python benchmarks/compare.py --threads 1
    python benchmarks/compare.py --pair "resnet56->resnet20" --members 1 2 4 8 --minutes 15 --json compare.json
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from _rounds import (
    CLASSES,
    EPOCHS,
    MEAN,
    STD,
    Bar,
    Line,
    Paced,
    Spread,
    Timed,
    Turns,
    Way,
    add_common_options,
    check_rounds,
    machine,
    print_bars,
    print_facts,
    print_table,
    random_images,
    take_turns,
    write_json,
)
from torch import Tensor

import limbeck
from limbeck.engine.callbacks import Callback
from limbeck.taps import Tapped, find_classifier
from limbeck.teachers.inference import for_inference

TIMES_DATA = (1, 2, 4)
TEACHER, STUDENT, SINGLE = "teacher's forward", "student's step", "single runs"
_HELD = "images held"


@dataclass(frozen=True)
class Race:
    """What is trained, and how much in a turn. ``many``: students of the bars."""

    teacher: str
    student: str
    batch: int
    steps: int
    many: int
    device: str

    @property
    def samples(self) -> int:
        return self.batch * self.steps

    def settings(self) -> dict[str, Any]:
        """What all limbeck runs have in common."""
        device = torch.device(self.device).type
        own = {"batch_size": self.batch, "device": device, "channels_last": False, "allow_weak_teacher": True}
        return own | {"epochs": EPOCHS}

    def network(self, name: str) -> torch.nn.Module:
        return limbeck.create_model(name, num_classes=CLASSES).network.to(self.device)


def main() -> None:
    """Measure, print the tables and bars, and write the JSON file."""
    options = _options()
    facts = machine(options.device, options.threads)
    print_facts(facts)
    teacher, student = options.pair.split("->")
    race = Race(teacher, student, options.batch, options.steps, options.many, options.device)
    members = sorted({*options.members, 1, options.many})
    ways = take_turns(_ways(race, members), options)
    held = take_turns(_holding(race, options.images), argparse.Namespace(**{**vars(options), "rounds": 1}))
    bound, bars = _bars(race, ways)
    lines = _lines(race, members, ways, held, options.images)
    _tell(options, ways, held, bound)
    rows = [
        (name, f"{line.slope:.4g}", f"{line.intercept:.4g}", f"{line.residual:.1%}") for name, line in lines.items()
    ]
    print_table("Straight lines", ["of", "slope", "at zero", "largest residual"], rows)
    print_bars(bars)
    found = {
        "pair": options.pair,
        "ways": [way.as_dict() for way in ways.values()],
        "held": {name: way.peak_mib for name, way in held.items()},
        "bound": asdict(bound),
        "lines": {name: asdict(line) for name, line in lines.items()},
        "bars": [bar.as_dict() for bar in bars],
    }
    write_json(options.json, {"machine": facts, "options": vars(options), **found})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", default="resnet20->resnet8", help='quoted, as in "teacher->student"')
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="numbers of students")
    parser.add_argument("--many", type=int, default=8, help="students of the bars")
    parser.add_argument("--images", type=int, default=20_000, help="images that are held once, twice and four times")
    add_common_options(parser, steps=4, rounds=9, minutes=5)
    options = parser.parse_args()
    check_rounds(parser, options.rounds)
    return options


def _ways(race: Race, members: list[int]) -> list[Way]:
    ways = [
        Way(_together(number), _compare, {"race": race, "members": number}, race.samples * number) for number in members
    ]
    ways += [
        Way(_cached(race), _compare, {"race": race, "members": race.many, "cached": True}, race.samples * race.many),
        Way(SINGLE, _single, {"race": race}, race.samples * race.many),
        Way(TEACHER, _teacher, {"race": race}, race.samples),
        Way(STUDENT, _student, {"race": race}, race.samples),
    ]
    for times in TIMES_DATA[1:]:
        more = Race(**{**asdict(race), "steps": race.steps * times})
        ways.append(Way(_of_data(times), _compare, {"race": more, "members": 1}, more.samples))
    return ways


def _together(members: int) -> str:
    return f"compare, {members} student{'s' * (members > 1)}"


def _cached(race: Race) -> str:
    return f"{_together(race.many)}, cached"


def _of_data(times: int) -> str:
    return _together(1) if times == 1 else f"{_together(1)}, data ×{times}"


# -- the ways ----------------------------------------------------------------------------------------------------------


def _compare(turns: Turns, race: Race, members: int, cached: bool = False) -> None:
    with tempfile.TemporaryDirectory() as folder:
        limbeck.compare(
            race.network(race.teacher),
            race.student,
            random_images(race.samples),
            "kd",
            callbacks=[Paced(turns, learners=members)],
            seeds=members,
            baselines=False,
            **race.settings(),
            **({"teacher_cache": folder, "views": 2} if cached else {}),
        )


def _single(turns: Turns, race: Race) -> None:
    settings = race.settings() | {"epochs": EPOCHS * race.many}
    pace = Paced(turns, epochs=race.many)
    data = random_images(race.samples)
    limbeck.distill(race.network(race.teacher), race.student, data, "kd", callbacks=[pace], **settings)


def _teacher(turns: Turns, race: Race) -> None:
    batches, _ = _ready_batches(race)
    network = race.network(race.teacher).eval()
    fast = for_inference(Tapped(network, classifier=find_classifier(network, batches[0])), batches[0])
    for _ in turns:
        with torch.no_grad():
            for images in batches:
                fast(images)


def _student(turns: Turns, race: Race) -> None:
    batches, labels = _ready_batches(race)
    network = race.network(race.student).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    told = torch.randn(race.batch, CLASSES, device=race.device)
    for _ in turns:
        for images, own in zip(batches, labels, strict=True):
            said = network(images)
            soft = F.kl_div(
                F.log_softmax(said / 4, 1), F.log_softmax(told / 4, 1), reduction="batchmean", log_target=True
            )
            optimizer.zero_grad()
            (0.1 * F.cross_entropy(said, own) + 0.9 * 16 * soft).backward()
            optimizer.step()


def _ready_batches(race: Race) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    split = random_images(race.samples).train
    assert isinstance(split.images, Tensor)
    images = ((split.images.float() / 255 - MEAN) / STD).to(race.device)
    return images.split(race.batch), split.labels.to(race.device).split(race.batch)


class _Enough(Exception):
    """A few steps were made, and the rest of the epoch is not needed."""


class _FewSteps(Callback):
    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_start(self, loop: Any) -> None:
        self.turns.begin()

    def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
        self.turns.end()
        if not self.turns.begin():
            raise _Enough


def _hold(turns: Turns, race: Race, images: int) -> None:
    settings = race.settings() | {"log_steps": race.steps}
    try:
        limbeck.distill(
            race.network(race.teacher),
            race.student,
            random_images(images),
            "kd",
            callbacks=[_FewSteps(turns)],
            **settings,
        )
    except _Enough:
        return


def _holding(race: Race, images: int) -> list[Way]:
    return [
        Way(f"{_HELD} ×{times}", _hold, {"race": race, "images": images * times}, race.samples) for times in TIMES_DATA
    ]


# -- figures -----------------------------------------------------------------------------------------------------------


def _bars(race: Race, ways: Mapping[str, Timed]) -> tuple[Spread, list[Bar]]:
    """The bound (teacher + N students) / (N teachers + N students), and the bars."""
    teacher, student, many = ways[TEACHER].seconds, ways[STUDENT].seconds, race.many
    bounds = [(t + many * s) / (many * (t + s)) for t, s in zip(teacher, student, strict=True)]
    together, single = ways[_together(many)].seconds, ways[SINGLE].seconds
    ratios = [a / b for a, b in zip(together, single, strict=True)]
    alone = [many * s for s in student]
    bound = Spread.of(bounds)
    return bound, [
        Bar.of(f"compare({many}) ÷ {many} single runs", Spread.of(ratios), 1.05 * bound.middle),
        Bar.of(
            f"compare({many}) with a cache ÷ {many} students alone",
            Spread.of_ratios(ways[_cached(race)].seconds, alone),
            1.05,
        ),
    ]


def _lines(
    race: Race, members: list[int], ways: Mapping[str, Timed], held: Mapping[str, Timed], images: int
) -> dict[str, Line]:
    together = {float(number): ways[_together(number)] for number in members}
    data = {float(times): ways[_of_data(times)] for times in TIMES_DATA}
    memory = {float(times): held[f"{_HELD} ×{times}"] for times in TIMES_DATA}
    return {
        "milliseconds a step, over students": Line.through(
            {number: 1000 * _median(way) / race.steps for number, way in together.items()}
        ),
        "peak MiB, over students": Line.through({number: way.peak_mib for number, way in together.items()}),
        f"milliseconds an epoch, over data (1 is {race.samples} images)": Line.through(
            {times: 1000 * _median(way) for times, way in data.items()}
        ),
        f"peak MiB, over data (1 is {images} images)": Line.through(
            {times: way.peak_mib for times, way in memory.items()}
        ),
    }


def _median(way: Timed) -> float:
    return Spread.of(way.seconds).middle


def _tell(options: argparse.Namespace, ways: Mapping[str, Timed], held: Mapping[str, Timed], bound: Spread) -> None:
    rows = [
        (
            way.name,
            f"{1000 * _median(way):.0f}",
            Spread.of_ratios(way.seconds, ways[_together(1)].seconds),
            f"{way.peak_mib:.0f}",
            f"{way.first:.1f}",
        )
        for way in ways.values()
    ]
    rounds = len(next(iter(ways.values())).seconds)
    title = f"{options.pair}, batch {options.batch}, {rounds} rounds of {options.steps} steps"
    print_table(title, ["way", "turn, ms", "÷ compare, 1 student", "peak, MiB", "first turn, s"], rows)
    print_table("Memory over data", ["way", "peak, MiB"], [(name, f"{way.peak_mib:.0f}") for name, way in held.items()])
    print(f"\nThe parts' bound, (teacher + {options.many} students) ÷ {options.many} (teacher + student): {bound}")


if __name__ == "__main__":
    main()
