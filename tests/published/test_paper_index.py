"""The table of docs/paper-index.md that tells what is here is that of the package."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from limbeck.published.plans import plan
from limbeck.published.tables import tables

PAGE = Path(__file__).resolve().parents[2] / "docs" / "paper-index.md"


def test_the_paper_index_has_every_table_with_its_numbers() -> None:
    lines = ["| table | figures | with a command | not in limbeck | not yet |", "|---|---|---|---|---|"]
    for table in tables():
        counts = Counter(plan(cell).status for cell in table.cells() if cell.figure is not None)
        if table.numbers:
            known = [counts[status] or "–" for status in ("command", "not in limbeck", "not yet")]
            lines.append(f"| `{table.id}` | {table.numbers} | {known[0]} | {known[1]} | {known[2]} |")
    unverified = [f"`{table.id}`" for table in tables() if table.evidence == "secondary"]
    assert unverified
    said = (
        f"Secondary notes or transcriptions, unverified and not to be quoted as the papers': {', '.join(unverified)}."
    )
    missing = [f"`{table.id}`" for table in tables() if not table.numbers]
    expected = "\n".join([*lines, "", said, "", f"Not recovered, so without a figure: {', '.join(missing)}."])
    assert expected in PAGE.read_text(encoding="utf-8"), f"docs/paper-index.md should have this:\n\n{expected}"
