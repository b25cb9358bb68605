"""The published tables, read from the package's own files and checked. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from limbeck.errors import SettingError, unknown_name

TEACHER, ALONE = "teacher", "student alone"
"""The rows of a table that are no method: the network that teaches, and the student without it."""

Evidence = Literal["readme", "released files", "abstract", "secondary", "none"]

EVIDENCE: dict[Evidence, str] = {
    "readme": "printed in the README of the public repository at the commit named; not checked against the paper",
    "released files": "read in the files that the authors released",
    "abstract": "from the abstract or introduction; the point of reference was not checked",
    "secondary": "a secondary note or transcription, unverified; not to be quoted as the paper's",
    "none": "not recovered; there is no number",
}


@dataclass(frozen=True)
class Source:
    """Where a table was read. What is not known is None. arxiv: numbers of the papers that its title or code names."""

    repo: str | None = None
    commit: str | None = None
    date: str | None = None
    file: str | None = None
    version: str | None = None
    arxiv: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for readers."""
        code = f"{self.repo} {self.file or ''}".strip() if self.repo else None
        at = f"commit {self.commit[:10]}" if self.commit else None
        papers = [f"arXiv {number}" for number in self.arxiv if number not in (self.version or "")]
        told = (code, at, self.date, self.version, *papers)
        return ", ".join(part for part in told if part) or "not recovered"


@dataclass(frozen=True)
class Column:
    """A column: a pair of networks, or what its label says.

    teacher, student: as the authors write them; the student's is the corrected one where they printed another by mistake,
    which ``printed_student`` then is. transfer: the data that features are probed on. teacher_figure, student_figure: of the
    teacher, and of the student without it, in the unit of the table's metric; None where they are not given.
    """

    label: str
    teacher: str | None = None
    student: str | None = None
    printed_student: str | None = None
    transfer: str | None = None
    teacher_figure: float | None = None
    student_figure: float | None = None


@dataclass(frozen=True)
class Row:
    """A method's figures, one for each column; None where none is given. std: standard deviations, where they are printed."""

    method: str
    values: tuple[float | None, ...]
    std: tuple[float | None, ...] | None = None


