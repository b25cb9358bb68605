"""The text policies that are known by name, and their language."""

from __future__ import annotations

import dataclasses

from limbeck.errors import SettingError, unknown_name
from limbeck.expression import Call, Sum, parse_call
from limbeck.policies.base import Policy
from limbeck.policies.fixed import Fixed
from limbeck.policies.mixtures import Mixed, TwoStage
from limbeck.policies.sampled import StudentText, TeacherText
from limbeck.policies.speculative import Speculative

POLICIES: dict[str, type[Policy]] = {
    each.name: each for each in (Fixed, Mixed, Speculative, StudentText, TeacherText, TwoStage)
}
"""Every text policy by name."""


def parse_policy(text: str) -> Policy:
    """The text policy that an expression describes; no code is run.

    >>> parse_policy("speculative(top_k=5)").top_k
    5
    >>> str(parse_policy('mixed(speculative(top_k=5), fixed, per="batch")'))
    "mixed(speculative(top_k=5), fixed, per='batch')"

    Raises:
        SettingError: the text cannot be read, or names a policy or argument that does not exist; with the nearest spelling.
    """
    return _make(parse_call(text, "text policy"))


def _make(call: Call) -> Policy:
    if call.name not in POLICIES:
        raise SettingError(unknown_name("text policy", call.name, POLICIES))
    cls = POLICIES[call.name]
    accepted = [item.name for item in dataclasses.fields(cls) if item.init and item.name not in cls.inner]
    for argument in call.arguments:
        if argument in cls.inner:
            example = f"{cls.name}({', '.join(cls.inner)})".replace("of", "student").replace("otherwise", "fixed")
            raise SettingError(
                f"{cls.name}: '{argument}' is a policy, and stands first without its name, as in {example}."
            )
        if argument not in accepted:
            raise SettingError(unknown_name(f"argument of {cls.name}", argument, accepted))
    if len(call.operands) > len(cls.inner):
        most = f"at most {len(cls.inner)} policies" if cls.inner else "no policy"
        raise SettingError(f"{cls.name} takes {most} in its parentheses, got {len(call.operands)}.")
    policies = dict(zip(cls.inner, map(_inner, call.operands), strict=False))
    try:
        return cls(**policies, **call.arguments)
    except SettingError as error:
        raise SettingError(f"{call.name}: {error}") from None


def _inner(operand: Sum) -> Policy:
    if len(operand.terms) != 1 or operand.terms[0][0] != 1.0:
        raise SettingError("a text policy has no weight and is no sum; mixed(…, …, share=…) mixes two of them.")
    return _make(operand.terms[0][1])
