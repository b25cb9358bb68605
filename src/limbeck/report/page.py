"""One HTML page about runs and evaluations: it needs no network, no other file and no script from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import count
from pathlib import Path

from limbeck.errors import SettingError
from limbeck.files import atomic_path
from limbeck.report.answers import answers_section
from limbeck.report.attention import attention_section
from limbeck.report.evaluation import evaluation_sections
from limbeck.report.evaluation.cost import ACCURACY_AGAINST_COST
from limbeck.report.headline import headline
from limbeck.report.making import making_sections, status_sections
from limbeck.report.material import Evaluated, Material, gather
from limbeck.report.method_plates import accuracy_section, has_operations_of, losses_section
from limbeck.report.plate_files import write_plates
from limbeck.report.plate_html import figure_html
from limbeck.report.rows import MethodRow
from limbeck.report.sections import Section
from limbeck.report.tables_html import methods_section

TITLE = "Distillation report"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class Report:
    """What was written. sections: of the page, in order. figures: the files of figures, where they were asked for."""

    material: Material
    sections: Sequence[Section]
    figures: Sequence[Path] = ()


def write_report(runs: Sequence[Path], path: Path, title: str = TITLE) -> list[MethodRow]:
    """Write one page, as :func:`make_report` does, and give back the rows of its table."""
    return list(make_report(runs, path, title).material.rows)


def make_report(
    runs: Sequence[Path],
    path: Path,
    title: str = TITLE,
    figures: Path | None = None,
    baseline: str | None = None,
) -> Report:
    """Write one page about runs and evaluations.

    Unfinished runs are drawn and marked as such, failed ones are listed with their reason. What cannot be read is named,
    counted and left out.

    Args:
        runs: run folders, folders of comparisons, folders that hold such folders, or evaluations' files.
        path: the page; a file that is there is replaced.
        figures: a folder for the page's figures as SVG and PDF; files of the same names are replaced.
        baseline: the label of the method that the others are set beside; the student alone where it is not given.

    Raises:
        SettingError: there is neither a run nor an evaluation to read, no method has the baseline's label, or something cannot
            be written.
    """
    material = gather(runs, baseline)
    sections = _sections(material)
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(_page(title, material, sections), encoding="utf-8")
    except OSError as error:
        raise SettingError(f"the report cannot be written to {path}: {error.strerror or error}.") from error
    drawn = [] if figures is None else write_plates((p for section in sections for p in section.plates), figures)
    return Report(material, sections, drawn)


def _sections(material: Material) -> list[Section]:
    sections = [*methods_section(material), *accuracy_section(material)]
    for number, evaluated in enumerate(material.evaluations, 1):
        leave_out = [ACCURACY_AGAINST_COST] if has_operations_of(evaluated.evaluation, material) else []
        place = number if len(material.evaluations) > 1 else None
        sections += _of_evaluation(evaluated, place, leave_out, material.numbers)
    sections += answers_section(material)
    drawn = [*sections, *attention_section(material), *losses_section(material)]
    return [*drawn, *status_sections(material), *making_sections(material)]


def _of_evaluation(
    evaluated: Evaluated, number: int | None, leave_out: Sequence[str], numbers: Mapping[str, int]
) -> list[Section]:
    """Its sections; of several evaluations, which are numbered, each goes by names of its own, and says which it is."""
    if number is None:
        return evaluation_sections(evaluated.evaluation, leave_out=leave_out, numbers=numbers)
    sections = evaluation_sections(evaluated.evaluation, f"evaluation{number}", leave_out, numbers)
    folder = evaluated.path.absolute().parent.name
    return [replace(section, title=f"{section.title} ({folder})") for section in sections]


def _page(title: str, material: Material, sections: Sequence[Section]) -> str:
    style, script = (
        files("limbeck.report").joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    main, sure = headline(material.rows, material.records)
    numbers = count()
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>',
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{html.escape(title)}</title>",
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>",
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="headline">{_whole(html.escape(main))}</p>',
        *(f'<p class="lead">{html.escape(text)}</p>' for text in (sure, _unfinished(material)) if text),
        _contents(sections),
        *(_section(section, numbers) for section in sections),
        f"</main>\n<script>\n{script}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _whole(text: str) -> str:
    """No line ends between a number and its sign."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _unfinished(material: Material) -> str:
    number = sum(run.is_unfinished for run in material.runs)
    if not number:
        return ""
    runs = "1 run is" if number == 1 else f"{number} runs are"
    return f"{runs} unfinished: drawn as far as they are, and marked so."


def _contents(sections: Sequence[Section]) -> str:
    links = "".join(f'<li><a href="#{section.name}">{html.escape(section.title)}</a></li>' for section in sections)
    return f'<nav aria-label="On this page"><ul>{links}</ul></nav>'


def _section(section: Section, numbers: count[int]) -> str:
    figures = "\n".join(figure_html(plate, next(numbers)) for plate in section.plates)
    parts = [
        f'<section aria-labelledby="{section.name}"><h2 id="{section.name}">{html.escape(section.title)}</h2>',
        f'<p class="lead">{html.escape(section.lead)}</p>' if section.lead else "",
        f'<div class="figures">\n{figures}\n</div>' if figures else "",
        section.html,
        "</section>",
    ]
    return "\n".join(part for part in parts if part)
