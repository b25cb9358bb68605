"""The table at the end of a run: the student, its teacher, and what share of the teacher was kept."""

from __future__ import annotations

import re
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from limbeck.runs import SEARCH_FIGURES, Result


def share(value: float | None) -> str:
    """An accuracy as text."""
    return "" if value is None else f"{value:.2%}"


def figures(result: Result) -> Table:
    """The figures of a finished run; of its teacher too where there are some, as there are none of a server."""
    rows = [row for row in _rows(result) if row[1] is not None]
    taught = bool(result.teacher_parameters) or any(teacher is not None for _, _, teacher in rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    # Teacher and student may have the same name.
    short = _short(result.student)
    names = [f"student\n{short}", f"teacher\n{result.teacher}", "kept"] if taught else [short]
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for name, student, teacher in rows:
        kept = f"{student / teacher:.1%}" if student is not None and teacher else ""
        table.add_row(name, share(student), *((share(teacher), kept) if taught else ()))
    perplexity, theirs = ((figures or {}).get("perplexity") for figures in (result.test, result.teacher_test))
    if perplexity is not None:
        table.add_row("test perplexity", _number(perplexity), *((_number(theirs), "") if taught else ()))
    table.add_row("parameters", f"{result.student_parameters:,}", *(_parameters(result) if taught else ()))
    return table


def _rows(result: Result) -> list[tuple[str, float | None, float | None]]:
    """Shares by their names, of the student and of its teacher."""
    test, teacher_test = result.test or {}, result.teacher_test or {}
    accuracy = result.accuracy_words
    return [
        (f"validation {accuracy}, last", result.validation_last, None),
        *_best(result, accuracy),
        *((f"test {words}", test.get(name), teacher_test.get(name)) for name, words in SEARCH_FIGURES.items()),
        ("test exact match", test.get("exact_match"), teacher_test.get("exact_match")),
        ("test ROUGE-L", test.get("rouge_l"), teacher_test.get("rouge_l")),
        (f"test {accuracy}", test.get("accuracy"), teacher_test.get("accuracy")),
        ("test agreement with the teacher", test.get("agreement"), None),
    ]


def _number(value: float | None) -> str:
    """Two decimals, as shares have; few digits of what is large."""
    return "" if value is None else f"{value:.2f}" if value < 1000 else f"{value:.3g}"


def _best(result: Result, accuracy: str) -> list[tuple[str, float | None, float | None]]:
    """The figure that chose the epoch, and the accuracy there where that is another."""
    found = result.validation_best, result.teacher_validation
    if not result.judged:
        return [(f"validation {accuracy}, best{_at(result)}", *found)]
    chose = [
        (f"validation {SEARCH_FIGURES[name]}, best{_at(result)}", value, None) for name, value in result.judged.items()
    ]
    return [(f"validation {accuracy}{_at(result)}", *found), *chose]


def _at(result: Result) -> str:
    return "" if result.best_epoch is None else f" (epoch {result.best_epoch})"


def _short(name: str) -> str:
    """The text that makes a projected student is longer than the table: the network inside it is what a reader knows."""
    inner = re.fullmatch(r"projected:student\(network='(.*?)', path=.*\)", name)
    return name if inner is None else f"{inner[1]} + projector"


def _parameters(result: Result) -> tuple[str, str]:
    if not result.teacher_parameters:
        return "", ""
    return f"{result.teacher_parameters:,}", f"{result.student_parameters / result.teacher_parameters:.1%}"


def footer(result: Result, folder: Path | None) -> Text:
    """How long it took and where it is."""
    where = f"; everything is in {folder}" if folder is not None else ""
    calls = "" if result.teacher_calls is None else f", {result.teacher_calls:,} teacher calls"
    return Text(
        f"{duration(result.seconds)} of training{calls}, weights of the {result.select} epoch{where}", style="dim"
    )


def duration(seconds: float) -> str:
    """A time as people say it: 8.1 s, 3:20 min, 2:05:00 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"
