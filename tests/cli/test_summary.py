"""The table at the end of a run."""

from __future__ import annotations

import pytest

from limbeck.cli.summary import _short


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("resnet8x4", "resnet8x4"),
        (
            "projected:student(network='convnet(widths=[4, 8])', path='stages.1', factor=2)",
            "convnet(widths=[4, 8]) + projector",
        ),
    ],
)
def test_a_projected_student_goes_by_the_network_inside_it(name: str, shown: str) -> None:
    assert _short(name) == shown
