"""The table at the end of a run."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from limbeck.cli.summary import _best, _short, figures
from limbeck.report.card import model_card
from limbeck.runs import Result
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


def _shown(result: Result) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(figures(result))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_teacher_of_which_nothing_is_known_has_no_columns() -> None:
    served = make_result("kl()", 0, 0.9, teacher="server:big", teacher_test=None, teacher_validation=None)
    shown = _shown(replace(served, teacher_parameters=0))
    assert "teacher\n" not in shown
    assert "kept" not in shown
    assert "test accuracy" in shown
    assert all(word in _shown(make_result("kl()", 0, 0.9)) for word in ("kept", "big"))


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ({"accuracy": 0.5}, "test accuracy"),
        ({"accuracy": 0.5, "perplexity": 2.0}, "test token accuracy"),
        ({"accuracy": 0.5, "ndcg_10": 0.25}, "test accuracy in batch"),
    ],
)
def test_an_accuracy_says_what_it_is_of(test: dict[str, float], words: str) -> None:
    result = make_result("kl()", 0, 0.9, test=test, teacher_test=test)
    assert f"{words}  " in _shown(result)
    assert f"| {words} | 50.00% |" in model_card(result, None)


def test_the_figure_that_chose_the_epoch_is_told() -> None:
    plain = make_result("kd()", 0, 0.9)
    judged = replace(plain, best_epoch=2, judged={"ndcg_10": 0.25})
    assert [(name, value) for name, value, _ in _best(judged, "accuracy")] == [
        ("validation accuracy (epoch 2)", plain.validation_best),
        ("validation nDCG@10, best (epoch 2)", 0.25),
    ]
    assert _best(replace(plain, best_epoch=2), "accuracy")[0][0] == "validation accuracy, best (epoch 2)"
