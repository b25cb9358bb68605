"""How fast student and teacher write together: speculative blocks beside the token-by-token form, and beside the student alone.

In one process, in turn (A B C … A B C …), on the same prompts with the same random numbers. The token-by-token form is the
block form with blocks of one: a pass of the student and one of the teacher for each token, both with their caches, and so
the same text. The figure is the token-by-token form's time by another's in the same round, median and quartiles: above 1 is
faster than it. The first round warms up and is left out.

Beside it stands the bound E(S + T) / (g S + T). E is how many tokens a row kept of a block; S is the time of a step of the
student alone and S + T that of the token-by-token form, as a ratio within a round. This bound takes a teacher's pass as
equally long whatever it reads. Where a longer pass takes longer (on a CPU), T(g) stands for T in a second bound, from
passes of 1 and of g tokens. With rows of a batch at places of their own, the batch takes as many rounds as its slowest row.

The teacher is a Llama with random weights, and the student its first layers. With larger embeddings (--embedding) the layers
have less to say, and the student is accepted more often.

    python benchmarks/generation.py --threads 1 --rounds 4
    python benchmarks/generation.py --batches 1 16 --blocks 3 5 8 --new 128
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from _alone import parse
from _rounds import Bar, Clock, Spread, machine, print_bars, print_facts, print_table, write_json
from transformers import LlamaConfig, LlamaForCausalLM

from limbeck.policies import Draw, Prompts, Response, Sampling, Speculative, StudentText, Writer
from limbeck.policies._cache import Context

PROMPT = 8  # short, for passes over prompts are the same in all ways
PLAIN, ALONE = "token by token", "student alone"
WANTED = {1: 0.8, 16: 0.6}  # of the bound, by batch


def main() -> None:
    """Measure, print the tables, and write the JSON file."""
    options = _options()
    facts = machine(options.device, options.threads)
    print_facts(facts)
    student, teacher = _models(options)
    tables, bars = [], []
    for batch in options.batches:
        rows, passes = _measured(batch, student, teacher, options)
        table, found = _told(batch, rows, passes)
        tables.append(table)
        bars.extend(found)
    print_bars(bars)
    write_json(options.json, {"machine": facts, "tables": tables, "bars": [bar.as_dict() for bar in bars]})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--blocks", type=int, nargs="+", default=[5])
    parser.add_argument("--top-k", type=int, default=25)
    parser.add_argument("--new", type=int, default=96, help="tokens of each answer; none ends before")
    parser.add_argument("--layers", type=int, nargs=2, default=[2, 12], help="of student and teacher")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--embedding", type=float, default=0.5, help="standard deviation of the embeddings")
    parser.add_argument("--bf16", action="store_true", help="weights in bfloat16")
    return parse(parser, rounds=4)


def _models(options: argparse.Namespace) -> tuple[Writer, Writer]:
    torch.manual_seed(0)
    few, many = options.layers
    config = LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.width,
        intermediate_size=3 * options.width,
        num_hidden_layers=many,
        num_attention_heads=options.width // 64,
        num_key_value_heads=options.width // 64,
        max_position_embeddings=PROMPT + options.new,
    )
    whole = LlamaForCausalLM(config)
    with torch.no_grad():
        whole.model.embed_tokens.weight.normal_(std=options.embedding)
        # Logits with a spread of about 4, as trained models have; none for the end of sequence.
        whole.lm_head.weight.normal_(std=4 * options.width**-0.5)[-1] = 0.0
    part = copy.deepcopy(whole)
    part.model.layers = part.model.layers[:few]
    part.config.num_hidden_layers = few
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    part, whole = (model.to(options.device, dtype).eval() for model in (part, whole))
    return Writer(part, Sampling(temperature=0.5, top_p=0.5)), Writer(whole, Sampling(temperature=0.2, top_p=0.5))


@dataclass
class Row:
    """One way of writing. ``last``: what it wrote last."""

    name: str
    run: Callable[[int], Response]
    block: int | None = None
    seconds: list[float] = field(default_factory=list)
    last: Response | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def _measured(
    batch: int, student: Writer, teacher: Writer, options: argparse.Namespace
) -> tuple[list[Row], dict[int, float]]:
    """All ways in turn, and the seconds of a teacher's pass over 1 and over each block's tokens."""
    generator = torch.Generator().manual_seed(batch)
    tokens = torch.randint(options.vocabulary - 1, (batch, PROMPT), generator=generator).to(options.device)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    prompts = Prompts(tokens, mask, pad=0, end=options.vocabulary - 1, max_new_tokens=options.new)

    def way(name: str, policy: Speculative | StudentText, block: int | None = None) -> Row:
        return Row(name, lambda step: policy.respond(prompts, student, teacher, Draw(0, step)), block)

    rows = [way(PLAIN, Speculative(options.top_k, 1), 1)]
    rows += [way(f"block={block}", Speculative(options.top_k, block), block) for block in options.blocks]
    rows += [way("block=auto", Speculative(options.top_k, "auto")), way(ALONE, StudentText())]
    clock = Clock(options.device)
    for turn in range(options.rounds + 1):
        for row in rows:
            started = clock.now()
            row.last = row.run(turn)
            if turn:
                row.seconds.append(clock.now() - started)
    return rows, {block: _pass_seconds(teacher, tokens, block, clock) for block in (1, *options.blocks)}


def _pass_seconds(writer: Writer, tokens: torch.Tensor, count: int, clock: Clock) -> float:
    """Seconds of a pass over ``count`` tokens behind the prompt, the median of 15."""
    context, seconds = Context(writer, 2 * PROMPT), []
    positions = torch.arange(2 * PROMPT, device=tokens.device).expand(len(tokens), -1)
    with writer.silent():
        context.feed(tokens, None, positions[:, :PROMPT], keep=1)
        for _ in range(15):
            started = clock.now()
            context.feed(tokens[:, :count], None, positions[:, PROMPT : PROMPT + count], keep=count)
            seconds.append(clock.now() - started)
            context.forget(count)
    return statistics.median(seconds)


def _told(batch: int, rows: list[Row], passes: dict[int, float]) -> tuple[dict[str, Any], list[Bar]]:
    """Print a batch's table; its rows for the file, and the bars."""
    by_name = {row.name: row for row in rows}
    plain, alone = by_name[PLAIN], by_name[ALONE]
    assert plain.last is not None
    steps = plain.last.tokens.shape[1]
    # Of a round's own ratio, so that a machine that is busier in one round than in another does not distort the bound.
    share = 1 / Spread.of_ratios(plain.seconds, alone.seconds).middle
    lines, found, bars = [], [], []
    for row in rows:
        assert row.last is not None
        counted, ratio = row.last.statistics, Spread.of_ratios(plain.seconds, row.seconds)
        item: dict[str, Any] = {"name": row.name, "seconds": row.seconds, "ratio": ratio.middle}
        item |= {"correction_rate": counted.correction_rate, "acceptance": counted.acceptance}
        shown = ["", "", ""]
        if row.block is not None and row.block > 1:
            kept, longer = counted.tokens_per_round, passes[row.block] / passes[1]
            flat = kept / (row.block * share + 1 - share)
            true = kept / (row.block * share + (1 - share) * longer)
            item |= {"tokens_per_round": kept, "bound": flat, "bound_with_longer_passes": true, "pass_ratio": longer}
            shown = [
                f"{kept:.2f}",
                f"{flat:.2f} ({ratio.middle / flat:.2f})",
                f"{true:.2f} ({ratio.middle / true:.2f})",
            ]
            if batch in WANTED:
                text = f"batch {batch}, {row.name}: {WANTED[batch]} of the bound, by what was reached"
                bars.append(Bar(text, WANTED[batch] * flat / ratio.middle, 1.0))
        rate = counted.tokens / row.median
        lines.append([row.name, f"{rate:.0f}", ratio, f"{counted.correction_rate:.2f}", *shown])
        found.append(item)
    title = f"batch {batch}: S + T {1000 * plain.median / steps:.1f} ms, S/(S + T) {share:.3f}, T(g)/T(1) "
    title += ", ".join(f"{seconds / passes[1]:.2f} at {block}" for block, seconds in passes.items() if block > 1)
    columns = ["", "tokens/s", "times token by token", "corrected", "E", "bound (reached)", "bound with T(g) (reached)"]
    print_table(title, columns, lines)
    return {"batch": batch, "student_share": share, "rows": found}, bars


if __name__ == "__main__":
    main()
