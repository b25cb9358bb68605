"""A page in headless Chromium: what is seen of it, at the widths of a desk and of a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

needs_browser = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not on the PATH")

# Runs in the page itself, within a frame of the page that _at_widths makes, where it writes what it found.
_PROBE = """<script>
const boxes = [...document.querySelectorAll("svg[role=img]")].map((svg) => svg.getBoundingClientRect());
const found = {
  width: innerWidth,
  figures: boxes.length,
  seen: boxes.filter((box) => box.width > 250 && box.height > 60).length,
  told: [...document.querySelectorAll("svg[role=img]")].every((svg) => svg.getAttribute("aria-label").length > 30),
  fits: document.documentElement.scrollWidth <= document.documentElement.clientWidth,
  images: [...document.images].filter((image) => image.naturalWidth > 0).length,
  requests: performance.getEntriesByType("resource").filter((entry) => !entry.name.startsWith("data:")).length,
};
%s
parent.document.querySelector("output").append(JSON.stringify(found) + "\\n");
</script>"""


def look_at(page: Path, folder: Path, *widths: int, script: str = "") -> list[dict[str, Any]]:
    """What is seen of a page at each width in pixels; nothing may be said on its console.

    figures, seen: numbers of figures, and of those that take room. told: whether each has a text in their place. fits: whether
    nothing makes the page wider than its window. images: numbers of pictures that were decoded. requests: of what was loaded.
    ``script`` may add to the object ``found``. The browser's own files go into ``folder``.
    """
    probed = folder / "probed.html"
    probed.write_text(_at_widths(page.read_text(encoding="utf-8"), _PROBE % script, widths), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --enable-logging=stderr --dump-dom --virtual-time-budget=5000"
    command = ["chromium", *flags.split(), f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900"]
    done = subprocess.run([*command, probed.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    said = re.search(r"<output>(.*?)</output>", done.stdout, flags=re.DOTALL)
    assert said is not None
    # Frames are done in any order.
    found = {one.pop("width"): one for one in map(json.loads, map(html.unescape, said[1].splitlines()))}
    return [found[width] for width in widths]


def _at_widths(page: str, probe: str, widths: tuple[int, ...]) -> str:
    """A page that holds another at several widths: a window cannot be made as narrow as a phone."""
    inside = html.escape(page.replace("</body>", probe + "</body>"))
    frames = "".join(
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{inside}"></iframe>' for width in widths
    )
    return f"<!doctype html><title>probe</title><output></output>{frames}"
