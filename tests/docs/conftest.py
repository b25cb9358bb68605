"""What README and docs hold: code blocks, commands, settings."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block. mark: what the comment above it says, such as ``test`` or ``file: PATH``."""

    page: Path
    language: str
    text: str
    mark: str


def blocks(page: Path, language: str) -> list[Block]:
    """The blocks of one language on a page, in order."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(page, m["language"], m["text"], m["mark"] or "") for m in found if m["language"] == language]


def name(page: Path) -> str:
    """For the ids of tests."""
    return str(page.relative_to(ROOT))


def load(path: Path) -> ModuleType:
    """A Python file of the repository as a module."""
    spec = importlib.util.spec_from_file_location(f"limbeck_docs_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
