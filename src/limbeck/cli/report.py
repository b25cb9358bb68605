"""``limbeck report``: one table and one page about finished runs."""

from __future__ import annotations

from rich.text import Text

from limbeck.cli.output import Output
from limbeck.cli.settings import ReportSettings


def report(settings: ReportSettings, output: Output) -> None:
    """Write the page and show its table."""
    from limbeck.report.formats import write_tables
    from limbeck.report.page import write_report
    from limbeck.report.table import rich_table, warning

    rows = write_report(settings.runs, settings.output)
    tables = [] if settings.tables is None else write_tables(rows, settings.tables)
    value = {
        "rows": [row.as_dict() for row in rows],
        "warning": warning(rows),
        "report": str(settings.output),
        "tables": [str(path) for path in tables],
    }
    also = f"; the table is also in {', '.join(map(str, tables))}" if tables else ""
    remark = Text(f"The page with curves is {settings.output}{also}", style="dim")
    output.result(value, lambda: rich_table(rows, width=output.out.width), lambda: remark)
