"""What makes the teacher's forward and the student's step faster here, and what does not.

Every way of running the same work is timed in one process, in turn (A B C … A B C …), beside the plain one: contiguous
float32, PyTorch as it comes. The figure is the median over rounds of the ratio of the two times in a round, with quartiles:
below 1 is faster. The first round warms up and is left out. How long each took to get ready (compiling it, mostly) is a column
of its own. Three tables are made for each pair:

- the teacher's forward without gradient, with the embedding tapped;
- the student's step: forward, cross-entropy, backward, SGD with momentum;
- SGD's own step, on the student's parameters with gradients that stay.

"up to its last stage" is the teacher's forward that ends with its last stage's map: the most that could be saved where
no objective looks at the logits.

    python benchmarks/teacher.py --rounds 5 --threads 1
    python benchmarks/teacher.py --pairs "resnet56->resnet20" --rounds 9 --no-compile
"""

from __future__ import annotations

import argparse
import copy
import functools
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch._inductor.config
import torch.nn.functional as F
from _alone import parse, seconds_of
from _rounds import machine, print_facts, write_json
from torch import Tensor, nn

import limbeck
from limbeck.taps import Tapped, find_classifier
from limbeck.teachers.inference import fold_batch_norms, for_inference

CLASSES, SIDE = 100, 32
PAIRS = ("resnet56->resnet20", "resnet32x4->resnet8x4")
CHANNELS_LAST = torch.channels_last


def main() -> None:
    """Measure, print the tables, and write the JSON file."""
    options = _options()
    # Inductor warns there of a missing CUDA runtime, in the middle of the tables.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    facts = {"batch": options.batch, "rounds": options.rounds, **machine(options.device, options.threads)}
    print_facts(facts)
    tables = []
    for pair in options.pairs:
        torch._dynamo.reset()
        torch.manual_seed(0)
        teacher, student = (limbeck.create_model(name, num_classes=CLASSES).network for name in pair.split("->"))
        images = torch.randn(options.batch, 3, SIDE, SIDE, device=options.device)
        labels = torch.arange(options.batch, device=options.device) % CLASSES
        for title, rows in (
            (f"{pair}: the teacher's forward", _forwards(teacher.to(options.device), images, options)),
            (f"{pair}: the student's step", _steps(student.to(options.device), images, labels, options)),
            (f"{pair}: SGD's step alone", _updates(student, images, labels)),
        ):
            _measure(rows, options)
            _tell(title, rows)
            tables.append({"title": title, "rows": [row.as_dict(rows[0]) for row in rows]})
    write_json(options.json, {"machine": facts, "tables": tables})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), help='quoted, as in "teacher->student"')
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast too; slow without the instructions")
    return parse(parser, rounds=5)


@dataclass
class Row:
    """One way of doing the work. ``ready``: seconds its first call took."""

    name: str
    run: Callable[[], object]
    ready: float = 0.0
    seconds: list[float] = field(default_factory=list)

    def ratios(self, plain: Row) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.seconds, plain.seconds, strict=True)]

    def as_dict(self, plain: Row) -> dict[str, Any]:
        low, middle, high = statistics.quantiles(self.ratios(plain), n=4, method="inclusive")
        found = {"ratio": middle, "quartiles": [low, high], "ms": 1000 * statistics.median(self.seconds)}
        return {"name": self.name, "ready_s": self.ready, **found, "seconds": self.seconds}


# -- what is measured --------------------------------------------------------------------------------------------------


def _forwards(network: nn.Module, images: Tensor, options: argparse.Namespace) -> list[Row]:
    tapped = Tapped(network, classifier=find_classifier(network, images[:2])).eval().requires_grad_(False)
    last = images.contiguous(memory_format=CHANNELS_LAST)
    folded = fold_batch_norms(tapped, images[:2], say=lambda line: print(f"\n{line}"))
    rows = [
        _forward("plain", tapped, images),
        _forward("channels last", _channels_last(tapped), last),
        _forward("folded", folded, images),
        _forward("folded, channels last", _channels_last(folded), last),
        Row("plain, up to its last stage", functools.partial(_until_pooled, copy.deepcopy(tapped), images)),
    ]
    if options.bf16:
        rows += [_forward("folded, channels last, bf16", _channels_last(folded), last, bf16=True)]
    if options.compile:
        rows += [
            # Frozen ones first: they would take over a graph whose weights are inputs if there was one.
            _forward("compiled, frozen", _compiled(tapped, freezing=True), images),
            _forward("compiled", _compiled(tapped, freezing=False), images),
            _forward("folded, compiled", _compiled(folded, freezing=False), images),
            _inferring("folded, compiled, frozen", tapped, images),
            _inferring("folded, channels last, compiled, frozen", _channels_last(tapped), last),
        ]
    return rows


