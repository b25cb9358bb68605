"""``limbeck report``: one table and one page about runs and evaluations."""

from __future__ import annotations

from rich.text import Text

from limbeck.cli.output import Output
from limbeck.cli.settings import ReportSettings


def report(settings: ReportSettings, output: Output) -> None:
    """Write the page and show its table."""
    from limbeck.report.formats import write_tables
    from limbeck.report.page import make_report
    from limbeck.report.table import rich_table, warning

    made = make_report(settings.runs, settings.output, figures=settings.figures, baseline=settings.baseline)
    material = made.material
    rows = material.rows
    tables = [] if settings.tables is None else write_tables(rows, settings.tables)
    value = {
        "rows": [row.as_dict() for row in rows],
        "warning": warning(rows),
        "report": str(settings.output),
        "tables": [str(path) for path in tables],
        "figures": [str(path) for path in made.figures],
        "evaluations": [str(evaluated.path) for evaluated in material.evaluations],
        "unfinished": {run.name: run.progress() for run in material.runs if run.is_unfinished},
        "failed": {run.name: str(run.failure) for run in material.runs if run.failure is not None},
        "skipped": {str(path): problem for path, problem in material.skipped},
    }
    said = [f"The page with curves is {settings.output}"]
    said += [f"the table is also in {', '.join(map(str, tables))}"] if tables else []
    said += [f"{len(made.figures) - 1} files of figures are in {settings.figures}"] if made.figures else []
    said += [f"{len(material.skipped)} could not be read and are named there"] if material.skipped else []
    remark = Text("; ".join(said), style="dim")
    # A table without a row would be its notes alone.
    nothing = Text("There is no finished run yet, so there is no table.")
    output.result(value, lambda: rich_table(rows, width=output.out.width) if rows else nothing, lambda: remark)
