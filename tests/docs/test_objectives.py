"""Every objective is documented whole, and its page is current."""

from __future__ import annotations

import json
import re

import pytest

from limbeck.cli import main
from limbeck.cli.formula import readable
from limbeck.objectives import objectives

from .conftest import DOCS, load

hooks = load(DOCS / "hooks.py")
generate = load(DOCS / "generate.py")


def test_the_pages_are_what_the_classes_say() -> None:
    made = generate.pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "objectives").glob("*.md")}
    assert there == made, "run: python docs/generate.py"


@pytest.mark.parametrize("name", objectives())
def test_an_objective_says_all_that_explain_shows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", name, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["summary"].partition("\n")[0].endswith(".")
    assert facts["formula"]
    assert facts["needs"]
    assert facts["presets"]
    assert facts["sections"].get("Scale"), "the docstring needs a part 'Scale:'"
    assert [key for key, about in facts["arguments"].items() if not about["what"]] == []
    if name not in ("ce", "documents"):  # older than any paper; of none
        assert facts["paper"]["title"]
        assert facts["sections"].get("Differences"), "the docstring needs a part 'Differences:'"


@pytest.mark.parametrize("name", objectives())
def test_a_formula_is_drawn_by_browsers_and_terminals(name: str) -> None:
    formula = objectives()[name].formula
    drawn = hooks.mathml(formula, block=True)
    assert "<math" in drawn
    assert "\\" not in drawn, "a command that latex2mathml does not know"
    lines = readable(formula)
    assert lines
    assert not any(re.search(r"[\\{}]", line) for line in lines), "a command that pylatexenc does not know"


def test_dollars_are_formulas_in_text_only() -> None:
    text = "of $B$ rows\n\n$$a + b$$\n\n`$X` and `$Y`, 5\\$ or $HOME\n\n```sh\necho $A $B\n```\n"
    page = hooks.on_page_markdown(text)
    assert page.count("MATHML") == 2
    assert "echo $A $B" in page
    assert "`$X` and `$Y`, 5\\$ or $HOME" in page
    assert hooks.on_page_content(page).count("<math") == 2
