"""The package holds the published numbers as they were recovered: all of them, and no other."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from limbeck.errors import SettingError
from limbeck.published.tables import EVIDENCE, _VisionFile, find_table, read_data, tables

# Of every cell with its table, method, column, figure and standard deviation. A changed number must change this line too.
CHECKSUM = "e1b248f95af36ceb2df25d0c0e9ca6fc06e74f38a4a459b578e57f31a84a0612"
# What the specification says of the systems beside results, and is no published number: our own check, and judgements.
NOT_PUBLISHED = {"token_law_check_V", "defects_found"}
RESULTS = {
    *(
        "table1_it_init_K25",
        "relative_gains_percent",
        "side_results_S",
        "max_training_time_reduction",
        "results",
        "tables",
    ),
    *("retention_asymmetric_tenth_size_percent", "retention_S_percent", "ablation_11_3M", "beir_tables"),
    *("cross_encoder_tables", "cifar10_retrieval_percent", "cifar10_precision_extra", "classification_table"),
    "other_datasets_tables",
}
HEAD = {"title", "arxiv", "version", "venue", "code"}


def test_no_number_has_changed() -> None:
    cells = [(t.id, c.method, c.column.label, c.figure, c.std) for t in tables() for c in t.cells()]
    assert len(cells) == 1439
    assert sum(figure is not None for *_, figure, _ in cells) == 1431
    assert hashlib.sha256(json.dumps(cells).encode()).hexdigest() == CHECKSUM


def test_every_table_says_what_it_rests_on() -> None:
    assert len({table.id for table in tables()}) == len(tables())
    for table in tables():
        assert table.evidence in EVIDENCE
        recovered = not table.id.startswith("NOT_RECOVERED")
        assert bool(table.numbers) == recovered == (table.evidence != "none")
        if table.evidence == "readme":
            assert len(table.source.commit or "") == 40
            assert table.source.repo
            assert table.source.date
            assert table.source.file


def test_nulls_stay_nulls() -> None:
    fsp = [cell for cell in find_table("repdistiller_cifar100_same").cells() if cell.method == "FSP"]
    assert [cell.column.student for cell in fsp if cell.figure is None] == ["wrn-40-1"]
    assert all(cell.std is None for cell in fsp)
    assert "teacher" not in find_table("mdistiller_dkd_cifar100_same").methods


def test_a_misprinted_column_keeps_both_names() -> None:
    column = find_table("mdistiller_dkd_cifar100_cross").columns[-1]
    assert (column.student, column.printed_student) == ("ShuffleNet-V2", "MobileNet-V2")


def test_errors_are_no_accuracies() -> None:
    table = find_table("ofd_cifar100")
    assert table.is_error
    assert table.columns[0].student_figure == 22.72
    assert not find_table("dist_cifar100").is_error


def test_standard_deviations_are_there_where_they_are_printed() -> None:
    with_std = {table.id for table in tables() for cell in table.cells() if cell.std is not None}
    assert with_std == {"dist_cifar100"}


def test_an_unknown_table_gets_the_nearest_spelling() -> None:
    assert find_table("DIST_cifar100").id == "dist_cifar100"
    with pytest.raises(SettingError, match="did you mean 'wsld_imagenet'"):
        find_table("wsld_imagnet")


@pytest.mark.parametrize(
    "change",
    [
        {"rows": [{"method": "KD", "values": [1.0], "std": None}]},
        {"rows": [{"method": "KD", "values": [1.0, 2.0], "std": [0.1]}]},
        {"rows": [{"method": "KD", "values": ["1.0", 2.0], "std": None}]},
        {"remark": "what is this"},
    ],
)
def test_a_malformed_table_is_refused(change: dict[str, Any]) -> None:
    whole = json.loads(read_data("vision.json"))
    whole["tables"] = [{**whole["tables"][0], "columns": whole["tables"][0]["columns"][:2], "rows": []}]
    assert _VisionFile.model_validate_json(json.dumps(whole))
    whole["tables"][0] |= change
    with pytest.raises(ValidationError):
        _VisionFile.model_validate_json(json.dumps(whole))


def test_tables_and_plans_need_no_torch() -> None:
    code = (
        "import sys; from limbeck.published import plan, tables; plan(tables()[0].cells()[0]); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture(scope="module")
def spec(shared: Path) -> Any:
    file = shared / "spec" / "paper_tables.json"
    if not file.is_file():
        pytest.skip(f"there is no {file}, from which the numbers were taken")
    return json.loads(file.read_text(encoding="utf-8"))


def test_vision_tables_are_those_of_the_specification(spec: Any) -> None:
    assert json.loads(read_data("vision.json")) == spec["vision"]


def test_systems_are_those_of_the_specification(spec: Any) -> None:
    ours = {system["id"]: system for system in json.loads(read_data("systems.json"))["systems"]}
    assert ours.keys() == spec["systems"].keys() - {"_meta"}
    for name, system in ours.items():
        theirs = spec["systems"][name]
        assert {key: system[key] for key in HEAD} == {key: theirs.get(key) for key in HEAD}
        assert system["settings"] == {k: v for k, v in theirs.items() if k not in HEAD | RESULTS | NOT_PUBLISHED}
        results = {key: value for key, value in theirs.items() if key in RESULTS}
        assert Counter(_numbers(system["tables"])) == Counter(_numbers(results)), name


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner)
    elif isinstance(value, int | float):
        yield value
