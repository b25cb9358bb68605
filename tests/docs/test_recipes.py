"""Every recipe is read by the settings type of its verb, and the benchmark's are the benchmark's protocol."""

from __future__ import annotations

from pathlib import Path

import pytest
from protocol import PROTOCOL

from limbeck.config import CompareSettings, DistillSettings, RunSettings, TrainSettings
from limbeck.contest import contest_of, entries_of
from limbeck.data.sources import find_source
from limbeck.data.views import parse_view_sets
from limbeck.models.spec import parse_spec
from limbeck.models.zoo import zoo_models
from limbeck.objectives import parse_objective

from .conftest import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def read(path: Path) -> RunSettings:
    text = path.read_text(encoding="utf-8")
    kinds = {"\nmodel:": TrainSettings, "\nobjectives:": CompareSettings}
    return next((kind for key, kind in kinds.items() if key in text), DistillSettings).read(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_names_what_exists(path: Path) -> None:
    settings = read(path)
    assert find_source(settings.data)
    assert parse_view_sets("none" if settings.augment == "auto" else settings.augment)
    networks = settings.model if isinstance(settings, TrainSettings) else getattr(settings, "student", None)
    for network in networks if isinstance(networks, list) else [networks]:
        assert parse_spec(network or "").name in zoo_models()
    if isinstance(settings, CompareSettings):
        assert entries_of(contest_of(settings))
    if isinstance(settings, DistillSettings):
        assert parse_objective(settings.objective)


@pytest.mark.parametrize("path", [p for p in RECIPES if p.stem.startswith("cifar100")], ids=lambda path: path.stem)
def test_the_benchmark_recipes_are_its_protocol(path: Path) -> None:
    settings = read(path)
    assert {key: getattr(settings, key) for key in PROTOCOL} == PROTOCOL
    assert settings.lr == 0.05


def test_the_defaults_are_the_protocol_but_for_validation() -> None:
    settings, recipe = DistillSettings(), find_source("cifar100")[0].recipe
    assert recipe.epochs == PROTOCOL["epochs"]
    assert recipe.augment == PROTOCOL["augment"]
    assert [m * recipe.epochs for m in settings.milestones] == PROTOCOL["milestones"]
    said = (
        "batch_size",
        "optimizer",
        "momentum",
        "nesterov",
        "weight_decay",
        "decay_norm_and_bias",
        "schedule",
        "gamma",
    )
    assert {key: getattr(settings, key) for key in said} == {key: PROTOCOL[key] for key in said}
