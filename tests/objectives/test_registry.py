"""How an objective becomes known: a stranger's class, an installed plugin, and names that clash."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from torch import Tensor

from limbeck import objectives as package
from limbeck.errors import SettingError
from limbeck.objectives import KD, Objective, objectives, parse_objective, presets, registry
from limbeck.signals import Batch, Signals
from limbeck.testing import check_objective


def test_names_of_our_own_are_there_in_alphabetical_order() -> None:
    names = list(objectives())
    assert names == sorted(names)
    assert {"ce", "icd", "kd"} <= set(names)
    assert registry.aliases()["dcd"] == "icd"
    assert all(name == cls.name for name, cls in objectives().items())


def test_every_objective_and_only_public_names_are_exported() -> None:
    ours = {cls.__name__ for cls in objectives().values() if cls.__module__.startswith("limbeck.")}
    assert ours <= set(package.__all__)
    assert len(package.__all__) == len(set(package.__all__))
    assert all(hasattr(package, name) for name in package.__all__)


@pytest.mark.parametrize("name", objectives())
def test_every_objective_says_what_it_is(name: str) -> None:
    cls = objectives()[name]
    assert cls.__doc__
    assert cls.__doc__ != Objective.__doc__
    assert cls.formula
    if cls.paper is not None and cls.paper.arxiv is not None:
        assert cls.paper.link == f"https://arxiv.org/abs/{cls.paper.arxiv}"


def test_a_strangers_objective_is_ten_lines_and_keeps_the_contract() -> None:
    class Gap(Objective, name="gap", aliases=("mse",)):
        needs = frozenset({"logits"})
        zero_when_equal = True
        presets = {"gap": "ce + gap()"}

        def __init__(self, *, power: float, scale: float = 1.0) -> None:
            super().__init__()
            self.power, self.scale = power, scale

        def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
            return {"gap": self.scale * (student.logits - teacher.logits).abs().pow(self.power).mean()}

    check_objective("gap(power=2)")
    assert objectives()["gap"] is Gap
    assert presets()["gap"] == "ce + gap()"
    assert parse_objective("kd() + mse(power=3, scale=0.5)").expression() == "kd() + gap(power=3, scale=0.5)"
    with pytest.raises(SettingError, match=r"unknown argument of gap 'pwr'; did you mean 'power'"):
        parse_objective("gap(pwr=2)")
    with pytest.raises(SettingError, match="gap needs the argument 'power', as in"):
        parse_objective("gap(scale=2)")


def test_what_a_test_registers_is_forgotten_after_it() -> None:
    assert "gap" not in objectives()
    assert "gap" not in presets()
    assert "mse" not in registry.aliases()


PLUGIN = """
from limbeck.objectives import KD

class Plugged(KD, name="plugged"):
    pass
