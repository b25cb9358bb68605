"""Divergences over a large vocabulary: chunk by chunk and fused with the projection, beside the plain form.

The plain form is what one writes first: log_softmax of both in float32, the formula over all rows, the mean, and backward.
Each is measured from logits (N, V), which exist before, and from hidden states (N, D) and the weights of both networks, where
the plain form makes the logits first. Time is that of forward and backward; plain and ours are timed in turn, and the ratio
is the median over rounds. Memory is the most that was allocated at once above what was there before, gradients included.

    python benchmarks/divergences.py --threads 1
    python benchmarks/divergences.py --rows 256 --kinds kl --dtypes float32 --rounds 5
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from _alone import parse, seconds_of
from _memory import peak_bytes
from _rounds import Bar, Spread, machine, print_bars, print_facts, print_table, write_json
from torch import Tensor

from limbeck import losses
from limbeck.losses import Projection

BETA, MOST = 0.5, 0.25
_MB = 1e6


def plain_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) as one writes it first."""
    log_q, log_p = student.float().log_softmax(-1), teacher.float().log_softmax(-1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def plain_jsd(student: Tensor, teacher: Tensor) -> Tensor:
    """The Jensen-Shannon divergence as one writes it first."""
    log_q, log_p = student.float().log_softmax(-1), teacher.float().log_softmax(-1)
    log_m = torch.logsumexp(torch.stack([log_q + math.log(1 - BETA), log_p + math.log(BETA)]), dim=0)
    of_teacher = F.kl_div(log_m, log_p, reduction="batchmean", log_target=True)
    return BETA * of_teacher + (1 - BETA) * F.kl_div(log_m, log_q, reduction="batchmean", log_target=True)


KINDS = {"kl": (losses.FORWARD_KL, plain_kl), "jsd": (losses.jensen_shannon(BETA), plain_jsd)}


@dataclass
class Way:
    """One form of a loss. ``leaves`` are the tensors whose gradients it makes."""

    loss: Callable[[], Tensor]
    leaves: list[Tensor]
    peak: int = 0
    seconds: list[float] = field(default_factory=list)

    def call(self) -> None:
        """Forward and backward, without gradients left from the last time."""
        for leaf in self.leaves:
            leaf.grad = None
        self.loss().backward()


def main() -> None:
    """Measure every case, print the table and the bars, and write the JSON file."""
    options = _options()
    facts = machine(options.device, options.threads)
    print_facts(facts)
    found, bars = [], []
    for dtype in options.dtypes:
        for rows in options.rows:
            for source in options.sources:
                for kind in options.kinds:
                    case = _measure(source, kind, rows, getattr(torch, dtype), options)
                    found.append(case)
                    title = f"{kind} from {source}, {rows} rows, {dtype}: its memory over the plain form's"
                    bars.append(Bar(title, case["ours_mb"] / case["plain_mb"], MOST))
                    print(f"  {title}: {bars[-1].value:.3f}; of the times: {case['ratio']}", flush=True)
    print_table(
        f"{options.vocabulary:,} tokens",
        ["loss", "from", "rows", "dtype", "plain MB", "ours MB", "plain s", "ours s", "ratio of the times"],
        [[*map(_text, case.values())] for case in found],
    )
    print_bars(bars)
    cases = [case | {"ratio": str(case["ratio"])} for case in found]
    write_json(options.json, {"machine": facts, "cases": cases, "bars": [bar.as_dict() for bar in bars]})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[256, 1024])
    parser.add_argument("--vocabulary", type=int, default=128_000)
    parser.add_argument("--width", type=int, default=576, help="of the student's hidden states")
    parser.add_argument("--teacher-width", type=int, default=960)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--sources", nargs="+", default=["logits", "hidden"], choices=["logits", "hidden"])
    return parse(parser, rounds=3)


def _measure(source: str, name: str, rows: int, dtype: torch.dtype, options: argparse.Namespace) -> dict[str, Any]:
    ways = _ways(source, name, rows, dtype, options)
    device = torch.device(options.device)
    values = [float(way.loss().detach()) for way in ways]
    if not math.isclose(*values, rel_tol=1e-2, abs_tol=1e-4):
        raise SystemExit(f"{name} from {source}: the plain form gives {values[0]} and ours {values[1]}.")
    for way in ways:
        way.call()  # warms up, and leaves no first-time allocations to be counted
        for leaf in way.leaves:
            leaf.grad = None
        way.peak = peak_bytes(way.call, device)
    for _ in range(options.rounds):
        for way in ways:
            way.seconds.append(seconds_of(way.call, device))
    plain, ours = ways
    return {
        "loss": name,
        "from": source,
        "rows": rows,
        "dtype": str(dtype).removeprefix("torch."),
        "plain_mb": plain.peak / _MB,
        "ours_mb": ours.peak / _MB,
        "plain_s": Spread.of(plain.seconds).middle,
        "ours_s": Spread.of(ours.seconds).middle,
        "ratio": Spread.of_ratios(ours.seconds, plain.seconds),
    }


def _ways(source: str, name: str, rows: int, dtype: torch.dtype, options: argparse.Namespace) -> tuple[Way, Way]:
    kind, plain = KINDS[name]
    torch.manual_seed(0)

    def draw(*shape: int, size: float = 1.0) -> Tensor:
        return (size * torch.randn(shape, device=options.device)).to(dtype)

    if source == "logits":
        student, teacher = (
            draw(rows, options.vocabulary, size=3.0).requires_grad_(),
            draw(rows, options.vocabulary, size=3.0),
        )
        return (
            Way(lambda: plain(student, teacher), [student]),
            Way(lambda: losses.divergence(student, teacher, kind).mean(), [student]),
        )
    ours, theirs = (
        Projection(draw(rows, width), draw(options.vocabulary, width, size=3 / math.sqrt(width)))
        for width in (options.width, options.teacher_width)
    )
    leaves = [ours.hidden.requires_grad_(), ours.weight.requires_grad_()]
    return (
        Way(lambda: plain(F.linear(*ours), F.linear(*theirs)), leaves),
        Way(lambda: losses.projected_divergence(ours, theirs, kind).mean(), leaves),
    )


def _text(value: object) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
