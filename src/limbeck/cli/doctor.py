"""``limbeck doctor``: what is installed, which devices there are, where files go. It never fails for what is optional."""

from __future__ import annotations

import os
import re
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from limbeck.cli.output import Output
from limbeck.cli.settings import DoctorSettings

# Extras for those who work on limbeck itself say nothing to those who use it.
_NOT_FOR_USERS = ("dev", "docs")
Facts = dict[str, Any]


def doctor(settings: DoctorSettings, output: Output) -> None:
    """Print what is here."""
    from limbeck.data.sources import default_data_dir
    from limbeck.machine import versions

    data_dir = (settings.data_dir or default_data_dir()).expanduser()
    facts = {
        "versions": versions(),
        "devices": _devices(),
        "extras": _extras(),
        "data": _folder(data_dir),
        "runs": _folder(settings.runs_dir),
    }
    output.result(facts, lambda: _page(facts))


def _devices() -> list[Facts]:
    import torch

    found: list[Facts] = [
        {"device": "cpu", "name": f"{os.cpu_count()} cores", "threads": torch.get_num_threads(), "bf16": True}
    ]
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        with torch.cuda.device(number):
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        memory = round(properties.total_memory / 2**30, 1)
        found.append({"device": f"cuda:{number}", "name": properties.name, "memory_gib": memory, "bf16": bf16})
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": "Apple GPU", "bf16": True})
    return found


def _extras() -> dict[str, Facts]:
    """Each extra with its packages: their versions, or None where one is missing."""
    extras: dict[str, Facts] = {}
    for requirement in requires("limbeck") or ():
        asked = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        package = re.match(r"[\w.-]+", requirement)
        if asked and package and asked[1] not in _NOT_FOR_USERS:
            facts = extras.setdefault(asked[1], {"packages": {}, "install": f"pip install 'limbeck[{asked[1]}]'"})
            facts["packages"][package[0]] = _version(package[0])
    for facts in extras.values():
        facts["installed"] = all(facts["packages"].values())
    return extras


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _folder(path: Path) -> Facts:
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    return {
        "path": str(path.absolute()),
        "exists": path.is_dir(),
        "holds": sorted(entry.name for entry in path.iterdir())[:100] if path.is_dir() else [],
        "writable": os.access(there, os.W_OK | os.X_OK) and there.is_dir(),
        "free_gib": round(shutil.disk_usage(there).free / 2**30, 1),
    }


def _page(facts: Facts) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("versions", ", ".join(f"{name} {number}" for name, number in facts["versions"].items()))
    for device in facts["devices"]:
        table.add_row(device["device"], _device(device))
    for name, extra in facts["extras"].items():
        table.add_row(f"extra {name}", _extra(extra))
    table.add_row("data sets", _folder_text(facts["data"], "LIMBECK_DATA or --data-dir names another"))
    table.add_row("runs", _folder_text(facts["runs"], "--runs-dir names another"))
    return table


def _device(device: Facts) -> str:
    parts = [device["name"]]
    if "threads" in device:
        parts.append(f"{device['threads']} threads")
    if "memory_gib" in device:
        parts.append(f"{device['memory_gib']} GiB")
    parts.append("bf16" if device["bf16"] else "no bf16: use fp16 or fp32")
    return ", ".join(parts)


def _extra(extra: Facts) -> Text:
    if extra["installed"]:
        return Text("installed: " + ", ".join(f"{name} {number}" for name, number in extra["packages"].items()))
    missing = ", ".join(name for name, number in extra["packages"].items() if number is None)
    return Text(f"{missing} not installed; {extra['install']}", style="dim")


def _folder_text(folder: Facts, other: str) -> Text:
    text = Text(f"{folder['path']}: {folder['free_gib']} GiB free")
    if not folder["writable"]:
        text.append(f"; cannot be written to: {other}", style="red")
    if not folder["exists"]:
        text.append("; does not exist yet")
    elif folder["holds"]:
        names = folder["holds"]
        text.append(f"; holds {', '.join(names[:12])}{f' and {len(names) - 12} more' if len(names) > 12 else ''}")
    else:
        text.append("; empty")
    return text