@dataclass(frozen=True)
class PublishedTable:
    """A table as it was published.

    recovered: how much of it, in words. evidence: what its numbers rest on, a key of ``EVIDENCE``. settings: of a system, what
    else its authors' code and notes say, with the tags of evidence in its keys; empty for the tables of the vision methods.
    """

    id: str
    title: str
    dataset: str | None
    metric: str
    source: Source
    evidence: Evidence
    recovered: str
    notes: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def is_error(self) -> bool:
        """Whether smaller figures are better."""
        return "error" in self.metric

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of its rows, those of teacher and student first where their figures are given."""
        return tuple(dict.fromkeys(cell.method for cell in self.cells()))

    @property
    def numbers(self) -> int:
        """How many cells hold a figure."""
        return sum(cell.figure is not None for cell in self.cells())

    def cells(self) -> tuple[Cell, ...]:
        """Every cell, row by row; first those of the teachers and of the students alone, where they are given."""
        known: list[Cell] = []
        for method, attribute in ((TEACHER, "teacher_figure"), (ALONE, "student_figure")):
            figures = [getattr(column, attribute) for column in self.columns]
            if any(figure is not None for figure in figures):
                known += [Cell(self, method, c, figure) for c, figure in zip(self.columns, figures, strict=True)]
        for row in self.rows:
            spread = row.std or (None,) * len(row.values)
            known += [Cell(self, row.method, *cell) for cell in zip(self.columns, row.values, spread, strict=True)]
        return tuple(known)


@dataclass(frozen=True)
class Cell:
    """One figure: of a method, in a column. None where nothing is given. std: its standard deviation, where it is printed."""

    table: PublishedTable
    method: str
    column: Column
    figure: float | None
    std: float | None = None


@cache
def tables() -> tuple[PublishedTable, ...]:
    """Every table, those of the vision methods first, then those of other systems.

    Those that nobody has recovered are among them, without a cell.
    """
    vision = _VisionFile.model_validate_json(read_data("vision.json"))
    systems = _SystemsFile.model_validate_json(read_data("systems.json"))
    of_systems = [_of_system(table, system) for system in systems.systems for table in system.tables]
    return (*(_of_vision(table) for table in vision.tables), *of_systems)


def find_table(name: str) -> PublishedTable:
    """The table of this id.

    Raises:
        SettingError: there is none; the message has the nearest spelling.
    """
    known = {table.id.lower(): table for table in tables()}
    if name.lower() not in known:
        raise SettingError(unknown_name("table", name, [table.id for table in tables()]))
    return known[name.lower()]


def read_data(name: str) -> str:
    """The text of a data file of this package."""
    return resources.files(__package__ or "").joinpath(name).read_text(encoding="utf-8")


# The files


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _SourceEntry(_Strict):
    repo: str
    commit: str
    date: str
    file: str


class _ColumnEntry(_Strict):
    label: str | None = None
    teacher: str | None = None
    student: str | None = None
    student_corrected: str | None = None
    transfer: str | None = None
    teacher_acc: float | None = None
    student_acc: float | None = None
    teacher_error: float | None = None
    student_error: float | None = None


class _RowEntry(_Strict):
    method: str
    values: list[float | None]
    std: list[float | None] | None


class _TableEntry(_Strict):
    id: str
    title: str
    dataset: str | None
    metric: str
    recovered: str
    notes: str
    columns: list[_ColumnEntry]
    rows: list[_RowEntry]

    @model_validator(mode="after")
    def _is_rectangular(self) -> Self:
        lengths = {len(numbers) for row in self.rows for numbers in (row.values, row.std) if numbers is not None}
        if lengths - {len(self.columns)}:
            raise ValueError(f"{self.id} has rows of {sorted(lengths)} figures and {len(self.columns)} columns")
        return self


class _VisionTable(_TableEntry):
    source: _SourceEntry | None
    source_version: str | None = None


class _SystemTable(_TableEntry):
    evidence: Evidence


class _System(_Strict):
    id: str
    title: str
    arxiv: str
    version: str | None
    venue: str | None
    code: str | None
    settings: dict[str, Any]
    tables: list[_SystemTable]


class _VisionFile(_Strict):
    origin: str
    tables: list[_VisionTable]


class _SystemsFile(_Strict):
    origin: str
    evidence_tags: dict[str, str]
    tag_use: str
    systems: list[_System] = Field(min_length=1)


def _of_vision(entry: _VisionTable) -> PublishedTable:
    named = {} if entry.source is None else entry.source.model_dump()
    arxiv = tuple(re.findall(r"\b\d{4}\.\d{5}\b", entry.source_version or ""))
    source = Source(**named, version=entry.source_version, arxiv=arxiv)
    return _table(entry, source, "none" if entry.source is None else "readme", {})


def _of_system(entry: _SystemTable, system: _System) -> PublishedTable:
    version = ", ".join(part for part in (system.title, system.version, system.venue) if part)
    repo, _, commit = (system.code or "").partition(" @")
    source = Source(repo=repo or None, commit=commit or None, version=version, arxiv=(system.arxiv,))
    return _table(entry, source, entry.evidence, system.settings)


def _table(entry: _TableEntry, source: Source, evidence: Evidence, settings: dict[str, Any]) -> PublishedTable:
    return PublishedTable(
        id=entry.id,
        title=entry.title,
        dataset=entry.dataset,
        metric=entry.metric,
        source=source,
        evidence=evidence,
        recovered=entry.recovered,
        notes=entry.notes,
        columns=tuple(_column(column, "error" in entry.metric) for column in entry.columns),
        rows=tuple(
            Row(row.method, tuple(row.values), None if row.std is None else tuple(row.std)) for row in entry.rows
        ),
        settings=settings,
    )


def _column(entry: _ColumnEntry, is_error: bool) -> Column:
    student = entry.student_corrected or entry.student
    pair = f"{entry.teacher} → {student}" if entry.teacher and student else None
    return Column(
        label=entry.transfer or entry.label or pair or "",
        teacher=entry.teacher,
        student=student,
        printed_student=entry.student if entry.student_corrected else None,
        transfer=entry.transfer,
        teacher_figure=entry.teacher_error if is_error else entry.teacher_acc,
        student_figure=entry.student_error if is_error else entry.student_acc,
    )
