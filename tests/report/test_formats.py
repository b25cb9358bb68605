"""The table in files: plain numbers that are read back, and LaTeX that means what it says."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import statistics
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pylatexenc.latex2text import LatexNodes2Text

from limbeck.errors import SettingError
from limbeck.report.formats import csv_text, json_text, latex, latex_text, rows_of_json, write_tables
from limbeck.report.rows import MethodRow, summarise
from limbeck.report.table import markdown
from limbeck.runs import Result

from .conftest import make_result

ALONE, ICD = [0.60, 0.64, 0.61], [0.70, 0.72, 0.74]
_ODD = 'a_b & 50% #1 {x} \\y ~z^ $ <|> "q" é × 1'


def _rows(**changes: object) -> list[MethodRow]:
    results = [make_result("ce()", seed, value, teacher=None) for seed, value in enumerate(ALONE)]
    results += [make_result("ce() + icd(alpha=0.25)", seed, value) for seed, value in enumerate(ICD)]
    results.append(make_result("kd()", 0, 0.5))
    shared = {"shared_seconds": 30.0, "shared_with": 6, "memory_mb": 12.4}
    return summarise([replace(result, **{**shared, **changes}) for result in results])  # type: ignore[arg-type]


_ROWS = _rows()


def _read(rows: list[MethodRow]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(rows))))


def test_csv_has_plain_numbers_and_nothing_where_there_is_none() -> None:
    rows = _ROWS
    teacher, alone, icd, kd = _read(rows)
    assert (teacher["label"], teacher["is_teacher"], teacher["seeds"]) == ("teacher big", "true", "")
    assert (alone["baseline"], alone["difference_mean"], alone["teacher"]) == ("true", "", "")
    assert (icd["label"], icd["objective"]) == ("ce + icd(alpha=0.25)", "ce() + icd(alpha=0.25)")
    assert icd["seeds"] == "0 1 2"
    assert [float(value) for value in icd["scores"].split()] == ICD
    assert float(icd["test_mean"]) == pytest.approx(statistics.mean(ICD))
    assert float(icd["test_std"]) == pytest.approx(statistics.stdev(ICD))
    assert (icd["test_n"], icd["difference_n"], icd["difference_verdict"]) == ("3", "3", "better")
    difference = rows[2].difference
    assert difference is not None
    for name in ("mean", "std", "low", "high", "p", "p_holm"):
        assert float(icd[f"difference_{name}"]) == getattr(difference, name)
    assert (float(icd["shared_seconds_mean"]), icd["shared_with"], float(icd["memory_mb_mean"])) == (30.0, "6", 12.4)
    assert (kd["test_std"], kd["test_n"], kd["difference_mean"], kd["difference_verdict"]) == ("", "1", "", "")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_csv_and_json_give_any_name_back(name: str) -> None:
    rows = [replace(row, data=name) for row in _ROWS]
    assert rows_of_json(json_text(rows)) == rows
    assert len(csv_text(rows).split("\n")) == len(rows) + 2  # the head, and the end of the last line
    found = {record["data"] for record in _read(rows)}
    assert len(found) == 1
    if name.isprintable():
        assert found == {name}


def test_json_says_what_is_said_below_the_table() -> None:
    value = json.loads(json_text(_ROWS))
    assert (value["version"], value["level"]) == (1, 0.95)
    assert "Few seeds: with 3 pairs" in value["note"]
    assert value["rows"][2]["difference"]["verdict"] == "better"
    assert value["rows"][2]["scores"] == ICD


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2, "rows": []}', '{"version": 1, "rows": [{"label": 3}]}']
)
def test_another_json_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="the table"):
        rows_of_json(text)


# LaTeX


@given(st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_latex_means_the_text(text: str) -> None:
    encoded = latex_text(text)
    plain = re.sub(r"\\textbackslash|\\[%&#$_{}]", "", encoded)
    assert not re.search(r"[%&#$_]", plain), "a character that LaTeX takes for a command"
    assert plain.count("{") == plain.count("}")
    decoded = LatexNodes2Text(strict_latex_spaces=True).latex_to_text(encoded.replace(r"{\char34}", '"'))
    # How the reader writes these two.
    assert decoded.translate(str.maketrans("\u02c6\u02dc", "^~")) == text


@given(st.text())
def test_latex_stays_on_its_line(text: str) -> None:
    assert len(latex_text(text).splitlines()) <= 1


def test_the_latex_table() -> None:
    text = latex(_ROWS)
    lines = text.splitlines()
    remarks = [line for line in lines if line.startswith("%")]
    assert r"\usepackage{booktabs}" in remarks[0]
    assert "Few seeds: with 3 pairs" in " ".join(line[2:] for line in remarks)
    body = lines[len(remarks) :]
    assert body[0].startswith(r"\begin{tabular}{lrrr")
    assert body[1] == r"\toprule"
    assert r"test \% & vs baseline & 95 \% interval & verdict" in body[2]
    icd = next(line for line in body if "icd" in line)
    assert icd.startswith(r"\texttt{ce + icd(alpha=0.25)} & $3$ & $72.00 \pm 2.00$ & $+10.33 \pm 2.52$")
    assert "& $+4.08$ to $+16.58$ & better & $0.019$ &" in icd
    assert r"\texttt{kd()} & $1$ & $50.00 \pm{}$ -- & -- &" in text
    assert "student alone & $3$" in text
    assert body[-2:] == [r"\bottomrule", r"\end{tabular}"]
    columns = len(body[2].split(" & "))
    assert all(len(line.split(" & ")) == columns for line in body if line.endswith(r"\\"))


def test_the_labels_remarks_are_no_code() -> None:
    rows = summarise([make_result("kd()", 0, 0.5), make_result("kd()", 0, 0.6, epochs=9)], ["", "lr=1_0"])
    assert r"\texttt{kd()} $\cdot$ lr=1\_0 $\cdot$ 9 epochs & " in latex(rows)


def test_thousands_and_small_p_values_in_latex() -> None:
    many = [make_result("ce()", seed, 0.5 + seed % 2 / 1000, teacher=None, seconds=12345.6) for seed in range(8)]
    many += [make_result("kd()", seed, 0.7 + seed % 3 / 1000, seconds=1.0) for seed in range(8)]
    text = latex(summarise(many))
    assert "$12{,}345.6$" in text
    assert "$<0.001$" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not on the PATH")
@pytest.mark.parametrize("name", ["digits", _ODD])
def test_latex_compiles(tmp_path: Path, name: str) -> None:
    if subprocess.run(["kpsewhich", "booktabs.sty"], stdout=subprocess.DEVNULL).returncode != 0:
        pytest.skip("the package booktabs is not installed")
    several = [make_result("ce() + icd(alpha=0.25)", 0, 0.5, data=name, student=name), make_result("kd()", 0, 0.5)]
    (tmp_path / "table.tex").write_text(latex([*_rows(data=name), *summarise(several)]), encoding="utf-8")
    lines = [r"\documentclass{article}\usepackage{booktabs}\begin{document}", r"\input{table.tex}\end{document}"]
    (tmp_path / "page.tex").write_text("\n".join(lines))
    command = ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]


# Files


def test_the_four_files_hold_the_same_rows(tmp_path: Path) -> None:
    rows = _ROWS
    paths = write_tables(rows, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["table.md", "table.csv", "table.tex", "table.json"]
    texts = [path.read_bytes().decode() for path in paths]
    assert texts == [markdown(rows), csv_text(rows), latex(rows), json_text(rows)]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(path.name for path in paths)
    again = write_tables(rows[:1], tmp_path / "new" / "folder")
    assert rows_of_json(again[-1].read_text(encoding="utf-8")) == rows[:1]
    assert write_tables(rows, tmp_path, "results")[0] == tmp_path / "results.md"


def test_no_rows_make_tables_too(tmp_path: Path) -> None:
    for path in write_tables([], tmp_path):
        assert path.stat().st_size > 0
    assert rows_of_json((tmp_path / "table.json").read_text()) == []


def test_a_folder_that_cannot_be_written_to_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match=r"the table cannot be written to .*table\.md"):
        write_tables(_ROWS, tmp_path / "file" / "folder")


def test_a_result_of_before_has_no_shared_pass(tmp_path: Path) -> None:
    old = {key: value for key, value in make_result("kd()", 0, 0.5).as_dict().items() if "shared" not in key}
    row = summarise([Result(**old)])[-1]
    assert (row.shared_seconds, row.shared_with, row.memory_mb) == (None, 1, None)
