"""The page in a browser: every figure is seen, tables sort by keyboard, nothing is loaded, and a phone is wide enough."""

from __future__ import annotations

from pathlib import Path

from browser import look_at, needs_browser
from evaluations import make_record

from limbeck.report.page import make_report

from .conftest import UNFINISHED, write_evaluation, write_run

_KEYS = """
for (const folded of document.querySelectorAll("details")) folded.open = true;
found.fits &&= document.documentElement.scrollWidth <= document.documentElement.clientWidth;
const order = () => [...document.querySelector("table").tBodies[0].rows].map((row) => row.cells[0].textContent);
const heads = [...document.querySelector("thead").rows[0].cells];
const sorted = () => heads.map((th) => th.getAttribute("aria-sort")).filter((text) => text);
const press = (number) => heads[number].querySelector("button").click();
found.links = [...document.querySelectorAll("nav a")].every((a) => document.querySelector(a.getAttribute("href")));
const reached = (button) => { button.focus(); return document.activeElement === button; };
found.reached = [...document.querySelectorAll("thead button")].every(reached);
found.scrolled = [...document.querySelectorAll(".scroll, .plate")].every((one) => one.tabIndex === 0);
found.orders = [order()];
found.sorts = [sorted()];
for (const number of [2, 2, 0]) { press(number); found.orders.push(order()); found.sorts.push(sorted()); }
"""


@needs_browser
def test_in_a_browser(runs: Path, tmp_path: Path) -> None:
    for objective in ("kd", "at", "sp", "rkd"):  # more lines than colours: a wide figure
        write_run(runs / objective, None, settings=UNFINISHED | {"objective": objective})
    record = make_record(students=["icd-seed0"])
    write_evaluation(runs / "evaluation.json", record)
    made = make_report([runs], tmp_path / "report.html")
    plates = sum(len(section.plates) for section in made.sections)
    examples = sum(len(several) for several in record["examples"].values())
    for one in look_at(tmp_path / "report.html", tmp_path, 1200, 390, script=_KEYS):
        assert (one["figures"], one["seen"], one["images"]) == (plates, plates, examples)
        assert one["requests"] == 0
        for what in ("told", "fits", "links", "reached", "scrolled"):
            assert one[what], what
        labels = [f"{name} (unfinished: epoch 3 of 10)" for name in ("at", "kd", "rkd", "sp")]
        finished = ["teacher big", "student alone", "icd+kd", "icd"]
        assert one["orders"][0] == finished + labels
        assert one["orders"][1] == ["teacher big", "icd+kd", "icd", "student alone", *labels]
        assert one["orders"][2] == ["student alone", "icd", "icd+kd", "teacher big", *labels]
        assert one["orders"][3] == sorted(finished + labels)
        assert one["sorts"] == [[], ["descending"], ["ascending"], ["ascending"]]


@needs_browser
def test_a_long_name_leaves_room_for_its_row(tmp_path: Path) -> None:
    record = make_record(students=["s" * 300], classes=["c" * 300, "pear"])
    kept = ("classification", "networks", "classes", "schema", "data", "split", "command", "versions", "when")
    path = write_evaluation(tmp_path / "evaluation.json", {name: record[name] for name in kept})
    make_report([path], tmp_path / "report.html")
    widest = "found.widest = Math.max(...[...document.querySelectorAll('tbody th')].map((th) => th.offsetWidth));"
    seen = look_at(tmp_path / "report.html", tmp_path, 1200, 390, script=widest)
    desk, phone = (one["widest"] for one in seen)
    assert 0 < phone < 200
    assert desk < 600
    assert all(one["fits"] for one in seen)
