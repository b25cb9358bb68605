"""Beginnings of children's stories and how they go on, as prompts and completions: ``stories.py FILE FOLDER``.

FILE is text of TinyStories, a story after the other. The first sentence of a paragraph that begins a story is a prompt, the
rest of the paragraph its completion.
"""

import json
import re
import sys
from pathlib import Path

source, folder = map(Path, sys.argv[1:])
PARTS = {"train": 400, "validation": 40, "test": 100}

rows: list[dict[str, str]] = []
seen: set[str] = set()
for paragraph in source.read_text(encoding="utf-8", errors="replace").splitlines():
    begins = re.match(r"(?:One day|Once upon a time|Once there was)[^.!?]*[.!?]", paragraph)
    rest = paragraph[begins.end() :].strip() if begins else ""
    if begins and 60 <= len(rest) <= 200 and begins.group() not in seen:
        seen.add(begins.group())
        rows.append({"prompt": begins.group(), "completion": f" {rest}"})
folder.mkdir(parents=True, exist_ok=True)
first = 0
for part, count in PARTS.items():
    chosen = rows[first : first + count]
    if len(chosen) < count:
        raise SystemExit(f"{source} has {len(rows)} such stories, {sum(PARTS.values())} are needed.")
    first += count
    (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
