"""Lists of objectives and ranges: what they stand for, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Optional, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limbeck.errors import SettingError
from limbeck.objectives import Objective, objectives, parse_objective, presets, registry
from limbeck.objectives.expand import LIMIT, expand_objectives, objective_identity
from limbeck.signals import Batch, Signals


@pytest.mark.parametrize(
    ("text", "expressions"),
    [
        ("kd, icd, icd+kd, crd, at", ["kd", "icd", "icd+kd", "crd", "at"]),
        (["kd, icd", "crd"], ["kd", "icd", "crd"]),
        (" kd ,\n  icd,\n", ["kd", "icd"]),
        ("icd(alpha=[0.1,0.5,1])", ["icd(alpha=0.1)", "icd(alpha=0.5)", "icd(alpha=1)"]),
        ("ce + icd(alpha=[0.1, 1], dim=64)", ["ce + icd(alpha=0.1, dim=64)", "ce + icd(alpha=1, dim=64)"]),
        ("[0.5, 2]*kd() + ce", ["0.5*kd() + ce", "2*kd() + ce"]),
        ("ce + kd*[1, -1]", ["ce + kd*1", "ce + kd*-1"]),
        ("[1, 2]*(ce + kd)", ["1*(ce + kd)", "2*(ce + kd)"]),
        (
            "ce + [1, 2]*kd(temperature=[4, 8])",
            [f"ce + {weight}*kd(temperature={t})" for weight in (1, 2) for t in (4, 8)],
        ),
        ("decay([1, 2], 0.7)*kd", ["decay(1, 0.7)*kd", "decay(2, 0.7)*kd"]),
        ("decay(3, factor=[0.5, 0.7])*kd + ce", [f"decay(3, factor={f})*kd + ce" for f in (0.5, 0.7)]),
        ("[1, 2]*until(epochs=3)*kd", ["1*until(epochs=3)*kd", "2*until(epochs=3)*kd"]),
        (
            "ramp(0, [1, 2], epochs=3, shape=['linear', 'sigmoid'])*(ce + kd)",
            [
                f"ramp(0, {end}, epochs=3, shape='{shape}')*(ce + kd)"
                for end in (1, 2)
                for shape in ("linear", "sigmoid")
            ],
        ),
        ("lskd(decay([1, 2], 0.7)*kd)", ["lskd(decay(1, 0.7)*kd)", "lskd(decay(2, 0.7)*kd)"]),
        ("lskd(kd(temperature=[2, 3]))", ["lskd(kd(temperature=2))", "lskd(kd(temperature=3))"]),
        ("rrd(variant=['2024', '2025'])", ["rrd(variant='2024')", "rrd(variant='2025')"]),
        (
            "icd(symmetric=[True, False], alpha=0.3)",
            ["icd(symmetric=True, alpha=0.3)", "icd(symmetric=False, alpha=0.3)"],
        ),
        ("ft(init_lr=[None, 0.1])", ["ft(init_lr=None)", "ft(init_lr=0.1)"]),
        ("mlkd(temperatures=[2, 4])", ["mlkd(temperatures=[2, 4])"]),
        ("mlkd(temperatures=[[2, 4], (3,)])", ["mlkd(temperatures=[2, 4])", "mlkd(temperatures=(3,))"]),
        ("icd(alpha=[0.5])", ["icd(alpha=0.5)"]),
    ],
)
def test_what_a_text_stands_for(text: str | list[str], expressions: list[str]) -> None:
    assert expand_objectives(text) == expressions


def test_every_preset_stays_as_it_is() -> None:
    alone: dict[object, str] = {}
    for name in presets():  # some presets are other names of the same
        alone.setdefault(objective_identity(name), name)
    assert expand_objectives(", ".join(alone.values())) == list(alone.values())


numbers = st.integers(1, 99).map(lambda value: value / 10)


several = st.lists(numbers, min_size=1, max_size=4, unique=True)


@settings(max_examples=20)
@given(several, several, several)
def test_ranges_make_every_combination_and_the_last_runs_fastest(
    a: list[float], b: list[float], c: list[float]
) -> None:
    found = expand_objectives(f"ce + {a}*dkd(beta={b}) + kd(temperature={c})")
    wanted = [f"ce() + {x}*dkd(beta={y}) + kd(temperature={z})" for x, y, z in itertools.product(a, b, c)]
    assert [str(parse_objective(text)) for text in found] == [str(parse_objective(text)) for text in wanted]


@given(
    st.lists(
        st.sampled_from(["kd", "at", "(", ")", "[", "]", ",", "=", "'", '"', "\\", "é", "*", "1", "\n"]), max_size=12
    )
)
def test_any_text_is_expanded_or_refused(parts: list[str]) -> None:
    try:
        found = expand_objectives("".join(parts))
    except SettingError:
        return
    assert found
    for text in found:
        parse_objective(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("icdd(alpha=[1, 2])", "unknown objective 'icdd'; did you mean 'icd'?"),
        ("kd, crdd", "unknown objective 'crdd'; did you mean 'crd'?"),
        ("icd(alfa=[1, 2])", "unknown argument of icd 'alfa'; did you mean 'alpha'?"),
        ("rrd(variant=['2023', '2025'])", "rrd: variant: unknown value '2023'"),
        ("icd(alpha=(1, 2))", "alpha must be a finite number"),
        ("icd(alpha=[[1, 2], 3])", "alpha must be a finite number"),
        ("mlkd(temperatures=[2, [4]])", "mlkd"),
        ("icd(alpha=[])", "is empty"),
        ("[]*kd", "is empty"),
        ("[ce, kd]*2", "expected a name"),
        ("ce + [kd, icd]", "expected a name"),
        ("kd(**[1])", "is not part of this language"),
        ("kd(temperature=[__import__('os').getpid()])", "an argument is a number"),
        ("[__import__('os').getpid()]*kd", "a product needs a number on one side"),
        ("kd(temperature=[4, *x])", "cannot be read|an argument is"),
        ("kd, , icd", "nothing stands between two of the commas"),
        ("", "none is named"),
        (" , ", "none is named"),
        ([], "none is named"),
        ([3], "expected text such as"),
        ("ce + (kd, icd", "never closed"),
        ("kd(x='\ud800')", "cannot be read"),
        ("(" * 5000, "deeply nested|cannot be read"),
        ("ce + " * 20_000 + "ce", "deeply nested"),
        ("[0, 1]*kd", "every weight of the objective is zero"),
        ("decay([], 0.7)*kd", "is empty"),
        ("decay([1, 2], 3)*kd", r"decay\(1, 3\): factor must be at most 1.0, got 3"),
        ("decay([[1, 2], 3], 0.5)*kd", r"decay\(\[1, 2\], 0.5\): start must be a finite number"),
        ("decay([1, 2], 0.5)", "a schedule is a weight, and needs an objective"),
    ],
)
def test_mistakes_are_sentences(text: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        expand_objectives(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("kd, icd, kd", ["'kd' is named twice"]),
        ("icd(alpha=[0.1, 0.1])", [r"'icd\(alpha=0.1\)' is named twice"]),
        ("icd+kd, kd+icd", ["'icd\\+kd'", "'kd\\+icd'", "the same objective"]),
        ("kd, 0.9*kd(temperature=4) + 0.1*ce", ["'kd'", "0.9", "the same objective"]),
        ("icd(alpha=[0.5, 1]), icd()", [r"'icd\(alpha=0.5\)'", r"'icd\(\)'", "the same objective"]),
    ],
)
def test_an_objective_that_is_named_twice_is_an_error(text: str, names: list[str]) -> None:
    with pytest.raises(SettingError, match=".*".join(names)):
        expand_objectives(text)


def test_identities_tell_objectives_apart_and_not_their_spelling() -> None:
    assert objective_identity("icd") == objective_identity("icd() + ce") != objective_identity("icd()")
    assert objective_identity("2*(ce + kd)") == objective_identity("2*kd(temperature=4.0) + 2*ce")
    assert objective_identity("ce + kd") != objective_identity("ce + 0.5*kd")
    assert objective_identity("decay(2, 0.5)*3*until(4)*kd + kd") == objective_identity(
        "kd*1 + until(epochs=4)*(3*decay(2.0, factor=0.5)*kd)"
    )
    assert objective_identity("decay(2, 0.5)*kd") != objective_identity("decay(2, 0.6)*kd")


def test_more_than_the_limit_is_an_error_with_its_number() -> None:
    values = [number / 100 for number in range(1, LIMIT + 1)]
    assert len(expand_objectives(f"icd(alpha={values})")) == LIMIT
    with pytest.raises(SettingError, match=f"stand for {LIMIT + 1} expressions, and at most {LIMIT}"):
        expand_objectives(f"crd, icd(alpha={values})")
    many = list(range(1, 1001))
    with pytest.raises(SettingError, match=r"'\[1, 2.* alone stands for 1,000,000,000"):
        expand_objectives(f"kd, {many}*dkd(alpha={many}, beta={many})")


# Arguments of a stranger's objective


@pytest.fixture
def stranger() -> Iterator[None]:
    class Stranger(Objective, name="stranger"):
        def __init__(
            self,
            *,
            one: Optional[float] = None,  # noqa: UP045  (both ways of writing it are met)
            several: Union[float, Sequence[float]] = 1.0,  # noqa: UP007
            pair: tuple[int, int] = (1, 2),
            table: list[list[float]] | None = None,
            bare: object = 3,
            by_default=(1.0, 2.0),  # type: ignore[no-untyped-def]
        ) -> None:
            super().__init__()
            self.one, self.several, self.pair, self.table = one, several, pair, table
            self.bare, self.by_default = bare, by_default

        def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
            return {}

    yield
    del registry._classes["stranger"]
    assert "stranger" not in objectives()


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize(
    ("argument", "count"),
    [
        ("one=[1, 2, 3]", 3),
        ("bare=[1, 2, 3]", 3),
        ("by_default=[1, 2, 3]", 1),
        ("by_default=[[1, 2], [3]]", 2),
        ("several=[1, 2, 3]", 1),
        ("several=[[1, 2], [3]]", 2),
        ("pair=[3, 4]", 1),
        ("pair=[(3, 4), (5, 6)]", 2),
        ("table=[[1, 2], [3]]", 1),
        ("table=[[[1, 2], [3]], [[4]]]", 2),
    ],
)
def test_an_argument_that_takes_a_list_has_a_range_only_as_a_list_of_lists(argument: str, count: int) -> None:
    assert len(expand_objectives(f"stranger({argument})")) == count


def test_an_annotation_for_type_checkers_alone_leaves_the_default_to_tell() -> None:
    class Hidden(Objective, name="hidden"):
        def __init__(self, *, alpha: NotHere = 1.0, sizes: NotHere = (1, 2)) -> None:  # type: ignore[name-defined]  # noqa: F821
            super().__init__()
            self.alpha, self.sizes = alpha, sizes

    try:
        assert expand_objectives("hidden(alpha=[1, 2], sizes=[3, 4])") == [
            "hidden(alpha=1, sizes=[3, 4])",
            "hidden(alpha=2, sizes=[3, 4])",
        ]
    finally:
        del registry._classes["hidden"]
