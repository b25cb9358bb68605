"""Errors tell what is accepted."""

from __future__ import annotations

import re

import pytest

from limbeck import errors
from limbeck.errors import (
    LimbeckError,
    MissingExtraError,
    SettingError,
    check_choice,
    check_flag,
    check_number,
    check_whole,
    nearest,
    unknown_name,
)

CLASSES = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, LimbeckError)]
USERS_MISTAKES = {
    "SettingError",
    "DataError",
    "WeightsError",
    "TapError",
    "SignalError",
    "TeacherError",
    "CacheError",
    "RunFolderError",
    "MissingExtraError",
}


@pytest.mark.parametrize("cls", CLASSES)
def test_exit_code_is_2_for_a_users_mistake_and_1_otherwise(cls: type[LimbeckError]) -> None:
    assert cls.exit_code == (2 if cls.__name__ in USERS_MISTAKES else 1)


def test_wrong_settings_are_value_errors_for_those_who_do_not_know_limbeck() -> None:
    with pytest.raises(ValueError):
        raise SettingError("no")


def test_a_missing_extra_is_an_import_error_that_holds_the_line_to_type() -> None:
    with pytest.raises(ImportError, match=r"drawing needs the package 'pen'\. .*pip install 'limbeck\[art\]'"):
        raise MissingExtraError("pen", "art", "drawing")


@pytest.mark.parametrize(
    ("typed", "meant"), [("icdd", "icd"), ("ICD", "icd"), ("Temperature", "temperature"), ("qqqqqq", None), ("", None)]
)
def test_nearest_finds_the_spelling_that_was_meant(typed: str, meant: str | None) -> None:
    assert nearest(typed, ["icd", "kd", "temperature"]) == meant


def test_nearest_gives_the_accepted_spelling_not_its_lower_case() -> None:
    assert nearest("ADAMW", ["AdamW", "SGD"]) == "AdamW"


@pytest.mark.parametrize(
    ("value", "accepted", "sentence"),
    [
        ("icdd", ["ce", "icd"], "unknown objective 'icdd'; did you mean 'icd'? Accepted: ce, icd. Look."),
        ("zzz", ["ce", "icd"], "unknown objective 'zzz'. Accepted: ce, icd. Look."),
        ("ce", [], "unknown objective 'ce'. Accepted: none. Look."),
    ],
)
def test_unknown_name_says_what_is_accepted(value: str, accepted: list[str], sentence: str) -> None:
    assert unknown_name("objective", value, accepted, "Look.") == sentence


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), -float("inf"), 10**400, 1j])
def test_what_is_no_finite_number_is_refused(value: object) -> None:
    with pytest.raises(SettingError, match="speed must be a finite number"):
        check_number("speed", value)


@pytest.mark.parametrize(
    ("value", "bounds", "reason"),
    [
        (-1, {"low": 0}, "at least 0, got -1"),
        (0.0, {"low": 0, "open_low": True}, "greater than 0, got 0.0"),
        (2, {"high": 1}, "at most 1, got 2"),
    ],
)
def test_numbers_out_of_bounds_are_refused_with_the_bound(value: float, bounds: dict[str, float], reason: str) -> None:
    with pytest.raises(SettingError, match=f"speed must be {reason}"):
        check_number("speed", value, **bounds)


@pytest.mark.parametrize(("value", "bounds"), [(0, {"low": 0}), (1, {"high": 1}), (1e-9, {"low": 0, "open_low": True})])
def test_numbers_on_the_closed_bounds_pass(value: float, bounds: dict[str, float]) -> None:
    check_number("speed", value, **bounds)


def test_a_choice_is_one_of_those_accepted() -> None:
    check_choice("variant", "paper", ("mended", "paper"))
    with pytest.raises(SettingError, match="variant: unknown value 'papr'; did you mean 'paper'"):
        check_choice("variant", "papr", ("mended", "paper"))


@pytest.mark.parametrize("value", ["no", 1, 0, None])
def test_a_flag_is_true_or_false_and_no_text_that_counts_as_true(value: object) -> None:
    check_flag("symmetric", True)
    with pytest.raises(SettingError, match=f"symmetric must be True or False, got {value!r}"):
        check_flag("symmetric", value)


@pytest.mark.parametrize("value", [0, 1.0, True, "3", None])
def test_a_count_is_a_whole_number(value: object) -> None:
    check_whole("epochs", 1, low=1)
    with pytest.raises(
        SettingError, match=rf"epochs must be a whole number of at least 1, got {re.escape(repr(value))}\."
    ):
        check_whole("epochs", value, low=1)
