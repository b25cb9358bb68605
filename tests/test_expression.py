"""The language of expressions: what it reads, and that it runs nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from limbeck.errors import SettingError
from limbeck.expression import Call, Factor, Scheduled, Sum, parse_call, parse_sum

names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).map(lambda name: f"x_{name}")
numbers = st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False)
scalars = numbers | st.booleans() | st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2)
)
calls = st.builds(Call, names, st.dictionaries(names, values, max_size=3))
weights = st.floats(-1e6, 1e6, allow_nan=False)


def write(value: Sum | Call) -> str:
    if isinstance(value, Call):
        inside = [write(operand) for operand in value.operands]
        inside += [f"{name}={argument!r}" for name, argument in value.arguments.items()]
        return f"{value.name}({', '.join(inside)})"
    return " + ".join(f"{weight!r}*{write(call)}" for weight, call in value.terms)


sums = st.lists(st.tuples(weights, calls), min_size=1, max_size=4).map(lambda terms: Sum(tuple(terms)))
nested = st.builds(Call, names, st.just({}), st.lists(sums, min_size=1, max_size=2).map(tuple))


@given(sums)
def test_what_is_written_is_read_again(tree: Sum) -> None:
    assert parse_sum(write(tree)) == tree


@given(nested)
def test_calls_on_sums_are_read_again(call: Call) -> None:
    assert parse_call(write(call), "objective") == call


@given(calls, weights, weights)
def test_weights_multiply_through_parentheses_from_either_side(call: Call, a: float, b: float) -> None:
    expected = ((a * b, call), (a * 1.0, call))
    assert parse_sum(f"{a!r}*({b!r}*{write(call)} + {write(call)})").terms == expected
    assert parse_sum(f"({write(call)}*{b!r} + {write(call)})*{a!r}").terms == expected


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("ce", ((1.0, Call("ce")),)),
        ("  ce + 0.9*kd(temperature=4)\n", ((1.0, Call("ce")), (0.9, Call("kd", {"temperature": 4})))),
        ("kd*2 + -1*ce", ((2.0, Call("kd")), (-1.0, Call("ce")))),
        ("a(b=(1, 2), c={'d': [True, None]})", ((1.0, Call("a", {"b": (1, 2), "c": {"d": [True, None]}})),)),
    ],
)
def test_examples_mean_what_they_say(text: str, terms: tuple[tuple[float, Call], ...]) -> None:
    assert parse_sum(text).terms == terms


def test_types_of_arguments_are_kept() -> None:
    arguments = parse_call("a(i=4, f=4.0, b=True)", "model").arguments
    assert [type(value) for value in arguments.values()] == [int, float, bool]


REFUSED = [
    "",
    " \n",
    "ce +",
    "ce - kd",
    "ce / 2",
    "ce ** 2",
    "-ce",
    "ce * kd",
    "2",
    "2 + ce",
    "True * ce",
    "'ce'",
    "None",
    "ce; kd",
    "ce\nkd",
    "import os",
    "ce = kd",
    "__import__('os').system('true')",
    "().__class__.__bases__[0]",
    "os.system",
    "os.system(command='true')",
    "ce.kd",
    "kd(temperature=T)",
    "kd(temperature=__import__('os'))",
    "kd(temperature=open('/etc/passwd'))",
    "kd(temperature=2**9)",
    "kd(temperature=1+1)",
    "kd(temperature=1+2j)",
    "kd(temperature=3j)",
    "kd(temperature=f'{4}')",
    "kd(temperature=b'4')",
    "kd(temperature={4})",
    "kd(temperature=set())",
    "kd(temperature=...)",
    "kd(temperature=[b'4'])",
    "kd(temperature={b'4': 1})",
    "kd(temperature=[x for x in (1,)])",
    "kd(temperature=(lambda: 4)())",
    "kd(temperature=4 if True else 5)",
    "kd(temperature=(t := 4))",
    "kd(temperature=4, temperature=5)",
    "kd(4)",
    "kd('4')",
    "kd(*x)",
    "kd(**x)",
    "kd(lambda: 1)",
    "kd(x for x in y)",
    "kd()()",
    "kd[0]",
    "(kd := ce)",
    "lambda: ce",
    "[ce]",
    "[ce for ce in kd]",
    "{ce}",
    "ce if kd else icd",
    "ce and kd",
    "not ce",
    "ce < kd",
    "await ce",
    "yield ce",
    "f'{ce}'",
    "`ce`",
    "1if*ce",
    r"kd(path='C:\d')",
    "1e999*ce",
    "-1e999*ce",
    "1e300*(1e300*ce)",
    f"{'9' * 400}*ce",
    f"0x{'f' * 400}*ce",
    f"{'9' * 5000}*ce",
    "kd(temperature=1e999)",
    "kd(temperature=[-1e999])",
    "kd(temperature={'a': 1e999})",
    "kd(temperature={[]: 1})",
    "ce\0",
    "\ud800",
    "ce(" * 150 + ")" * 150,
    "(" * 5000,
    "-" * 100_000 + "1*ce",
    "ce + " * 200 + "ce",
    "ce + " * 20_000 + "ce",
    "2*" * 500 + "ce",
    f"kd(temperature={'[' * 150}{']' * 150})",
    "kd" + ".a" * 5000,
]


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text)[:40])
def test_everything_else_is_refused_and_nothing_runs(text: str) -> None:
    with pytest.raises(SettingError):
        parse_sum(text)


@pytest.mark.parametrize("text", [*REFUSED, "2*ce", "ce + kd", "(2)"], ids=lambda text: repr(text)[:40])
def test_a_call_is_one_name_and_its_arguments(text: str) -> None:
    with pytest.raises(SettingError):
        parse_call(text, "model")


SCHEDULES = ("decay", "until")


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("decay(100, 0.7)*kd", [(1.0, [("decay", (100, 0.7), {})], "kd")]),
        ("kd()*decay(100, factor=0.7)", [(1.0, [("decay", (100,), {"factor": 0.7})], "kd")]),
        ("0.5*decay(2, 0.5)*kd", [(0.5, [("decay", (2, 0.5), {})], "kd")]),
        ("decay(2, 0.5)*2*until(epochs=3)*kd", [(2.0, [("decay", (2, 0.5), {}), ("until", (), {"epochs": 3})], "kd")]),
        ("2*(until*kd + 3*ce)", [(2.0, [("until", (), {})], "kd"), (6.0, [], "ce")]),
        ("until(1)*(kd*until('x'))", [(1.0, [("until", (1,), {}), ("until", ("x",), {})], "kd")]),
    ],
)  # fmt: skip
def test_schedules_are_weights_from_either_side(text: str, terms: list[tuple[float, list[Any], str]]) -> None:
    expected = [
        (Scheduled(number, tuple(Factor(*each) for each in factors)) if factors else number, Call(name))
        for number, factors, name in terms
    ]
    assert list(parse_sum(text, schedules=SCHEDULES).terms) == expected


def test_numbers_multiply_with_each_other_too() -> None:
    assert parse_sum("2*3*kd*0.5").terms == ((3.0, Call("kd")),)


@pytest.mark.parametrize("text", [text for text in REFUSED if text], ids=lambda text: repr(text)[:40])
def test_schedules_let_nothing_else_in(text: str) -> None:
    with pytest.raises(SettingError):
        parse_sum(text, schedules=SCHEDULES)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("decay(1, 2)", r"a schedule is a weight, and needs an objective, .*got 'decay\(1, 2\)'"),
        ("kd + until", r"a schedule is a weight, .*got 'until'"),
        ("kd(decay(1, 2))", r"a schedule is a weight, .*got 'decay\(1, 2\)'"),
        ("decay(1, 2)*until(3)", r"a schedule is a weight, .*got 'until\(3\)'"),
        ("decai(1, 2)*kd()", r"or a schedule \(decay, until\); did you mean 'decay'\?, got 'decai\(1, 2\)\*kd\(\)'"),
        ("kd*ce", r"a product needs a number on one side, or a schedule \(decay, until\), got 'kd\*ce'"),
        ("decay(kd)*ce", r"an argument is a number, .*got 'kd'"),
        ("decay(*x)*ce", r"an argument is a number, .*got '\*x'"),
        ("decay(**x)*ce", r"'\*\*' is not part of this language"),
        ("decay(a=1, a=2)*ce", r"the argument 'a' is given twice|repeated"),
        ("decay(1e999)*ce", r"numbers must be finite, got '1e999'"),
        ("1e300*decay(1)*1e300*ce", r"numbers must be finite"),
        ("decay(1)(2)*ce", r"a product needs a number"),
    ],
)
def test_mistakes_with_schedules_point_at_the_place(text: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        parse_sum(text, schedules=SCHEDULES)


def check_plain(value: Any) -> None:
    if isinstance(value, list | tuple | dict):
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            check_plain(item)
    else:
        assert value is None or type(value) in (bool, int, float, str)
        assert not isinstance(value, float) or math.isfinite(value)


fragments = st.sampled_from(
    [
        *[
            "ce",
            "kd",
            "__import__",
            "exec",
            "lambda",
            "for",
            "in",
            "if",
            "else",
            "not",
            "await",
            "yield",
            "None",
            "True",
        ],
        *[
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            "+",
            "*",
            "**",
            "-",
            "~",
            "/",
            "@",
            "=",
            ":=",
            "==",
            "<",
            ".",
            ",",
            ":",
            ";",
            "\\",
        ],
        *[
            "1",
            "0.5",
            "1e400",
            "2j",
            "0x",
            "1_0",
            "'",
            '"',
            "f'",
            "b'",
            "'''",
            "#",
            " ",
            "\n",
            "\t",
            "\f",
            "\r",
            "é",
            "…",
        ],
    ]
)


@given(st.text(max_size=40) | st.lists(fragments, max_size=14).map("".join))
@example("kd(a=\n'é' '…', b=\f1j)")
def test_random_text_is_read_as_plain_values_or_refused(text: str) -> None:
    for parse in (parse_sum, lambda text: Sum(((1.0, parse_call(text, "model")),))):
        try:
            tree = parse(text)
        except SettingError:
            continue
        for weight, call in tree.terms:
            assert math.isfinite(weight)
            assert call.name.isidentifier()
            check_plain(call.arguments)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("ce + kd(temperature=T)", "got 'T'"),
        ("ce + (kd * icd)", r"a product needs a number on one side, got 'kd \* icd'"),
        ("ce + kd(4)", r"arguments of kd are given by name, as in kd\(name=…\), got '4'"),
        ("kd(a=1, a=2)", "the argument 'a' is given twice"),
        ("ce + + ", "cannot be read at character"),
        (" ", "the objective is empty"),
    ],
)
def test_errors_point_at_the_place(text: str, where: str) -> None:
    with pytest.raises(SettingError, match=where):
        parse_sum(text)