def _forward(name: str, network: Callable[[Tensor], Any], images: Tensor, *, bf16: bool = False) -> Row:
    def run() -> None:
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            network(images)

    return Row(name, run)


def _inferring(name: str, tapped: Tapped, images: Tensor) -> Row:
    started = time.perf_counter()
    network = for_inference(tapped, images, compile=True, say=lambda line: None)
    row = _forward(name, network, images)
    row.ready = time.perf_counter() - started
    return row


def _channels_last(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to(memory_format=CHANNELS_LAST)


def _compiled(network: nn.Module, *, freezing: bool) -> Callable[[Tensor], Any]:
    compiled = torch.compile(copy.deepcopy(network), dynamic=False)

    def run(images: Tensor) -> None:
        # Only the first call, which compiles, looks at it.
        with torch._inductor.config.patch(freezing=freezing):
            compiled(images)

    return run


class _Enough(Exception):
    """The forward is over for who wants no logits."""


def _until_pooled(tapped: Tapped, images: Tensor) -> None:
    def stop(module: nn.Module, inputs: Any) -> None:
        raise _Enough

    pool = next(module for module in tapped.modules() if isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d))
    handle = pool.register_forward_pre_hook(stop)
    try:
        with torch.no_grad():
            tapped(images)
    except _Enough:
        pass
    finally:
        handle.remove()


def _steps(network: nn.Module, images: Tensor, labels: Tensor, options: argparse.Namespace) -> list[Row]:
    last = images.contiguous(memory_format=CHANNELS_LAST)
    plain, other = network.train(), _channels_last(network.train())
    rows = [
        _step("plain", plain, images, labels),
        _step("plain again", plain, images, labels),
        _step("channels last", other, last, labels),
        _step("SGD fused", plain, images, labels, fused=True),
        _step("SGD foreach=False", plain, images, labels, foreach=False),
        _step("gradients zeroed and kept", plain, images, labels, keep_gradients=True),
        _step("denormals flushed", plain, images, labels, around=_flushing),
    ]
    if options.bf16:
        for name, cache in (("channels last, bf16", True), ("channels last, bf16 without weight cache", False)):
            cast = functools.partial(
                torch.autocast, images.device.type, torch.bfloat16, enabled=True, cache_enabled=cache
            )
            rows += [_step(name, other, last, labels, around=cast)]
    if options.compile:
        rows += [
            _step("compiled", plain, images, labels, compiled=True),
            _step("channels last, compiled", other, last, labels, compiled=True),
        ]
    return rows


def _step(
    name: str,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    around: Callable[[], Any] = nullcontext,
    keep_gradients: bool = False,
    compiled: bool = False,
    **sgd: Any,
) -> Row:
    network = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, **sgd)
    forward = torch.compile(network, dynamic=False) if compiled else network

    def run() -> None:
        with around():
            loss = F.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=not keep_gradients)

    return Row(name, run)


@contextmanager
def _flushing() -> Iterator[None]:
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _updates(network: nn.Module, images: Tensor, labels: Tensor) -> list[Row]:
    rows = []
    for name, choice in (("plain", {}), ("SGD fused", {"fused": True}), ("SGD foreach", {"foreach": True})):
        own = copy.deepcopy(network)
        F.cross_entropy(own(images), labels).backward()
        optimizer = torch.optim.SGD(own.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4, **choice)
        rows.append(Row(name, functools.partial(_several, optimizer.step)))
    return rows


def _several(run: Callable[[], object]) -> None:
    for _ in range(20):
        run()


# -- timing ------------------------------------------------------------------------------------------------------------


def _measure(rows: list[Row], options: argparse.Namespace) -> None:
    for row in rows:
        row.ready += seconds_of(row.run, options.device)
    for _ in range(options.rounds + 1):
        for row in rows:
            row.seconds.append(seconds_of(row.run, options.device))
    for row in rows:
        del row.seconds[0]


def _tell(title: str, rows: list[Row]) -> None:
    print(f"\n{title}\n\n| way | ÷ plain, median (quartiles) | median, ms | first call, s |\n|---|---|---|---|")
    for row in rows:
        found = row.as_dict(rows[0])
        low, high = found["quartiles"]
        print(
            f"| {row.name} | {found['ratio']:.3f} ({low:.3f} to {high:.3f}) | {found['ms']:.1f} | {row.ready:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
