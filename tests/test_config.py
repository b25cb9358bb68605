"""Settings from YAML and back; what does not fit is a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.config import DistillSettings, Settings, StageSettings, TrainSettings
from limbeck.errors import SettingError


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


FULL: dict[str, Any] = {
    "teacher": "resnet32x4@teacher.safetensors",
    "student": "resnet8x4",
    "objective": "ce + 0.9*kd(temperature=4)",
    "stages": [{"objective": "icd()", "epochs": 2, "trains": ["objective"], "lr": 1e-5}],
    "taps": {"layer1": "blocks.0"},
    "data_dir": "/tmp/da ta/é",
    "milestones": [150, 0.75],
    "lr": 0.1,
    "ema": 0.999,
    "trackers": ["tensorboard"],
    "seed": 3,
}


@pytest.mark.parametrize("values", [{}, FULL], ids=["defaults", "full"])
@pytest.mark.parametrize("cls", [TrainSettings, DistillSettings])
def test_settings_written_as_yaml_are_read_as_the_same(cls: type[Settings], values: dict, tmp_path: Path) -> None:
    values = {key: value for key, value in values.items() if key in cls.model_fields}
    settings = cls.make(values)
    again = cls.read(write(tmp_path, settings.dump()))
    assert again == settings
    assert again.dump() == settings.dump()


def test_a_recipe_may_write_numbers_in_the_form_yaml_takes_for_text(tmp_path: Path) -> None:
    settings = TrainSettings.read(write(tmp_path, "lr: 5e-2\nweight_decay: 1e-4\nseed: 7\n"))
    assert (settings.lr, settings.weight_decay, settings.seed) == (0.05, 1e-4, 7)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x85\u2028\u2029"), max_size=30))
def test_any_text_survives_the_round_trip(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    settings = TrainSettings(name=text, model=text)
    path = write(tmp_path_factory.getbasetemp(), settings.dump())
    assert TrainSettings.read(path) == settings


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'; did you mean 'epochs'? Accepted: "),
        (
            {"stages": [{"objective": "ce", "epochs": 1, "leraning_rate": 1}]},
            "stages.0: unknown setting 'leraning_rate'",
        ),
        (
            {"stages": [{"objective": "ce", "epoch": 1}]},
            "did you mean 'epochs'? Accepted: objective, epochs, trains, lr, schedule.",
        ),
        ({"stages": [{"epochs": 1}]}, "stages.0.objective: field required"),
        ({"epochs": "many"}, "epochs: input should be a valid integer"),
        ({"epochs": "many"}, "got 'many'."),
        ({"epochs": 0}, "epochs: input should be greater than or equal to 1, got 0."),
        ({"epochs": 1.5}, "epochs: input should be a valid integer"),
        ({"optimizer": "adam"}, "optimizer: input should be 'sgd' or 'adamw', got 'adam'."),
        ({"taps": ["layer1"]}, "taps: input should be a valid dictionary"),
        ({"objective": 3}, "objective: input should be a valid string, got 3."),
        ({1: 2}, "keys should be strings"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_a_sentence_with_the_setting_and_the_value(values: dict, sentence: str) -> None:
    with pytest.raises(SettingError) as caught:
        DistillSettings.make(values)
    assert sentence in str(caught.value)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(SettingError) as caught:
        TrainSettings.make({"epochs": 0, "seed": -1, "optimiser": "sgd"}, source="my.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("my.yaml: ") for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        "model: !!python/object/apply:os.system ['touch {marker}']",
        "model: !!python/name:os.system",
        "!!python/object/new:subprocess.Popen [[touch, '{marker}']]",
        "model: !mine x",
    ],
)
def test_tags_that_make_objects_are_refused_and_run_nothing(text: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    with pytest.raises(SettingError, match="could not determine a constructor for the tag"):
        TrainSettings.read(write(tmp_path, text.format(marker=marker)))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model: [1", "cannot be read: .*line"),
        ("- model\n", "must hold 'name: value' lines, got list"),
        ("", "must hold 'name: value' lines, got NoneType"),
        ("model: 2024-13-45", "cannot be read: month must be in 1..12"),
        ("model: " + "[" * 2000, "cannot be read"),
        ("a: &a {b: *a}", "unknown setting 'a'"),
    ],
    ids=lambda text: text[:20],
)
def test_a_file_that_is_no_recipe_is_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=sentence):
        TrainSettings.read(write(tmp_path, text))


def test_a_file_that_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"model: \xff\xfe")
    with pytest.raises(SettingError, match="cannot be read"):
        TrainSettings.read(path)
    with pytest.raises(SettingError, match="cannot be read"):
        TrainSettings.read(tmp_path)


def test_a_missing_recipe_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "cifar100.yaml").touch()
    with pytest.raises(SettingError, match=r"there is no recipe .*cifar10\.yaml\. Did you mean cifar100\.yaml\?"):
        TrainSettings.read(tmp_path / "cifar10.yaml")
    with pytest.raises(SettingError, match=r"there is no recipe .*x\.yaml\.$"):
        TrainSettings.read(tmp_path / "nowhere" / "x.yaml")


@pytest.mark.parametrize("cls", [TrainSettings, DistillSettings, StageSettings])
def test_every_setting_has_a_description(cls: type[Settings]) -> None:
    assert [name for name, field in cls.model_fields.items() if not field.description] == []


def test_reading_settings_imports_no_torch() -> None:
    code = "import sys, limbeck.config; print(sorted({'torch', 'timm', 'numpy', 'torchvision'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
