"""The table at the end of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from limbeck.cli.summary import _best, _short
from tests.report.conftest import make_result


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


def test_the_figure_that_chose_the_epoch_is_told() -> None:
    plain = make_result("kd()", 0, 0.9)
    judged = replace(plain, best_epoch=2, judged={"ndcg_10": 0.25})
    assert [(name, value) for name, value, _ in _best(judged, "accuracy")] == [
        ("validation accuracy (epoch 2)", plain.validation_best),
        ("validation nDCG@10, best (epoch 2)", 0.25),
    ]
    assert _best(replace(plain, best_epoch=2), "accuracy")[0][0] == "validation accuracy, best (epoch 2)"
