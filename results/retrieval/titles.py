"""The titles of a collection in SMART's format as queries that nobody judged: ``titles.py FOLDER OUTPUT``."""

import sys
from pathlib import Path

folder, output = map(Path, sys.argv[1:])
(source,) = [path for path in folder.iterdir() if ".all" in path.name.lower()]
titles: list[str] = []
field = ""
for line in source.read_text(encoding="latin-1").splitlines():
    if line[:2] in {".I", ".T", ".A", ".B", ".W", ".X", ".N", ".K"} and (len(line) == 2 or line[2] == " "):
        field = line[:2]
        if field == ".T":
            titles.append("")
    elif field == ".T":
        titles[-1] = f"{titles[-1]} {line.strip()}".strip()
output.write_text("".join(f"{title}\n" for title in dict.fromkeys(titles) if title), encoding="utf-8")
