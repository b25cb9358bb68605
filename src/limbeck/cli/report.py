"""``limbeck report``: one table and one page about finished runs."""

from __future__ import annotations

from rich.text import Text

from limbeck.cli.output import Output
from limbeck.cli.settings import ReportSettings


def report(settings: ReportSettings, output: Output) -> None:
    """Write the page and show its table."""
    from limbeck.report.page import write_report
    from limbeck.report.table import rich_table

    rows = write_report(settings.runs, settings.output)
    value = {"rows": [row.as_dict() for row in rows], "report": str(settings.output)}
    remark = Text(f"The page with curves is {settings.output}", style="dim")
    output.result(value, lambda: rich_table(rows, width=output.out.width), lambda: remark)
