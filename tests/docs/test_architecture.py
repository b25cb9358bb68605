"""The arrows that docs/architecture.md draws are those of the imports."""

from __future__ import annotations

import ast

import pytest

from .conftest import DOCS, ROOT

SOURCE = ROOT / "src" / "limbeck"
# What a room must not import, as the page says.
FORBIDDEN = {
    "losses": {"*"},
    "objectives": {"engine", "data", "models", "teachers", "tasks", "networks", "feeds", "runs", "distillation", "cli"},
    "engine": {"data", "models", "networks", "feeds", "distillation", "report", "export", "cli", "runs"},
    "data": {"models", "engine", "objectives", "distillation", "cli"},
    "models": {"data", "engine", "objectives", "distillation", "cli"},
    "policies": {"engine", "data", "models", "session", "tasks", "objectives", "losses", "distillation", "cli"},
    "taps": {"engine", "models", "data", "objectives"},
    "report": {"engine", "distillation", "cli"},
    "distillation": {"cli", "api", "export", "demo"},
}


def imports(room: str) -> set[str]:
    """The other rooms of limbeck that a room imports, also inside functions."""
    path = SOURCE / room
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    found: set[str] = set()
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "limbeck":
            names = (
                [f"limbeck.{alias.name}" for alias in node.names] if node.module == "limbeck" else [node.module or ""]
            )
            found |= {name.split(".")[1] for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("limbeck.")}
    return found - {room}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_arrows_run_one_way(room: str) -> None:
    found, forbidden = imports(room), FORBIDDEN[room]
    assert found & (found if "*" in forbidden else forbidden) == set()


def test_the_page_names_every_room() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rooms = {f"{p.name}/" if p.is_dir() else p.name for p in SOURCE.iterdir() if not p.name.startswith(("_", "."))}
    assert sorted(room for room in rooms - {"py.typed"} if f"`{room}`" not in text) == []
