from __future__ import annotations

import doctest

import pytest

import limbeck.policies
from limbeck.errors import SettingError
from limbeck.policies import (
    POLICIES,
    Fixed,
    Mixed,
    Speculative,
    StudentText,
    TeacherText,
    TwoStage,
    parse_policy,
    registry,
)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("fixed", Fixed()),
        ("student", StudentText()),
        ("teacher()", TeacherText()),
        ("speculative", Speculative(top_k=25, block=5)),
        ('speculative(top_k=3, block="auto", adaptive=True)', Speculative(3, "auto", True)),
        ("mixed", Mixed(StudentText(), Fixed(), 0.5, "example")),
        ('mixed(student, teacher, share=0.3, per="batch")', Mixed(StudentText(), TeacherText(), 0.3, "batch")),
        ("mixed(speculative(top_k=2))", Mixed(Speculative(2))),
        ("two_stage(fixed, speculative(top_k=2), share=0.2)", TwoStage(Fixed(), Speculative(2), 0.2)),
        ("two_stage(mixed(teacher, student))", TwoStage(Mixed(TeacherText(), StudentText()))),
    ],
)
def test_texts_and_policies(text: str, policy: object) -> None:
    assert parse_policy(text) == policy
    assert parse_policy(str(policy)) == policy


def test_a_policy_of_defaults_is_written_as_its_name() -> None:
    assert [str(cls()) for cls in POLICIES.values()] == list(POLICIES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speculativ(top_k=3)", "unknown text policy 'speculativ'; did you mean 'speculative'"),
        ("speculative(topk=3)", "unknown argument of speculative 'topk'; did you mean 'top_k'"),
        ("speculative(_chooser=3)", "unknown argument of speculative '_chooser'"),
        ("speculative(top_k=-3)", "speculative: top_k must be a whole number of at least 0, got -3"),
        ("mixed(of=3)", "'of' is a policy, and stands first without its name, as in mixed"),
        ("mixed(fixed, student, teacher)", "mixed takes at most 2 policies in its parentheses, got 3"),
        ("student(teacher)", "student takes no policy"),
        ("mixed(0.5*fixed)", "has no weight and is no sum"),
        ("fixed + student", "expected a name"),
        ("mixed(fixed + student)", "has no weight and is no sum"),
        ("__import__('os')", "speculative|arguments of __import__ are given by name"),
        ("", "the text policy is empty"),
    ],
)
def test_texts_that_are_none(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        parse_policy(text)


def test_the_examples_of_the_docstrings() -> None:
    for module in (registry, limbeck.policies):
        assert doctest.testmod(module).failed == 0