"""


def test_an_installed_plugin_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "limbeck_plug.py").write_text(PLUGIN)
    metadata = tmp_path / "limbeck_plug-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: limbeck-plug\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\nplugged = limbeck_plug:Plugged\n")
    assert "plugged" not in objectives()

    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    registry._load_all.cache_clear()
    assert objectives()["plugged"].__module__ == "limbeck_plug"
    assert parse_objective("plugged(temperature=2)").expression() == "plugged(temperature=2)"


@pytest.mark.parametrize(
    ("name", "aliases", "sentence"),
    [
        ("kd", (), r"the objective name 'kd' of .*Mine is taken by KD"),
        ("dcd", (), r"the objective name 'dcd' of .*Mine is taken by ICD"),
        ("mine", ("icd",), r"the objective name 'icd' of .*Mine is taken by ICD"),
        ("my-own", (), r"the objective name 'my-own' cannot be written in an expression"),
        ("lambda", (), r"the objective name 'lambda' cannot be written in an expression"),
        ("mine", ("two words",), r"the objective name 'two words' cannot be written"),
    ],
)
def test_a_name_that_is_taken_or_cannot_be_written_is_refused(
    name: str, aliases: tuple[str, ...], sentence: str
) -> None:
    before = objectives(), registry.aliases()
    with pytest.raises(SettingError, match=sentence):

        class Mine(Objective, name=name, aliases=aliases):
            pass

    assert (objectives(), registry.aliases()) == before


def test_a_preset_never_changes_its_meaning() -> None:
    with pytest.raises(SettingError, match=r"the preset 'ICD \+ kd' of .*Mine is taken by ICD"):

        class Mine(Objective, name="mine"):
            presets = {"ICD + kd": "ce + mine()"}

    assert "mine" not in objectives()


def test_the_same_class_defined_again_replaces_itself() -> None:
    def cell(default: float) -> type[Objective]:
        class Mine(Objective, name="mine", aliases=("own",)):
            presets = {"mine": "ce + mine()"}

            def __init__(self, *, weight: float = default) -> None:
                super().__init__()
                self.weight = weight

        return Mine

    cell(1.0)
    second = cell(2.0)
    assert objectives()["mine"] is second
    assert parse_objective("own(weight=1.0)").expression() == "mine(weight=1.0)"


def test_a_subclass_without_a_name_is_not_registered() -> None:
    class Hotter(KD):
        pass

    assert Hotter not in objectives().values()
    assert objectives()["kd"] is KD


def test_an_objective_without_forward_says_so() -> None:
    class Empty(Objective, name="empty"):
        pass

    with pytest.raises(SettingError, match="Empty defines no forward"):
        Empty()(Signals(), Signals(), Batch(*[Tensor()] * 2))


def around() -> type[Objective]:
    class Around(Objective, name="around", aliases=("about",)):
        takes_objective = True
        presets = {"around": "ce + around(kd(temperature=2))"}

        def __init__(self, objective: Objective | None = None, *, power: float = 1.0) -> None:
            super().__init__()
            self.objective, self.power = objective or KD(), power
            if isinstance(self.objective, Around):
                raise SettingError("around cannot stand in itself.")

    return Around


def test_an_objective_inside_another_is_made_first() -> None:
    cls = around()
    part = parse_objective("0.5*about(0.1*ce + dcd(alpha=1), power=2)").parts[0]
    assert isinstance(part, cls)
    assert part.expression() == "around(0.1*ce() + icd(alpha=1), power=2)"


def test_a_name_inside_is_the_objective_and_never_a_preset() -> None:
    around()
    assert parse_objective("around").expression() == "ce() + around(kd(temperature=2))"
    assert parse_objective("around(icd)").expression() == "around(icd())"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kd(ce)", r"kd takes no objective inside its parentheses, only arguments by name\."),
        ("icd(kd + ce, alpha=1)", "icd takes no objective inside its parentheses"),
        ("around(kd, ce)", "around takes one objective, which may be a sum, got 2"),
        ("around(kdd)", r"unknown objective 'kdd'; did you mean 'kd'\?"),
        ("around(kd(temprature=4))", "unknown argument of kd 'temprature'; did you mean 'temperature'"),
        ("around(kd, pwr=2)", r"unknown argument of around 'pwr'; did you mean 'power'\? Accepted: power\."),
        ("around(objective=2)", r"unknown argument of around 'objective'"),
        ("around(kd(temperature=0))", r"^kd: temperature must be greater than 0\.0"),
        ("around(around(kd))", r"^around: around cannot stand in itself"),
        ("around(0*kd)", "every weight of the objective is zero"),
        ("around(2)", r"arguments of around are given by name"),
        ("around('kd')", r"arguments of around are given by name"),
        ("around(2*2)", "expected a name"),
    ],
)
def test_mistakes_inside_the_parentheses_are_sentences(text: str, sentence: str) -> None:
    around()
    with pytest.raises(SettingError, match=sentence):
        parse_objective(text)
