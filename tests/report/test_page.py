"""The page: whole by itself, well-formed, readable without colour or eyes, and working in a browser."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from limbeck.errors import SettingError
from limbeck.report.page import write_report

from .conftest import make_result, write_run

_VOID = {"meta", "br", "hr", "img", "input", "link", "col"}
_LOADS = {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}


class _Checker(HTMLParser):
    """Collects what a browser would forgive."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.used: set[str] = set()
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: Counter[str] = Counter()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        values = dict(attrs)
        assert len(values) == len(attrs), f"<{tag}> has an attribute twice"
        if values.get("id"):
            self.ids[str(values["id"])] += 1
        for name, value in values.items():
            self.used.update(re.findall(r"url\(#([^)]+)\)", value or ""))
            if name.endswith("href") and (value or "").startswith("#"):
                self.used.add(str(value)[1:])
            elif name in _LOADS and tag != "a":
                self.addresses.append(f"{tag} {name}={value}")
        if values.get("role") == "img":
            self.images.append(values)


def _check(text: str) -> _Checker:
    checker = _Checker()
    checker.feed(text)
    checker.close()
    assert not checker.open
    return checker


def test_the_page_is_well_formed_and_loads_nothing(runs: Path, tmp_path: Path) -> None:
    rows = write_report([runs], tmp_path / "report.html", "A <title> & more")
    assert [row.label for row in rows] == ["teacher big", "student alone", "icd+kd", "icd"]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    checker = _check(text)
    assert [name for name, count in checker.ids.items() if count > 1] == []
    assert checker.used <= set(checker.ids)
    assert checker.addresses == []
    assert not re.search(r"https?://|@import|//cdn", text)
    assert "A &lt;title&gt; &amp; more" in text
    assert checker.tags["h1"] == checker.tags["main"] == 1


def test_every_figure_is_told_in_words_and_takes_its_colours_from_the_page(runs: Path, tmp_path: Path) -> None:
    write_report([runs], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    checker = _check(text)
    assert len(checker.images) == checker.tags["figure"] == 6  # validation, test, cost, and each method's loss
    labels = [str(image["aria-label"]) for image in checker.images]
    assert "icd+kd ends at 60.0 %" in labels[0]
    assert "icd.contrast from 1 to 0.333" in " ".join(labels)
    drawn = re.findall(r"<svg role.*?</svg>", text, flags=re.DOTALL)
    assert len(drawn) == 6
    for svg in drawn:
        assert "<title" not in svg  # it would lie over the figure wherever the mouse rests
        assert "<text" in svg
        assert not re.search(r"#[0-9a-f]{6}\b", svg), "a colour that does not follow the page"
        assert "DejaVu" not in svg


def test_unfinished_and_damaged_runs_are_named_and_counted(runs: Path, tmp_path: Path) -> None:
    write_report([runs], tmp_path / "report.html")
    words = " ".join(_check((tmp_path / "report.html").read_text(encoding="utf-8")).words)
    assert "Unfinished runs: 1" in words
    assert "step 20, epoch 2 of 3" in words
    assert "Skipped, since they cannot be read: 3" in words
    for name in ("damaged", "other", "binary"):
        assert str(runs / name) in words


def test_failed_runs_are_listed_with_their_reason_and_not_as_unfinished(runs: Path, tmp_path: Path) -> None:
    folder = runs / "many"
    write_run(folder / "kd-seed0", None)
    (folder / "config.yaml").write_text("objectives: [kd]\n")
    (folder / "kd-seed0" / "failure.json").write_text(
        '{"reason": "loss <b>NaN</b> & more", "step": 7, "when": "today"}'
    )
    write_report([runs], tmp_path / "report.html")
    checker = _check((tmp_path / "report.html").read_text(encoding="utf-8"))
    words = " ".join(checker.words)
    assert "Failed runs: 1" in words
    assert "many/kd-seed0 : loss <b>NaN</b> & more (at step 7, today)" in words
    assert "Unfinished runs: 1" in words
    assert [name for name, count in checker.ids.items() if count > 1] == []


def test_intervals_and_warnings_stand_on_the_page(runs: Path, tmp_path: Path) -> None:
    write_report([runs], tmp_path / "report.html")
    words = " ".join(_check((tmp_path / "report.html").read_text(encoding="utf-8")).words)
    for text in ("95 % interval", "verdict", "p (Holm)", "Few seeds: with 2 pairs an interval is wide"):
        assert text in words


def test_students_of_several_sizes_make_a_figure_of_accuracy_against_size(runs: Path, tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.76, 0.78)):
        larger = make_result("ce() + icd()", seed, accuracy, student="middle", student_parameters=25_000)
        write_run(runs / f"larger-{seed}", larger)
    write_report([runs], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    labels = [str(image["aria-label"]) for image in _check(text).images]
    (told,) = [label for label in labels if "against parameters" in label]
    assert "icd: 71.0 % at 1,000, 77.0 % at 25,000" in told
    assert "student alone: 62.0 % at 1,000" in told
    assert "teacher big: 80.0 % at 200,000" in told
    drawn = next(svg for svg in re.findall(r"<svg role.*?</svg>", text, flags=re.DOTALL) if "against parameters" in svg)
    assert ">10k<" in drawn
    assert not re.search(r"#[0-9a-f]{6}\b", drawn), "a colour that does not follow the page"


def test_the_page_holds_commands_settings_and_versions(runs: Path, tmp_path: Path) -> None:
    write_report([runs], tmp_path / "report.html")
    words = " ".join(_check((tmp_path / "report.html").read_text(encoding="utf-8")).words)
    assert "limbeck distill --objective 'ce() + icd()' --seed 1" in words
    assert "torch 2.x" in words
    assert "lr: 0.1" in words


def test_the_same_runs_make_the_same_page(runs: Path, tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_report([runs], tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_unfinished_runs_alone_make_a_page(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a", None)
    assert write_report([tmp_path / "runs"], tmp_path / "report.html") == []
    assert "Unfinished runs: 1" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_text_of_a_run_cannot_become_part_of_the_page(tmp_path: Path) -> None:
    bad = '</title></svg><script>alert("x")</script>'
    result = make_result("kd()", 0, 0.5, student=bad, teacher=bad, data=bad, command=bad, device=bad)
    write_run(tmp_path / "runs" / "a", result, settings={"student": bad})
    other = make_result("icd()", 0, 0.5, student=bad, teacher=bad, data=bad)
    write_run(tmp_path / "runs" / "b", other, settings={"student": bad})
    write_report([tmp_path / "runs"], tmp_path / "report.html", bad)
    assert _check((tmp_path / "report.html").read_text(encoding="utf-8")).tags["script"] == 1


def test_mistakes_are_sentences(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no run to report on \(.*there is no such folder"):
        write_report([tmp_path / "nothing"], tmp_path / "report.html")
    with pytest.raises(SettingError, match="no folder was named"):
        write_report([], tmp_path / "report.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="cannot be written"):
        write_report([runs], tmp_path / "file" / "report.html")
    assert not (tmp_path / "report.html").exists()
