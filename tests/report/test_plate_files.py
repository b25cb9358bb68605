"""Figures for a paper: vectors with text, the same bytes each time, and whole or not at all."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from limbeck.errors import SettingError
from limbeck.report.figures import Series, curves
from limbeck.report.plate_files import PRINT, write_plates
from limbeck.report.plate_html import figure_html
from limbeck.report.plates import Palette, Plate

_LINES = [Series(f"_method ${number}", [1, 2, 3], [1, 2, 3], [0, 1, 2], [2, 3, 4], number) for number in range(3)]


def _draw(palette: Palette) -> Figure:
    return curves(palette, _LINES, "accuracy, %")


def _plate(name: str = "curve", marked: bool = False) -> Plate:
    legend = [(line.label, line.number) for line in _LINES]
    return Plate(name, "A *title*", "a caption", "from 1 to\n3 %", _draw, legend, marked=marked)


@pytest.mark.parametrize("marked", [False, True])
def test_a_figure_is_two_vector_files_with_its_legend(tmp_path: Path, marked: bool) -> None:
    svg, pdf, readme = write_plates([_plate(marked=marked)], tmp_path / "new" / "folder")
    assert [path.name for path in (svg, pdf, readme)] == ["curve.svg", "curve.pdf", "README.md"]
    text = svg.read_text()
    words = " ".join("".join(element.itertext()) for element in ElementTree.fromstring(text).iter() if element.text)
    assert "accuracy, %" in words
    assert "_method $2" in words
    assert "<image" not in text
    for number in range(3):
        assert PRINT.series[number] in text
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/Type /Font /Subtype /Type0" in content or b"/FontFile2" in content
    assert b"/Subtype /Type3" not in content
    assert b"CreationDate" not in content
    assert r"**A \*title\*.** a caption" in readme.read_text()
    assert "from 1 to 3 %" in readme.read_text()


def test_the_same_figures_make_the_same_bytes_and_replace_what_is_there(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "curve.svg").write_text("old")
        (tmp_path / name / "mine.txt").write_text("kept")
    first, second = (write_plates([_plate()], tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "README.md",
        "curve.pdf",
        "curve.svg",
        "mine.txt",
    ]


def test_names_are_those_of_files_and_no_two_are_the_same(tmp_path: Path) -> None:
    names = ["../up/icd+kd", "Icd", "icd", "", "readme", "é" * 300]
    empty = [Plate(name, "", "", "", lambda palette: Figure(figsize=(1, 1))) for name in names]
    paths = write_plates(empty, tmp_path / "folder")
    assert {path.parent for path in paths} == {tmp_path / "folder"}
    stems = [path.stem for path in paths[:-1:2]]
    assert stems == ["up-icd+kd", "Icd", "icd-2", "figure", "readme-2", "figure-2"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    listed = re.findall(r"^## (.*)$", paths[-1].read_text(), flags=re.MULTILINE)
    assert listed == stems


def test_a_folder_that_cannot_be_written_to_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match=r"the figures cannot be written to .*curve\.svg"):
        write_plates([_plate()], tmp_path / "file" / "folder")


def test_no_figures_make_an_empty_list(tmp_path: Path) -> None:
    assert [path.name for path in write_plates([], tmp_path)] == ["README.md"]


def test_letters_that_no_font_has_are_no_warning_a_letter(tmp_path: Path) -> None:
    lines = [Series("猫", [1, 2], [1, 2], [0, 1], [2, 3])]
    plate = Plate("猫", "猫", "a caption", "a cat", lambda palette: curves(palette, lines, "猫 नमस्ते"), [("猫", 0)])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        svg, *_ = write_plates([plate], tmp_path)
        drawn = figure_html(plate, 0)
    assert said == []
    assert "猫" in svg.read_text(encoding="utf-8")
    assert "猫 नमस्ते" in drawn
