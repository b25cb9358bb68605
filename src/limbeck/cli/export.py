"""``limbeck export``: writes a student in other formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from limbeck.cli.output import Output
from limbeck.config import ExportSettings
from limbeck.errors import SettingError

if TYPE_CHECKING:
    from limbeck.export import ExportResult


def export(settings: ExportSettings, output: Output) -> None:
    """Write the network that the settings name."""
    if not settings.model:
        raise SettingError("name a network: a run folder or NAME@FILE, as in 'limbeck export runs/NAME'.")

    from limbeck.export import run_export

    result = run_export(settings, say=output.say)
    output.result(result.as_dict(), lambda: _page(result))


def _page(result: ExportResult) -> Group:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("format", "file", "size", "difference"):
        table.add_column(column, justify="right" if column in ("size", "difference") else "left", overflow="fold")
    for file in result.files:
        table.add_row(file.format, str(file.path), f"{file.size / 2**20:.2f} MiB", f"{file.difference:.1e}")
    remark = f"How to load each file is written in {result.folder / 'README.md'}"
    return Group(table, Text(remark, style="dim"))
