"""The contract every objective keeps, as checks that anyone can run on their own objective.

    from limbeck.testing import check_objective
    check_objective("focal(gamma=2)")

Each check takes an objective's expression and raises AssertionError with what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from limbeck.testing.checks import (
    check_compiles,
    check_expression,
    check_finite,
    check_micro_batches,
    check_parameters_learn,
    check_permutation,
    check_state_dict,
    check_student_learns,
    check_teacher_fixed,
    check_zero_when_equal,
)
from limbeck.testing.processes import check_two_processes
from limbeck.testing.samples import (
    BATCH,
    CLASSES,
    build_for_samples,
    built,
    loss_of,
    sample_batch,
    sample_signals,
    sample_tokens,
)
from limbeck.testing.tokens import check_mask, check_tokens

__all__ = [
    "BATCH",
    "CLASSES",
    "CONTRACT",
    "build_for_samples",
    "built",
    "check_compiles",
    "check_expression",
    "check_finite",
    "check_mask",
    "check_micro_batches",
    "check_objective",
    "check_parameters_learn",
    "check_permutation",
    "check_state_dict",
    "check_student_learns",
    "check_teacher_fixed",
    "check_tokens",
    "check_two_processes",
    "check_zero_when_equal",
    "loss_of",
    "sample_batch",
    "sample_signals",
    "sample_tokens",
]

CONTRACT: dict[str, Callable[[str], None]] = {
    function.__name__.removeprefix("check_"): function
    for function in (
        check_finite,
        check_student_learns,
        check_teacher_fixed,
        check_parameters_learn,
        check_zero_when_equal,
        check_permutation,
        check_micro_batches,
        check_mask,
        check_tokens,
        check_state_dict,
        check_expression,
        check_compiles,
    )
}


def check_objective(expression: str) -> None:
    """Run every check of the contract that needs one process. See :func:`check_two_processes` for the one that needs two."""
    for check in CONTRACT.values():
        check(expression)
