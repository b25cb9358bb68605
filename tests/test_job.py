"""The stages that follow from settings and objective, without any training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from limbeck import CE, KD
from limbeck.config import DistillSettings, TrainSettings
from limbeck.engine.trainable import Stage
from limbeck.errors import SettingError
from limbeck.job import Job, job_of, plan_of, stages_of
from limbeck.objectives import Objective, Peers, WeightedSum, parse_objective


def job(objective: str | Objective, **settings: Any) -> Job:
    made = DistillSettings.make({"teacher": "resnet14", "student": "resnet8", "epochs": 9, **settings})
    return Job("resnet8", "resnet14", objective, made)


def stages(objective: str | Objective, **settings: Any) -> list[Stage]:
    return stages_of(
        job(objective, **settings), parse_objective(objective) if isinstance(objective, str) else objective
    )


def facts(objective: str | Objective, **settings: Any) -> list[tuple[str, int, tuple[str, ...], float | None]]:
    found = stages(objective, **settings)
    assert all(isinstance(stage.objective, WeightedSum) for stage in found)
    return [(str(stage.objective), stage.epochs, stage.trains, stage.lr) for stage in found]


BOTH = ("student", "objective")


def trained(**settings: Any) -> Job:
    return job_of(TrainSettings.make({"model": "resnet8", "epochs": 9, **settings}))


def test_without_a_teacher_there_is_the_cross_entropy_or_an_objective_that_needs_none() -> None:
    assert str(trained(label_smoothing=0.1).objective) == "ce(label_smoothing=0.1)"
    assert trained(objective="dml").objective == "dml"
    assert [job.on_labels for job in (trained(), trained(objective="dml"))] == [True, False]
    with pytest.raises(SettingError, match=r"write it into the objective, as in 'ce\(label_smoothing=0\.1\)'"):
        trained(objective="ce", label_smoothing=0.1)
    for objective in ("kd", "dml + icd()"):
        with pytest.raises(SettingError, match="learns from a teacher, and there is none; 'limbeck distill' has one"):
            plan_of(trained(objective=objective))


def test_all_stages_ask_for_the_same_companions() -> None:
    first = {"objective": "ce + dml", "epochs": 1}
    assert plan_of(job("dml", stages=[first])).companions == Peers(("same",))
    assert plan_of(job("kd", stages=[first])).companions == Peers(("same",))
    assert plan_of(job("kd")).companions is None
    with pytest.raises(SettingError, match="each ask for other networks beside the student"):
        _ = plan_of(job("one", stages=[first])).companions


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("ce + kd(temperature=2)", [("ce() + kd(temperature=2)", 9, BOTH, None)]),
        ("ce + ab(init_epochs=2)", [("ab(init_epochs=2)", 2, BOTH, None), ("ce()", 9, BOTH, None)]),
        ("ab", [("ab()", 30, BOTH, None), ("ce()", 9, BOTH, None)]),
        ("ab+kd", [("ab()", 30, BOTH, None), ("ce() + kd()", 9, BOTH, None)]),
        ("fsp", [("fsp()", 30, BOTH, None), ("ce()", 9, BOTH, None)]),
        ("fitnet", [("ce() + 100*fitnet()", 9, BOTH, None)]),
        ("fitnet_two_stages", [("fitnet(init_epochs=30)", 30, BOTH, None), ("ce() + kd()", 9, BOTH, None)]),
        ("ce + ab(init_epochs=0)", [("ce() + ab(init_epochs=0)", 9, BOTH, None)]),
        ("ce + ft(init_epochs=0)", [("ce() + ft(init_epochs=0)", 9, BOTH, None)]),
        # In the order in which the expression has them.
        (
            "ce + 2*fsp(init_epochs=3) + ab(init_epochs=1)",
            [("fsp(init_epochs=3)", 3, BOTH, None), ("ab(init_epochs=1)", 1, BOTH, None), ("ce()", 9, BOTH, None)],
        ),
        ("simkd", [("simkd()", 9, BOTH, None)]),
    ],
)
def test_initial_stages_of_objectives(objective: str, expected: Any) -> None:
    assert [(text.replace("temperature=4", ""), *rest) for text, *rest in facts(objective)] == expected


def test_factor_transfer_keeps_its_loss_for_the_main_stage_and_shares_the_paraphraser() -> None:
    first, main = stages("ft")
    assert (first.epochs, first.trains, first.lr) == (30, ("objective",), 0.01)
    assert [part.name for part in first.objective.parts] == ["paraphraser"]
    # The weight is that of the loss in the main stage; the paraphraser learns at its own scale.
    assert first.objective.weights == (1.0,)
    assert (str(main.objective), main.epochs, main.trains) == ("ce() + 200*ft(init_lr=0.01)", 9, BOTH)
    # A parameter has one owner, so that it is saved, frozen and averaged once.
    owners = nn.ModuleList([first.objective, main.objective])
    assert len(list(owners.parameters())) == sum(len(list(stage.objective.parameters())) for stage in (first, main))


def test_the_stages_of_a_recipe_come_first_and_keep_what_they_say() -> None:
    own = [
        {"objective": "icd()", "epochs": 2, "trains": ["objective"], "lr": 0.3},
        {"objective": "kd", "epochs": 1},
    ]
    assert facts("ce + ab(init_epochs=3)", stages=own) == [
        ("icd()", 2, ("objective",), 0.3),
        ("0.1*ce() + 0.9*kd()", 1, BOTH, None),
        ("ab(init_epochs=3)", 3, BOTH, None),
        ("ce()", 9, BOTH, None),
    ]


def test_an_objectives_own_stage_keeps_its_learning_rate_throughout() -> None:
    own = [{"objective": "kd", "epochs": 1}]
    assert [stage.schedule for stage in stages("ce + ab(init_epochs=3)", stages=own)] == [None, "constant", None]


def test_an_objective_that_is_no_sum_is_one() -> None:
    assert facts(KD(temperature=2)) == [("kd(temperature=2)", 9, BOTH, None)]
    whole = CE() + KD()
    assert stages(whole)[-1].objective is whole


@pytest.mark.parametrize("objective", ["ab()", "2*fsp() + ab()", "fitnet(init_epochs=4)"])
def test_nothing_left_for_the_main_stage_is_an_error(objective: str) -> None:
    with pytest.raises(SettingError, match=r"nothing is left for the main one: add an objective, as in 'ce \+ …'"):
        stages(objective)


@pytest.mark.parametrize(
    ("objective", "settings", "culprit"),
    [
        ("ce + icd", {}, r"ce\(\) \+ icd\(\)"),
        ("ce + ab(init_epochs=1)", {}, r"ab\(init_epochs=1\)"),
        ("ce", {"stages": [{"objective": "icd()", "epochs": 1}]}, r"icd\(\)"),
    ],
)
def test_a_coupled_batch_is_not_split_in_any_stage(objective: str, settings: dict[str, Any], culprit: str) -> None:
    with pytest.raises(SettingError, match=rf"accumulation is 2, and '{culprit}' compares the samples of a batch"):
        stages(objective, accumulation=2, **settings)
    assert stages(objective, accumulation=1, **settings)


def test_uncoupled_batches_may_be_split_also_before_the_main_stage() -> None:
    assert len(stages("ce + fsp(init_epochs=1) + kd", accumulation=4)) == 2


def test_the_main_stage_waits_for_the_datas_number_of_epochs() -> None:
    assert facts("ce + ab(init_epochs=2)", epochs=None)[-1] == ("ce()", 0, BOTH, None)


def test_training_alone_has_one_stage() -> None:
    job = job_of(TrainSettings.make({"model": "resnet8", "epochs": 4, "label_smoothing": 0.1}))
    assert job.teacher is None
    assert isinstance(job.objective, Objective)
    (stage,) = stages_of(job, job.objective)
    assert (str(stage.objective), stage.epochs) == ("ce(label_smoothing=0.1)", 4)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (TrainSettings(), "model is not given"),
        (DistillSettings(student="resnet8"), "teacher is not given"),
        (DistillSettings(teacher="resnet14"), "student is not given"),
    ],
)
def test_a_job_names_its_networks(settings: Any, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        job_of(settings)


def test_objects_are_told_in_words() -> None:
    settings = DistillSettings.make({"epochs": 2})
    objective = CE() + KD(temperature=2)
    told = Job(nn.Linear(2, 2), nn.Flatten(), objective, settings).described(objective)
    assert isinstance(told, DistillSettings)
    assert (told.student, told.teacher, told.objective) == ("Linear", "Flatten", "ce() + kd(temperature=2)")
    assert settings.student is None


def test_a_copy_of_the_objective_keeps_its_stages_together() -> None:
    # limbeck copies an objective before each run.
    import copy

    first, main = stages(copy.deepcopy(parse_objective("ce + ft(init_epochs=1)")))
    ft = main.objective.parts[1]
    autoencoder = first.objective.parts[0]
    from limbeck.signals import Signals

    signals = Signals(features={"last": torch.randn(3, 6, 4, 4)})
    for part in (autoencoder, ft):
        part.build(signals, signals)
    assert ft._shared() is autoencoder.encoder


@pytest.mark.parametrize(
    ("data", "given", "expected"),
    [
        ("digits", None, "icd+kd"),
        ("arithmetic(digits=1)", None, "icd+kd"),
        ("search:collection", None, "embed_distill"),
        ("search:collection", "icd+kd", "icd+kd"),
    ],
)
def test_what_is_distilled_with_is_usual_for_the_data_where_nothing_is_named(
    data: str, given: str | None, expected: str
) -> None:
    job = job_of(DistillSettings(teacher="t", student="s", data=data, objective=given))
    assert job.objective == expected
    assert job.distill.objective == expected
