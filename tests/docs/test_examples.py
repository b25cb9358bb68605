"""What README and docs tell readers to type works."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import statistics
from pathlib import Path

import pytest
import yaml

from limbeck.cli import main
from limbeck.cli.arguments import parse
from limbeck.cli.verbs import VERBS
from limbeck.config import CompareSettings, DistillSettings, TrainSettings
from limbeck.contest import contest_of, entries_of, objectives_of
from limbeck.job import taught
from limbeck.objectives import parse_objective
from limbeck.objectives.expand import expand_objectives
from limbeck.plugins import load_plugins
from limbeck.testing import check_objective

from .conftest import PAGES, ROOT, Block, blocks, name

EXAMPLE = ROOT / "examples" / "my_loss.py"
_QUICK = ("list", "explain")


def commands(page: Path) -> list[list[str]]:
    """The words after ``limbeck`` of each command on a page."""
    text = "".join(block.text for block in blocks(page, "sh")).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    starts = [words[1:] for words in lines if words[:1] == ["limbeck"]]
    return starts + [words[words.index("limbeck") + 1 :] for words in lines if words[:1] == ["torchrun"]]


def places() -> list[str]:
    return [name(page) for page in PAGES]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages speak of, as the current one."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "runs" / "NAME").mkdir(parents=True)
    shutil.copy(ROOT / "recipes" / "digits.yaml", tmp_path / "runs" / "NAME" / "config.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIMBECK_PLUGINS", raising=False)
    return tmp_path


@pytest.mark.parametrize("page", [name(page) for page in PAGES if blocks(page, "python")])
def test_python_on_a_page_compiles_and_runs_where_it_says_so(page: str, desk: Path) -> None:
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks(ROOT / page, "python"):
        code = compile(block.text, page, "exec")
        if block.mark == "test":
            # Readers train for longer than a test may.
            exec(compile(re.sub(r"epochs=\d{2,}", "epochs=1", block.text), page, "exec"), namespace)
        assert code


@pytest.mark.parametrize("page", [name(page) for page in PAGES if commands(page)])
def test_commands_on_a_page_are_understood(page: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(ROOT / page):
        if words[:1] in ([], ["--help"]):
            continue
        settings, _ = parse(VERBS[words[0]], words[1:])
        load_plugins(getattr(settings, "plugins", []))
        if isinstance(settings, DistillSettings):
            assert parse_objective(taught(settings, None).objective or "")
        if isinstance(settings, CompareSettings):
            assert expand_objectives(list(objectives_of(settings, None)))
        if words[0] in _QUICK and "timm" not in " ".join(words):
            assert main(words) == 0, capsys.readouterr().err


@pytest.mark.parametrize("page", places())
def test_settings_on_a_page_are_settings(page: str) -> None:
    for block in blocks(ROOT / page, "yaml"):
        values = yaml.safe_load(block.text)
        kinds = {"model": TrainSettings, "objectives": CompareSettings}
        made = next((kind for name, kind in kinds.items() if name in values), DistillSettings).make(values)
        if isinstance(made, CompareSettings):
            assert entries_of(contest_of(made))
        if isinstance(made, DistillSettings):
            assert parse_objective(taught(made, None).objective or "")
            assert all(parse_objective(stage.objective) for stage in made.stages)


def test_copies_of_files_on_pages_are_current() -> None:
    copies: list[Block] = [b for page in PAGES for b in blocks(page, "python") if b.mark.startswith("file: ")]
    assert {name(block.page) for block in copies} == {"README.md", "docs/how-to/your-own-loss.md"}
    for block in copies:
        assert block.text == (ROOT / block.mark.removeprefix("file: ")).read_text(encoding="utf-8")


def test_the_example_loss_keeps_the_contract(desk: Path) -> None:
    load_plugins(["my_loss.py"])
    check_objective("brier")
    check_objective("ce + 2*brier")


def test_the_readmes_cifar_figures_are_those_of_the_results() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for run in ("resnet8-alone", "resnet8-kd", "resnet8-icd+kd"):
        result = json.loads((ROOT / "results" / "cifar100-cpu" / f"cifar100-{run}.json").read_text(encoding="utf-8"))
        assert f"{100 * result['test']['accuracy']:.2f} %" in text


def test_the_tables_of_methods_are_those_of_the_results() -> None:
    folder = ROOT / "results" / "cifar100-methods"
    runs = json.loads((folder / "runs.json").read_text(encoding="utf-8"))
    accuracies: dict[str, list[float]] = {}
    for run, result in runs.items():
        accuracies.setdefault(run.rpartition("-seed")[0], []).append(100 * result["test"]["accuracy"])
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", folder / "README.md")]
    assert len(accuracies) == len(runs) / 3 == 12
    for values in accuracies.values():
        figure = f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
        assert all(figure in page for page in pages), figure


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_to_files_lead_somewhere(page: str) -> None:
    # Those between pages of docs are checked by mkdocs --strict.
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
