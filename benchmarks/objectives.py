"""What each objective costs: its time beside a whole training step, its memory, its parameters.

The signals are those of the real networks, computed once from random images through the taps that a run would make. An
objective's time is that of its forward and backward alone, down to the gradients of the student's signals and of its own
heads; the student's signals are leaves, so nothing of the student's own backward is in it, nor the optimizer's work on the
heads. A step is what training without the objective costs: the teacher's forward, the student's forward and backward with
cross-entropy, and SGD; both are measured in turn in the same rounds (A B A B …). What an objective adds is the median over
rounds of the ratio of the two.

Memory is the peak of what the objective's forward and backward allocate, gradients included, above what was there before.
On a GPU it is PyTorch's own count. On a CPU the profiler notes every block that PyTorch's allocator gives and takes back,
the temporary ones inside operators too, and the peak is the largest sum of blocks alive at once. Scratch space that MKL or
oneDNN allocate past PyTorch is not in it. State is the buffers that an objective keeps, such as memory banks.

An objective that trains in a stage of its own (ab, fsp) is measured as in that stage; ft's paraphraser, which trains before
it, has a row of its own.

Three bars are judged at the end; a missed one does not change the exit code, which is 0.

    python benchmarks/objectives.py
    python benchmarks/objectives.py --pairs "resnet56->resnet20" --objectives kd icd "crd(negatives=4096)" --rounds 5
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from _alone import parse, seconds_of
from _memory import peak_bytes
from _public import GatheredCRD, broadcast_bytes, broadcast_nst, draw_negatives
from _rounds import machine, print_facts, write_json
from torch import Tensor, nn

import limbeck
from limbeck.errors import LimbeckError
from limbeck.matching import connect, constants
from limbeck.networks import Network
from limbeck.objectives import Objective, WeightedSum, objectives, parse_objective
from limbeck.objectives.crd import CRD
from limbeck.signals import Batch, Signals
from limbeck.taps import Tapped, find_classifier

BATCH, CLASSES, SIDE, SAMPLES = 64, 100, 32, 50_000
SAME_FAMILY = "resnet32x4->resnet8x4"
PAIRS = (SAME_FAMILY, "ResNet50->mobilenetv2_half")
CRD_RATIO, NST_MEGABYTES, STEP_PERCENT = 3.0, 100.0, 10.0
HEAVY = ("crd", "rrd", "reviewkd", "semckd")
PUBLIC_CRD = "crd as public code"
_SLOT = 0.03  # seconds; what is faster is called several times in a row
_MB = 1e6


def main() -> None:
    """Measure every objective on every pair, print the tables and the bars, and write the JSON file."""
    options = _options()
    facts = {"batch": BATCH, "rounds": options.rounds, **machine(options.device, options.threads)}
    torch.manual_seed(0)
    print_facts(facts)
    pairs = [_measure(pair, options) for pair in options.pairs]
    bars = _bars(pairs)
    print()
    for bar in bars:
        print(f"{bar['verdict']:<11} {bar['bar']}\n            {bar['found']}")
    write_json(options.json, {"machine": facts, "pairs": [pair.as_dict() for pair in pairs], "bars": bars})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), help='quoted, as in "teacher->student"')
    parser.add_argument(
        "--objectives", nargs="+", default=[], help="names or expressions; all registered ones if left out"
    )
    options = parse(parser, rounds=15)
    if any(pair.count("->") != 1 for pair in options.pairs):
        parser.error("a pair is TEACHER->STUDENT, in quotes.")
    options.pairs = ["->".join(name.strip() for name in pair.split("->")) for pair in options.pairs]
    return options


# -- what is measured --------------------------------------------------------------------------------------------------


@dataclass
class Subject:
    """Something that is timed. ``leaves`` are the tensors whose gradients it makes."""

    name: str
    run: Callable[[], object]
    leaves: Sequence[Tensor] = ()
    parameters: int = 0
    state_bytes: int = 0
    peak_bytes: int = 0
    calls: int = 1
    seconds: list[float] = field(default_factory=list)

    def call(self) -> None:
        """Run it without gradients left from the last time, which would be added to."""
        for leaf in self.leaves:
            leaf.grad = None
        self.run()


@dataclass
class Pair:
    """What was found for one pair of networks. ``reasons``: why an objective, or the pair, was not measured."""

    name: str
    step: Subject | None = None
    rows: list[Subject] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    public: Subject | None = None
    sampling: float = 0.0
    naive_nst: str = ""

    def row(self, name: str) -> Subject | None:
        """The objective's row, if it was measured."""
        return next((row for row in self.rows if row.name == name), None)

    def added(self, row: Subject) -> list[float]:
        """The percentages that an objective adds to the step, one for each round."""
        assert self.step is not None
        return [100 * ours / step for ours, step in zip(row.seconds, self.step.seconds, strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        rows = [_as_dict(row, self.added(row)) for row in self.rows]
        found: dict[str, Any] = {"pair": self.name, "objectives": rows, "not_measured": self.reasons}
        if self.step is not None:
            found["step_ms"] = _spread([1000 * value for value in self.step.seconds])
        if self.public is not None:
            found["public_crd_ms"] = _spread([1000 * value for value in self.public.seconds])
            found["public_crd_peak_mb"] = round(self.public.peak_bytes / _MB, 1)
            found["public_crd_sampling_ms"] = round(1000 * self.sampling, 1)
        return found | ({"broadcast_nst": self.naive_nst} if self.naive_nst else {})


def _as_dict(row: Subject, added: list[float]) -> dict[str, Any]:
    return {
        "objective": row.name,
        "ms": _spread([1000 * value for value in row.seconds]),
        "added_percent": _spread(added),
        "peak_mb": round(row.peak_bytes / _MB, 2),
        "parameters": row.parameters,
        "state_mb": round(row.state_bytes / _MB, 2),
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    low, middle, high = _quartiles(values)
    return {"median": middle, "quartiles": [low, high]}


def _quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [round(value, 3) for value in statistics.quantiles(values, n=4, method="inclusive")]


# -- one pair ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """The signals of both networks for one batch, with their constants, and the batch."""

    student: Signals
    teacher: Signals
    batch: Batch
    labels: Tensor


def _measure(name: str, options: argparse.Namespace) -> Pair:
    pair = Pair(name)
    print(f"\n{name.replace('->', ' → ')}")
    made = _parsed(options.objectives, pair)
    try:
        scene, pair.step = _scene(name, frozenset[str]().union(*(part.needs for _, part in made)), options)
    except LimbeckError as error:
        pair.reasons["(the pair)"] = str(error)
        print(f"not measured: {error}")
        return pair
    for row_name, objective in made:
        try:
            pair.rows.append(_subject(row_name, objective, scene))
        except LimbeckError as error:
            pair.reasons[row_name] = str(error)
        except Exception as error:  # a broken objective must not hide the others
            pair.reasons[row_name] = f"failed with {type(error).__name__}: {error}"
    if pair.row("crd") is not None:
        _add_public_crd(pair, scene)
    if pair.row("nst") is not None:
        pair.naive_nst = _naive_nst(scene)
    subjects = [pair.step, *pair.rows, *([pair.public] if pair.public is not None else [])]
    _take_rounds(subjects, options.rounds, scene.batch.labels.device)
    _print(pair)
    return pair


def _parsed(asked: Sequence[str], pair: Pair) -> list[tuple[str, Objective]]:
    """The objectives by the name of their row, and before each what trains in a first stage of its own for it."""
    classes = objectives()
    made: list[tuple[str, Objective]] = []
    for text in asked or classes:
        try:
            whole = parse_objective(f"{text}()" if text in classes else text)
        except LimbeckError as error:
            pair.reasons[text] = str(error)
            continue
        for _, _, part in whole.entries():
            stage = part.initial_stage()
            if stage is not None and stage.objective is not part:
                made.append((f"{text}, first stage", WeightedSum([(1.0, stage.objective)])))
        made.append((text, whole))
    return made


def _scene(name: str, needs: frozenset[str], options: argparse.Namespace) -> tuple[Scene, Subject]:
    device = torch.device(options.device)
    labels = torch.arange(SAMPLES, device=device) % CLASSES
    index = torch.randperm(SAMPLES, device=device)[:BATCH]
    batch = Batch(torch.randn(BATCH, 3, SIDE, SIDE, device=device), labels[index], index=index)
    teacher, student = (_network(one, batch.inputs) for one in name.split("->"))
    names = connect(student, teacher, batch, needs=needs, taps={}, say=print)
    said = _signals(student, batch, student.tapped.paths["preactivations"])
    told = _signals(teacher, batch, names["preactivations"]).renamed(names)
    for network in (student, teacher):
        network.tapped.close()  # nothing is recorded in the step that is measured
    step = _step(student.tapped.network, teacher.tapped.network, batch)
    return Scene(said, told, batch, labels), step


def _network(name: str, images: Tensor) -> Network:
    network = limbeck.create_model(name, num_classes=CLASSES, image_size=SIDE).network.to(images.device)
    _give_statistics(network, images)
    return Network(name, Tapped(network, classifier=find_classifier(network, images[:2])), nn.Identity())


def _give_statistics(network: nn.Module, images: Tensor) -> None:
    """Batch norms get the statistics of the images, so that a random network's signals have the size of a trained one's."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def _signals(network: Network, batch: Batch, preactivations: Mapping[str, str]) -> Signals:
    with torch.no_grad():
        signals: Signals = network.tapped.eval()(batch.inputs)
    return replace(signals, constants=constants(network, batch, preactivations))


def _step(student: nn.Module, teacher: nn.Module, batch: Batch) -> Subject:
    """The step of training that every objective would be added to."""
    teacher.eval().requires_grad_(False)
    student.train()
    parameters = list(student.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        with torch.no_grad():
            teacher(batch.inputs)
        F.cross_entropy(student(batch.inputs), batch.labels).backward()
        optimizer.step()

    return Subject("step", step, parameters, sum(parameter.numel() for parameter in parameters))


def _subject(name: str, objective: Objective, scene: Scene) -> Subject:
    """The objective, built and ready; called once, and its memory measured at the second call."""
    if "index" in objective.needs:
        objective.set_training_labels(scene.labels)
    objective.check(scene.student, scene.teacher, scene.batch)
    objective.build(scene.student, scene.teacher)
    objective.to(scene.labels.device).train().start_epoch(1)
    student, teacher = (_asked(signals, objective.needs) for signals in (scene.student, scene.teacher))
    student = student.map(lambda value: value.detach().clone().requires_grad_())

    def run() -> None:
        terms = objective(student, teacher, scene.batch)
        torch.stack(list(terms.values())).sum().backward()

    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    subject = Subject(
        name,
        run,
        [*student.tensors().values(), *parameters],
        sum(parameter.numel() for parameter in parameters),
        sum(buffer.numel() * buffer.element_size() for buffer in objective.buffers()),
    )
    subject.call()
    subject.peak_bytes = _peak_bytes(subject, scene.labels.device)
    return subject


def _asked(signals: Signals, needs: frozenset[str]) -> Signals:
    """The signals without constants, as in a step, and without maps that only other objectives asked for."""
    return replace(
        signals,
        features=signals.features if needs & {"features", "stages"} else {},
        preactivations=signals.preactivations if "preactivations" in needs else {},
        stem=signals.stem if "stem" in needs else None,
        embedding_map=signals.embedding_map if "embedding_map" in needs else None,
        constants={},
    )


# -- time and memory ---------------------------------------------------------------------------------------------------


def _take_rounds(subjects: Sequence[Subject], rounds: int, device: torch.device) -> None:
    for subject in subjects:
        warming = seconds_of(subject.call, device, calls=subject.calls)
        if warming < 1:
            subject.calls = min(100, math.ceil(_SLOT / seconds_of(subject.call, device, calls=subject.calls)))
    for _ in range(rounds):
        for subject in subjects:
            subject.seconds.append(seconds_of(subject.call, device, calls=subject.calls))


def _peak_bytes(subject: Subject, device: torch.device) -> int:
    """The most that one call has allocated at once; gradients of an earlier call are dropped before."""
    for leaf in subject.leaves:
        leaf.grad = None
    return peak_bytes(subject.call, device)


def _available_bytes(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available)


# -- as public code does it --------------------------------------------------------------------------------------------


def _add_public_crd(pair: Pair, scene: Scene) -> None:
    """CRD by gathering, on the same embeddings and with as many negatives; NumPy's drawing is timed apart."""
    ours, device = CRD(), scene.labels.device
    needed = 2 * BATCH * (ours.negatives + 1) * ours.dim * 4
    if _available_bytes(device) < 2 * needed:
        pair.reasons[PUBLIC_CRD] = f"it would need about {needed / _MB:,.0f} MB, too much for this machine."
        return
    assert scene.student.embedding is not None
    assert scene.teacher.embedding is not None
    student, teacher = scene.student.embedding.detach().clone().requires_grad_(), scene.teacher.embedding.detach()
    theirs = GatheredCRD(student.shape[1], teacher.shape[1], SAMPLES, dim=ours.dim).to(device)
    chosen, pair.sampling = _draw(scene, ours.negatives)
    pair.public = Subject(
        PUBLIC_CRD, lambda: theirs(student, teacher, chosen).backward(), [student, *theirs.parameters()]
    )
    pair.public.call()
    pair.public.peak_bytes = _peak_bytes(pair.public, device)


def _draw(scene: Scene, negatives: int) -> tuple[Tensor, float]:
    """The rows for each sample of the batch, its own first, and the seconds that NumPy took to draw the others."""
    labels, index = scene.labels.cpu().numpy(), scene.batch.index
    assert index is not None
    others = [np.flatnonzero(labels != number) for number in range(CLASSES)]
    started = time.perf_counter()
    drawn = [draw_negatives(others[labels[row]], negatives) for row in index.tolist()]
    seconds = time.perf_counter() - started
    return torch.cat([index[:, None], torch.from_numpy(np.stack(drawn)).to(index.device)], dim=1), seconds


def _naive_nst(scene: Scene) -> str:
    """The peak memory of NST by broadcasting, or why it was not measured."""
    device = scene.labels.device
    largest = broadcast_bytes(scene.student, scene.teacher)
    if _available_bytes(device) < 4 * largest:
        return f"not run, its largest product alone has {largest / _MB:,.0f} MB"
    student = _asked(scene.student, frozenset({"features"})).map(lambda value: value.clone().requires_grad_())
    subject = Subject(
        "nst by broadcasting",
        lambda: broadcast_nst(student, scene.teacher).backward(),
        list(student.features.values()),
    )
    return f"{_peak_bytes(subject, device) / _MB:,.0f} MB"


# -- what is said ------------------------------------------------------------------------------------------------------


def _print(pair: Pair) -> None:
    names = [*(row.name for row in pair.rows), *pair.reasons, PUBLIC_CRD]
    wide = max(len(name) for name in names)
    head = f"{'':<{wide}} {'ms':>9} {'quartiles':>17} {'adds':>9} {'quartiles':>15} {'share':>8}"
    print(f"{head} {'peak MB':>9} {'parameters':>11} {'state MB':>9}")
    assert pair.step is not None
    print(f"{'step (ce)':<{wide}} {_milliseconds(pair.step)} {'':>44} {pair.step.parameters:>11,} (the student's)")
    for row in [*pair.rows, *([pair.public] if pair.public is not None else [])]:
        low, middle, high = _quartiles(pair.added(row))
        adds = f"{middle:>7.2f} % {f'{low:.2f} – {high:.2f}':>15} {100 * middle / (100 + middle):>6.2f} %"
        size = f"{row.peak_bytes / _MB:>9,.1f} {row.parameters:>11,} {row.state_bytes / _MB:>9,.1f}"
        print(f"{row.name:<{wide}} {_milliseconds(row)} {adds} {size}")
    for name, reason in pair.reasons.items():
        print(f"{name:<{wide}} not measured: {reason}")


def _milliseconds(row: Subject) -> str:
    low, middle, high = _quartiles([1000 * value for value in row.seconds])
    digits = 2 if high < 1000 else 0
    return f"{middle:>9.{digits}f} {f'{low:.{digits}f} – {high:.{digits}f}':>17}"


def _bars(pairs: Sequence[Pair]) -> list[dict[str, str]]:
    return [_crd_bar(pairs), _nst_bar(pairs), _step_bar(pairs)]


def _bar(text: str, passed: bool | None, found: str) -> dict[str, str]:
    verdict = "not judged" if passed is None else "pass" if passed else "miss"
    return {"bar": text, "verdict": verdict, "found": found}


def _crd_bar(pairs: Sequence[Pair]) -> dict[str, str]:
    text = f"crd is at least {CRD_RATIO:g} times as fast as by gathering, each forward and backward"
    found, slowest = [], math.inf
    for pair in pairs:
        ours = pair.row("crd")
        if ours is None or pair.public is None:
            continue
        ratios = [theirs / mine for theirs, mine in zip(pair.public.seconds, ours.seconds, strict=True)]
        low, middle, high = _quartiles(ratios)
        slowest = min(slowest, middle)
        found.append(
            f"{pair.name}: {middle:.1f} times ({low:.1f} – {high:.1f}); ours draws its negatives within that time, NumPy's "
            f"{1000 * pair.sampling:.0f} ms a batch are not counted"
        )
    return _bar(text, slowest >= CRD_RATIO if found else None, "; ".join(found) or "crd was not measured")


def _nst_bar(pairs: Sequence[Pair]) -> dict[str, str]:
    text = f"nst needs less than {NST_MEGABYTES:g} MB at its peak"
    rows = [(pair, row) for pair in pairs if (row := pair.row("nst")) is not None]
    found = [f"{pair.name}: {row.peak_bytes / _MB:.1f} MB (by broadcasting: {pair.naive_nst})" for pair, row in rows]
    passed = all(row.peak_bytes < NST_MEGABYTES * _MB for _, row in rows) if rows else None
    return _bar(text, passed, "; ".join(found) or "nst was not measured")


def _step_bar(pairs: Sequence[Pair]) -> dict[str, str]:
    text = f"on {SAME_FAMILY} no objective but {', '.join(HEAVY)} adds more than {STEP_PERCENT:g} % to the step"
    pair = next((pair for pair in pairs if pair.name == SAME_FAMILY and pair.step is not None), None)
    # A first stage is no part of the step: the student rests in it.
    rows = [] if pair is None else [row for row in pair.rows if row.name in objectives() and row.name not in HEAVY]
    if pair is None or not rows:
        return _bar(text, None, "none of them was measured on that pair")
    added = {row.name: statistics.median(pair.added(row)) for row in rows}
    over = {name: value for name, value in added.items() if value > STEP_PERCENT}
    most = max(added, key=lambda name: added[name])
    said = ", ".join(f"{name} {value:.1f} %" for name, value in over.items())
    found = f"{len(rows) - len(over)} of {len(rows)} keep to it; " + (f"over: {said}" if over else "")
    found += "" if over else f"the most is {most} with {added[most]:.1f} %"
    missing = sorted(set(objectives()) - {row.name for row in pair.rows})
    return _bar(text, not over, found + (f"; not among them, as not measured: {', '.join(missing)}" if missing else ""))


if __name__ == "__main__":
    main()
