"""The site builds without a warning, draws formulas, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

# What a page loads: of <link>, those of styles, scripts, icons and fonts; of <a>, nothing.
_LOADED = re.compile(r"<(?!a\b)[a-z]+\b[^>]*\b(?:src|href|srcset)=[\"']?(?:https?:)?//[^>]*>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    assert {str(page): found for page in pages if (found := _LOADED.findall(page.read_text(encoding="utf-8")))} == {}
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_formulas_are_mathml(site: Path) -> None:
    for name in ("icd", "kd", "ce"):
        html = (site / "objectives" / name / "index.html").read_text(encoding="utf-8")
        assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in html
        assert "LMHTAM" not in html
        assert "$$" not in html


def test_no_python_file_is_served(site: Path) -> None:
    assert list(site.rglob("*.py")) == []
