"""One HTML page about finished runs: it needs no network, no other file and no script from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import yaml

from limbeck.errors import SettingError
from limbeck.files import atomic_path
from limbeck.report.curves import loss_curves, validation_curve
from limbeck.report.figures import Dots, Series, curves, dots, legend
from limbeck.report.names import MethodKey
from limbeck.report.read import Run, find_runs, read_run, variants
from limbeck.report.table import Column, MethodRow, columns, method_key, note, summarise, warning

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

Members = Mapping[MethodKey, Sequence[Run]]


def write_report(runs: Sequence[Path], path: Path, title: str = "Distillation report") -> list[MethodRow]:
    """Write one page about runs, and give back the rows of its table.

    Unfinished and failed runs are listed as such. Folders that cannot be read are named, counted and left out.

    Args:
        runs: run folders, folders of comparisons, or folders that hold such folders.
        path: the page; a file that is there is replaced.

    Raises:
        SettingError: no folder holds a run, or the page cannot be written.
    """
    found = [read_run(folder) for folder in find_runs(runs)]
    if not any(run.problem is None for run in found):
        reasons = "; ".join(f"{run.path}: {run.problem}" for run in found[:5]) or "no folder was named"
        raise SettingError(f"runs: there is no run to report on ({reasons}).")
    finished = [run for run in found if run.result is not None]
    texts = variants(finished)
    results = [run.result for run in finished if run.result is not None]
    rows = summarise(results, texts)
    members: dict[MethodKey, list[Run]] = {}
    for run, result, text in zip(finished, results, texts, strict=True):
        members.setdefault(method_key(result, text), []).append(run)
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(_page(title, found, rows, members), encoding="utf-8")
    except OSError as error:
        raise SettingError(f"the report cannot be written to {path}: {error.strerror or error}.") from error
    return rows


def headline(rows: Sequence[MethodRow]) -> tuple[str, str]:
    """What a hurried reader should know, and the sentence that says how sure it is."""
    distilled = [row for row in rows if row.kept is not None]
    if distilled:
        best = max(distilled, key=lambda row: row.kept.mean if row.kept else 0.0)
        among = f"The best of {len(distilled)} methods here by test accuracy. " if len(distilled) > 1 else ""
        return _kept_sentence(best), among + _sureness(best, rows)
    scored = [row for row in rows if not row.is_teacher and (row.test or row.validation_best)]
    if not scored:
        return "No finished run has an accuracy yet", ""
    best = max(scored, key=lambda row: (row.test or row.validation_best).mean)  # type: ignore[union-attr]  # filtered above
    stat, split = (best.test, "test") if best.test else (best.validation_best, "validation")
    assert stat is not None
    return f"{best.label} reaches {100 * stat.mean:.1f} % {split} accuracy on {best.data}", _sureness(best, rows)


def _kept_sentence(row: MethodRow) -> str:
    assert row.kept is not None
    kept = 100 * row.kept.mean
    # 99.6 % is not the whole.
    share = f"{kept:.1f}" if 99 <= kept < 100 else f"{kept:.0f}"
    ratio = row.parameters_ratio
    size = ""
    if ratio is not None:
        size = f" at 1/{ratio:.0f} of its parameters" if ratio >= 10 else f" at {1 / ratio:.0%} of its parameters"
    return f"{row.label} keeps {share} % of the teacher's accuracy{size}"


def _sureness(row: MethodRow, rows: Sequence[MethodRow]) -> str:
    runs = f"mean of {len(row.seeds)} seeds" if len(row.seeds) > 1 else "one seed, so without an error bar"
    stat = row.test or row.validation_best
    assert stat is not None
    spread = f" ± {100 * stat.std:.2f}" if stat.std is not None else ""
    split = "Test" if row.test else "Validation"
    text = f"{split} accuracy {100 * stat.mean:.2f}{spread} % with {row.student} on {row.data} ({runs})."
    base = next(
        (other for other in rows if other.baseline and (other.data, other.student) == (row.data, row.student)), None
    )
    if base is None or row.difference is None:
        return text
    difference = row.difference
    points = (
        f"{100 * difference.mean:+.2f} ± {100 * (difference.std or 0):.2f} points, paired over {difference.count} seeds"
    )
    if difference.low is not None and difference.high is not None:
        points += f", 95 % interval {100 * difference.low:+.2f} to {100 * difference.high:+.2f}: {difference.verdict}"
    return f"{text} Against {base.label}: {points}. {warning([base, row])}".strip()


def _page(title: str, found: Sequence[Run], rows: Sequence[MethodRow], members: Members) -> str:
    style, script = (
        files("limbeck.report").joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    main, sure = headline(rows)
    sections = [_results(rows), _accuracies(rows, members), _losses(rows, members)]
    sections += [_unread(found), _making(found)]
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>',
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{html.escape(title)}</title>",
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>",
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="headline">{html.escape(main)}</p>',
        f'<p class="lead">{html.escape(sure)}</p>' if sure else "",
        *sections,
        f"</main>\n<script>\n{script}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


# The table


def _results(rows: Sequence[MethodRow]) -> str:
    if not rows:
        return ""
    chosen = columns(rows)
    head = "".join(
        f'<th scope="col" data-kind="{"text" if column.value is None else "number"}">'
        f'<button type="button" class="{"words" if column.value is None else "figure"}" title="{html.escape(column.help)}">'
        f"{html.escape(column.title)}</button></th>"
        for column in chosen
    )
    body = "\n".join(_table_row(row, chosen) for row in rows)
    return (
        '<section aria-labelledby="results"><h2 id="results">Methods</h2>\n'
        '<div class="scroll" role="region" aria-labelledby="results" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n"
        f'<p class="note">{html.escape(note(rows))} Press a column\'s title to sort.</p></section>'
    )


def _table_row(row: MethodRow, chosen: Sequence[Column]) -> str:
    cells = []
    for number, column in enumerate(chosen):
        text = column.text(row)
        value = None if column.value is None else column.value(row)
        sort = text if column.value is None else "" if value is None else f"{value:.8g}"
        tag, scope = ("th", ' scope="row"') if number == 0 else ("td", "")
        words = ' class="words"' if column.value is None else ""
        cells.append(f'<{tag}{scope}{words} data-value="{html.escape(sort)}">{html.escape(text)}</{tag}>')
    head = '<tr class="teacher">' if row.is_teacher else "<tr>"
    return f"{head}{''.join(cells)}</tr>"


# Figures


def _contests(rows: Sequence[MethodRow]) -> dict[tuple[str, str], list[MethodRow]]:
    """The methods that compete: those with the same data and student."""
    found: dict[tuple[str, str], list[MethodRow]] = {}
    for row in rows:
        if not row.is_teacher:
            found.setdefault((row.data, row.student), []).append(row)
    return found


def _accuracies(rows: Sequence[MethodRow], members: Members) -> str:
    figures = []
    for number, ((data, student), contest) in enumerate(_contests(rows).items()):
        where = f"{student} on {data}"
        teacher = next((row.test.mean for row in rows if row.is_teacher and row.data == data and row.test), None)
        figures.append(_validation(f"validation{number}", where, contest, members))
        figures.append(_tests(f"test{number}", where, contest, members, teacher))
    figures += [_sizes(f"sizes{n}", data, rows) for n, data in enumerate(dict.fromkeys(row.data for row in rows))]
    return _section("accuracy", "Accuracy", [figure for figure in figures if figure])


def _validation(name: str, where: str, contest: Sequence[MethodRow], members: Members) -> str:
    drawn = [(place, validation_curve(row.label, members[row.key])) for place, row in enumerate(contest)]
    lines = [replace(line, number=place) for place, line in drawn if line is not None]
    if not lines:
        return ""
    ends = "; ".join(f"{line.label} ends at {line.mean[-1]:.1f} %" for line in lines)
    text = f"Validation accuracy over epochs, {where}: {ends}."
    caption = f"{where}: mean of the seeds; the band spans the lowest and highest"
    return _figure(curves(name, text, lines, "validation accuracy, %"), "Validation accuracy", caption, lines)


def _tests(name: str, where: str, contest: Sequence[MethodRow], members: Members, teacher: float | None) -> str:
    points = [
        Dots(row.label, values, place) for place, row in enumerate(contest) if (values := _tested(members[row.key]))
    ]
    if len(points) < 2:
        return ""
    listed = "; ".join(f"{dot.label}: {', '.join(f'{value:.1f}' for value in dot.values)} %" for dot in points)
    text = f"Test accuracy of every run, {where}. {listed}."
    text += f" Teacher: {100 * teacher:.1f} %." if teacher is not None else ""
    svg = dots(name, text, points, "test accuracy, %", ("teacher", 100 * teacher) if teacher is not None else None)
    return _figure(svg, "Test accuracy", f"{where}: a dot is a run, the bar is their mean")


def _sizes(name: str, data: str, rows: Sequence[MethodRow]) -> str:
    """Test accuracy against parameters, a line a method, where the students of a data set differ in size."""
    tested = [row for row in rows if row.data == data and row.test is not None and not row.is_teacher]
    if len({row.parameters for row in tested}) < 2:
        return ""
    lines = []
    for number, label in enumerate(dict.fromkeys(row.label for row in tested)):
        points = sorted(
            ((row.parameters, row.test) for row in tested if row.label == label and row.test),
            key=lambda point: point[0],
        )
        sizes, stats = zip(*points, strict=True)
        means, spreads = [100 * stat.mean for stat in stats], [100 * (stat.std or 0) for stat in stats]
        low, high = ([mean + sign * spread for mean, spread in zip(means, spreads, strict=True)] for sign in (-1, 1))
        lines.append(Series(label, sizes, means, low, high, number))
    told = "; ".join(
        f"{line.label}: {', '.join(f'{mean:.1f} % at {size:,}' for size, mean in zip(line.x, line.mean, strict=True))}"
        for line in lines
    )
    svg = curves(name, f"Test accuracy against parameters, {data}. {told}.", lines, "test accuracy, %", "parameters")
    return _figure(svg, "Accuracy against size", f"{data}: mean of the seeds; the band is ± one deviation", lines)


def _tested(runs: Sequence[Run]) -> list[float]:
    return [100 * run.result.test["accuracy"] for run in runs if run.result is not None and run.result.test]


def _losses(rows: Sequence[MethodRow], members: Members) -> str:
    figures = []
    for number, row in enumerate(row for row in rows if not row.is_teacher):
        lines = loss_curves(members[row.key])
        if not lines:
            continue
        ends = "; ".join(f"{line.label} from {line.mean[0]:.3g} to {line.mean[-1]:.3g}" for line in lines)
        text = f"Training loss of {row.label}, {row.student} on {row.data}, by term: {ends}."
        svg = curves(f"loss{number}", text, lines, "loss, weighted")
        figures.append(_figure(svg, row.label, f"{row.student} on {row.data}", lines))
    return _section("losses", "Loss terms, as they are summed", figures)


def _figure(svg: str, title: str, caption: str, lines: Sequence[Series] = ()) -> str:
    words = f"<strong>{html.escape(title)}</strong>{html.escape(caption)}"
    return f"<figure>\n<figcaption>{words}</figcaption>{legend(lines) if lines else ''}\n{svg}\n</figure>"


def _section(name: str, title: str, figures: Sequence[str]) -> str:
    if not figures:
        return ""
    grid = "\n".join(figures)
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>\n<div class="figures">\n{grid}\n</div></section>'


# How it was made


def _unread(found: Sequence[Run]) -> str:
    unfinished = [run for run in found if run.problem is None and run.result is None and run.failure is None]
    failed = [(run, run.failure) for run in found if run.failure is not None]
    damaged = [run for run in found if run.problem is not None]
    parts = []
    if failed:
        items = "".join(
            f"<li><b>{html.escape(run.name)}</b>: {html.escape(str(failure))}</li>" for run, failure in failed
        )
        parts.append(f'<h2 id="failed">Failed runs: {len(failed)}</h2><ul class="runs">{items}</ul>')
    if unfinished:
        items = "".join(f"<li><b>{html.escape(run.name)}</b>: {html.escape(run.progress())}</li>" for run in unfinished)
        parts.append(f'<h2 id="unfinished">Unfinished runs: {len(unfinished)}</h2><ul class="runs">{items}</ul>')
    if damaged:
        items = "".join(
            f"<li><b>{html.escape(str(run.path))}</b>: {html.escape(run.problem or '')}</li>" for run in damaged
        )
        parts.append(
            f'<h2 id="skipped">Skipped, since they cannot be read: {len(damaged)}</h2><ul class="runs">{items}</ul>'
        )
    return "\n".join(parts)


def _making(found: Sequence[Run]) -> str:
    finished = [run for run in found if run.result is not None]
    if not finished:
        return ""
    details = "\n".join(_making_of(run) for run in finished)
    title = '<h2 id="making">How each run was made</h2>'
    return f'<section aria-labelledby="making">{title}\n{_versions(finished)}\n{details}</section>'


def _versions(runs: Sequence[Run]) -> str:
    used: dict[str, dict[str, None]] = {}
    for run in runs:
        assert run.result is not None
        for package, version in {**run.result.versions, "device": run.result.device}.items():
            used.setdefault(package, {})[version] = None
    listed = "; ".join(f"{package} {' and '.join(versions)}" for package, versions in used.items())
    return f'<p class="meta">{html.escape(listed)}.</p>'


def _making_of(run: Run) -> str:
    result = run.result
    assert result is not None
    settings = yaml.safe_dump(run.settings, sort_keys=False, allow_unicode=True) if run.settings else ""
    about = f"seed {result.seed}, {result.seconds:,.1f} s, finished {result.finished or 'at an unknown time'}"
    block = (
        f'<div class="settings"><p class="meta">Settings (config.yaml)</p><pre>{html.escape(settings)}</pre></div>'
        if settings
        else ""
    )
    return (
        f"<details><summary><b>{html.escape(run.name)}</b>: <code>{html.escape(result.objective)}</code>, "
        f"{html.escape(about)}</summary>\n<pre>{html.escape(result.command)}</pre>{block}</details>"
    )
