"""``limbeck compare``: many students with their progress, and the table at the end."""

from __future__ import annotations

from dataclasses import asdict

from rich.text import Text

from limbeck.cli.output import Output
from limbeck.config import CompareSettings


def compare(settings: CompareSettings, output: Output) -> int:
    """Do the comparison that the settings describe. Exit code 1 when a student failed."""
    settings.check_networks()  # at once, without the seconds that importing torch takes

    from limbeck.cli.progress import Progress
    from limbeck.comparison import REPORT, run_comparison
    from limbeck.contest import contest_of
    from limbeck.report.table import rich_table

    with Progress(output) as progress:
        done = run_comparison(contest_of(settings), callbacks=[progress], say=output.say)
    failures = {name: asdict(failure) for name, failure in done.failures.items()}
    value = {
        "rows": [row.as_dict() for row in done.rows],
        "results": {name: result.as_dict() for name, result in done.results.items()},
        "failures": failures,
        "folder": str(done.folder),
    }
    remarks = [Text(f"{name} failed: {failure}", style="red") for name, failure in done.failures.items()]
    where = f"Tables and the page {REPORT} with curves are in {done.folder}, each student in a folder of its own."
    remarks.append(Text(where, style="dim"))
    output.result(
        value,
        lambda: "",
        lambda: rich_table(done.rows, width=output.out.width),
        *((lambda remark=remark: remark) for remark in remarks),
    )
    return 1 if failures else 0
