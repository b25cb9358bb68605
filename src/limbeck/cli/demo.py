"""``limbeck demo``: the main job on data that is always there."""

from __future__ import annotations

from rich.text import Text

from limbeck.cli.output import Output
from limbeck.config import DemoSettings


def demo(settings: DemoSettings, output: Output) -> None:
    """Run the demo and show its table."""
    from limbeck.cli.progress import Progress
    from limbeck.demo import run_demo
    from limbeck.report.table import rich_table

    with Progress(output) as progress:
        done = run_demo(settings, output.say, [progress])
    value = {
        "rows": [row.as_dict() for row in done.rows],
        "report": str(done.report),
        "folder": str(done.folder),
    }
    remark = Text(f"The page with curves is {done.report}; the runs are in {done.folder}", style="dim")
    output.result(value, lambda: "", lambda: rich_table(done.rows, width=output.out.width), lambda: remark)
