"""The page: whole by itself, well-formed, readable without colour or eyes, and working in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from limbeck.errors import SettingError
from limbeck.report.page import headline, write_report
from limbeck.report.table import summarise

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
    assert len(checker.images) == checker.tags["figure"] == 5  # validation, test, and the loss of each method
    labels = [str(image["aria-label"]) for image in checker.images]
    assert "icd+kd ends at 60.0 %" in labels[0]
    assert "icd.contrast from 1 to 0.333" in " ".join(labels)
    drawn = re.findall(r"<svg role.*?</svg>", text, flags=re.DOTALL)
    assert len(drawn) == 5
    for svg in drawn:
        assert svg.count("<title>") == 1
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


def test_the_headline_keeps_to_what_was_measured() -> None:
    results = [make_result("ce()", seed, 0.6 + seed / 100, teacher=None) for seed in range(2)]
    results += [make_result("ce() + icd()", seed, 0.76 + seed / 50) for seed in range(2)]
    main, sure = headline(summarise(results))
    assert main == "icd keeps 96 % of the teacher's accuracy at 1/200 of its parameters"
    assert "77.00 ± 1.41 %" in sure
    # 0.5 points of standard error, times Student's t of 12.706 at one degree of freedom.
    assert "student alone: +16.50 ± 0.71 points, paired over 2 seeds, 95 % interval +10.15 to +22.85: better." in sure
    assert "with 2 pairs an interval is wide, 9.0 standard deviations" in sure


@pytest.mark.parametrize(("accuracy", "share"), [(0.797, "99.6 %"), (0.8, "100 %"), (0.82, "102 %")])
def test_the_headline_does_not_round_up_to_the_whole(accuracy: float, share: str) -> None:
    main, sure = headline(summarise([make_result("kd()", 0, accuracy, teacher_parameters=3_000)]))
    assert main == f"kd() keeps {share} of the teacher's accuracy at 33% of its parameters"
    assert "one seed, so without an error bar" in sure


def test_the_headline_without_a_teacher_or_a_test() -> None:
    main, _ = headline(summarise([make_result("ce()", 0, 0.6, teacher=None)]))
    assert main == "student alone reaches 60.0 % test accuracy on digits"
    main, _ = headline(summarise([make_result("ce()", 0, 0.6, teacher=None, test=None)]))
    assert main == "student alone reaches 59.0 % validation accuracy on digits"
    assert headline([]) == ("No finished run has an accuracy yet", "")


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


# In a browser

_PROBE = """<script>
const order = () => [...document.querySelectorAll("tbody tr")].map((row) => row.cells[0].textContent).join(",");
const press = (number) => document.querySelectorAll("thead button")[number].click();
const found = [order()];
press(2); found.push(order()); press(2); found.push(order()); press(0); found.push(order());
found.push(performance.getEntriesByType("resource").length);
const boxes = [...document.querySelectorAll("figure > svg")].map((svg) => svg.getBoundingClientRect());
found.push(boxes.filter((box) => box.width > 250 && box.height > 80).length);
found.push(document.documentElement.scrollWidth <= innerWidth);
document.body.innerHTML = "<output></output>";
document.querySelector("output").textContent = found.join("|");
</script>"""


def _browse(page: Path, profile: Path, width: int) -> subprocess.CompletedProcess[str]:
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
    command = ["chromium", *flags.split(), f"--user-data-dir={profile}", f"--window-size={width},900", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not on the PATH")
@pytest.mark.parametrize("width", [1200, 500])
def test_in_a_browser(runs: Path, tmp_path: Path, width: int) -> None:
    write_report([runs], tmp_path / "report.html")
    page = tmp_path / "probed.html"
    page.write_text((tmp_path / "report.html").read_text(encoding="utf-8").replace("</body>", f"{_PROBE}</body>"))
    done = _browse(page, tmp_path / "profile", width)
    assert "CONSOLE" not in done.stderr
    found = re.search(r"<output>(.*?)</output>", done.stdout)
    assert found is not None
    assert found[1].split("|") == [
        "teacher big,student alone,icd+kd,icd",
        "teacher big,icd+kd,icd,student alone",
        "student alone,icd,icd+kd,teacher big",
        "icd,icd+kd,student alone,teacher big",
        "0",  # requests
        "5",  # figures that are seen
        "true",  # the page itself never scrolls sideways
    ]
