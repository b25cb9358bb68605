"""What language models answer, how fast they write, and what they reach on tasks of lm-eval."""

from __future__ import annotations

from collections.abc import Mapping

from limbeck.evaluate.record import Evaluation
from limbeck.evaluate.text.figures import Writing
from limbeck.report.evaluation._words import in_order, percent, teachers, three
from limbeck.report.sections import Section
from limbeck.report.sortable import Cell, Column, figure, note, table

_CHARACTERS = 400


def answers(evaluation: Evaluation, prefix: str, numbers: Mapping[str, int]) -> list[Section]:
    """Exact match and ROUGE-L in a table, and a few answers side by side."""
    found = evaluation.answers
    if found is None:
        return []
    columns = [
        Column("network", "Its short name", number=False),
        Column("prompts", "So many were answered"),
        Column("exact match", "Share of the answers that are right"),
        Column("ROUGE-L", "F1 of the longest common sequence of words"),
        Column("cut off", "Share of the answers that reached the most tokens without an end"),
    ]
    shown = in_order(evaluation, found.networks)
    rows = [
        [
            Cell(who),
            figure(found.networks[who].count, lambda value: f"{value:,.0f}"),
            figure(found.networks[who].exact_match, percent),
            figure(found.networks[who].rouge_l, three),
            figure(found.networks[who].cut_off, percent),
        ]
        for who in shown
    ]
    body = table("Answers", columns, rows, teachers(evaluation)) + _samples(evaluation, shown)
    lead = f"Greedy answers; of an answer counts what '{found.extraction}' takes out of it."
    return [Section(f"{prefix}-answers", "Generated answers", html=body, lead=lead)]


def _samples(evaluation: Evaluation, shown: list[str]) -> str:
    assert evaluation.answers is not None
    samples = evaluation.answers.samples
    if not samples:
        return ""
    columns = [Column("prompt", "Of the split", number=False), Column("wanted", "The data's answer", number=False)]
    columns += [Column(who, "Its greedy answer", number=False) for who in shown]
    rows = [
        [
            Cell(_short(each.prompt)),
            Cell(_short(each.wanted)),
            *(Cell(f"{'✓' if each.right.get(who) else '✗'} {_short(each.given.get(who, ''))}") for who in shown),
        ]
        for each in samples
    ]
    words = (
        "Prompts that the teacher answers rightly and most students do not come first, then the others in their order."
    )
    return note(words) + table("Answers side by side", columns, rows)


def writing(evaluation: Evaluation, prefix: str, numbers: Mapping[str, int]) -> list[Section]:
    """Tokens a second, and how many times the teacher's."""
    found = evaluation.writing
    if found is None:
        return []
    sizes = next(iter(found.networks.values()))
    columns = [Column("network", "Its short name", number=False)]
    for size in sizes:
        columns.append(Column(f"tokens/s at {size.batch}", f"New tokens a second, {size.batch} answers at a time"))
        columns.append(Column(f"× teacher at {size.batch}", "Over the teacher's"))
    rows = [
        [Cell(who), *_speeds(found.networks[who], (found.ratios or {}).get(who, ()))]
        for who in in_order(evaluation, found.networks)
    ]
    first = sizes[0]
    lead = (
        f"Greedy answers of {first.new_tokens} tokens to a prompt of {first.prompt_tokens}, with a cache, on {found.device}, "
        "the networks in turn; the pass over the prompt counts."
    )
    body = table("Speed of writing", columns, rows, teachers(evaluation))
    return [Section(f"{prefix}-writing", "Speed of writing", html=body, lead=lead)]


def _speeds(found: tuple[Writing, ...], ratios: tuple[float, ...]) -> list[Cell]:
    cells = []
    for place, each in enumerate(found):
        cells.append(figure(each.tokens_per_second, lambda value: f"{value:,.1f}"))
        cells.append(figure(ratios[place] if place < len(ratios) else None, lambda value: f"{value:.1f} ×"))
    return cells


def tasks(evaluation: Evaluation, prefix: str, numbers: Mapping[str, int]) -> list[Section]:
    """The figures of lm-eval's tasks, each with its standard error."""
    found = evaluation.tasks
    if not found:
        return []
    shown = in_order(evaluation, found)
    named = dict.fromkeys((each.task, each.metric, each.count) for who in shown for each in found[who])
    columns = [Column("task", "And its metric", number=False), Column("samples", "So many")]
    columns += [Column(who, "± standard error", number=False) for who in shown]
    rows = []
    for task, metric, count in named:
        of = [next((x for x in found[who] if (x.task, x.metric) == (task, metric)), None) for who in shown]
        texts = ["" if x is None else f"{x.value:.4f}{f' ± {x.error:.4f}' if x.error is not None else ''}" for x in of]
        rows.append([Cell(f"{task}, {metric}"), figure(count, lambda value: f"{value:,.0f}"), *map(Cell, texts)])
    lead = "By the package lm-eval, with the prompts and shots of its own configurations."
    return [Section(f"{prefix}-tasks", "Tasks of lm-eval", html=table("Tasks", columns, rows), lead=lead)]


def _short(text: str) -> str:
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}…"
