"""What an objective asks for is checked in sentences, and what it is told passes through sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck.errors import SettingError, SignalError
from limbeck.objectives import CE, KD, InitialStage, Objective, WeightedSum, objectives, parse_objective
from limbeck.signals import Batch, Signals
from limbeck.testing import sample_batch, sample_signals


def asking(*needs: str, **traits: Any) -> Objective:
    class Asking(Objective, name="asking"):
        pass

    Asking.needs = frozenset(needs)
    for name, value in traits.items():
        setattr(Asking, name, value)
    return Asking()


def networks(**changes: Any) -> tuple[Signals, Signals, Batch]:
    """Sample signals of a student and a teacher; ``student_stem=None`` takes a signal away."""
    pair = {"student": sample_signals(1), "teacher": sample_signals(2, embedding_size=7)}
    for key, value in changes.items():
        who, signal = key.split("_", 1)
        pair[who] = replace(pair[who], **{signal: value})
    return pair["student"], pair["teacher"], sample_batch()


EVERYTHING = (
    *("labels", "logits", "embedding", "index", "features", "stages", "preactivations"),
    *("stem", "embedding_map", "classifier"),
)

MISSING = {
    "logits": (None, "the network returns none"),
    "embedding": (None, "the input of the classifier was not tapped; name its layer with 'classifier'"),
    "features": ({}, "name the layers with 'taps', as in taps="),
    "preactivations": ({}, "name the layers with 'taps', as in taps="),
    "stem": (None, "the end of its first convolution is not known"),
    "embedding_map": (None, "no map was found whose mean over the positions is the classifier's input"),
}


def test_signals_that_hold_all_that_is_asked_pass() -> None:
    asking(*EVERYTHING).check(*networks())


@pytest.mark.parametrize("need", EVERYTHING)
def test_a_need_looks_at_nothing_else(need: str) -> None:
    every = {"logits": None, "embedding": None, "features": {}, "preactivations": {}, "stem": None}
    every |= {"embedding_map": None, "constants": {}}
    kept = {"stages": "features", "classifier": "constants"}.get(need, need)
    gone = {f"{who}_{name}": value for name, value in every.items() for who in ("student", "teacher") if name != kept}
    asking(need).check(*networks(**gone))


@pytest.mark.parametrize("who", ["student", "teacher"])
@pytest.mark.parametrize("need", MISSING)
def test_a_signal_that_is_missing_is_a_sentence_with_the_remedy(need: str, who: str) -> None:
    nothing, remedy = MISSING[need]
    with pytest.raises(SignalError, match=rf"asking\(\) needs the {who}'s {need}: {remedy}.*\."):
        asking(need).check(*networks(**{f"{who}_{need}": nothing}))


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_stages_are_the_features_of_both(who: str) -> None:
    with pytest.raises(SignalError, match=rf"asking\(\) needs the {who}'s stages: name the layers with 'taps'"):
        asking("stages").check(*networks(**{f"{who}_features": {}}))


def test_the_classifier_is_the_teachers() -> None:
    asking("classifier").check(*networks(student_constants={}))
    with pytest.raises(SignalError, match="needs the teacher's classifier: its logits must come from one linear layer"):
        asking("classifier").check(*networks(teacher_constants={"stage1.shift": torch.ones(6)}))


def test_an_objective_without_a_teacher_asks_the_student_alone() -> None:
    alone = asking("logits", "features", needs_teacher=False, equal_channels=True)
    student, _, batch = networks()
    alone.check(student, Signals(), batch)
    with pytest.raises(SignalError, match="needs the student's features"):
        alone.check(replace(student, features={}), Signals(), batch)


def test_a_batch_without_indices_is_a_sentence() -> None:
    student, teacher, batch = networks()
    with pytest.raises(SignalError, match=r"asking\(\) needs each sample's index, and the batches carry none\."):
        asking("index").check(student, teacher, replace(batch, index=None))


@pytest.mark.parametrize("need", ["features", "preactivations"])
def test_stages_of_which_none_is_matched_are_a_sentence_that_names_them(need: str) -> None:
    maps = {"deep": torch.ones(8, 9, 2, 3)}
    with pytest.raises(
        SignalError,
        match=rf"asking\(\) compares {need} stage by stage, and none of the student's \(stage1 4×8×8, stage2 6×4×4\) is "
        r"matched with one of the teacher's \(deep 9×2×3\); name the layers with 'taps'",
    ):
        asking(need).check(*networks(**{f"teacher_{need}": maps}))
    asking("stages").check(*networks(teacher_features=maps))


@pytest.mark.parametrize("need", ["features", "preactivations", "stem"])
def test_unequal_channels_are_a_sentence_where_nothing_projects_them(need: str) -> None:
    narrow = torch.ones(8, 5, 4, 4)
    maps = narrow if need == "stem" else {"stage1": torch.ones(8, 4, 1, 1), "other": narrow, "stage2": narrow}
    changes = {f"teacher_{need}": maps}
    where, width = ("stem", 3) if need == "stem" else ("stage2", 6)
    asking(need).check(*networks(**changes))
    with pytest.raises(
        SignalError,
        match=rf"asking\(\) has no projection: the student's {need} must have as many channels as the teacher's, and at "
        rf"'{where}' they have {width} and 5\. It is for networks of one family and width\.",
    ):
        asking(need, equal_channels=True).check(*networks(**changes))
    asking(need, equal_channels=True).check(*networks())


def test_channels_of_maps_that_are_not_asked_for_do_not_matter() -> None:
    asking("features", equal_channels=True).check(*networks(teacher_stem=torch.ones(8, 5, 4, 4)))


@pytest.mark.parametrize(("size", "fits"), [(1, False), (2, False), (3, True), (8, True)])
def test_a_batch_that_is_too_small_to_compare_samples_is_a_sentence(size: int, fits: bool) -> None:
    student, teacher, batch = networks()
    for objective in (asking("logits", minimum_batch=3), CE() + asking("logits", minimum_batch=3)):
        if fits:
            objective.check(student, teacher, batch[:size])
            objective.check_batch_size(size)
            continue
        sentence = rf"^asking\(\) compares samples of a batch: it needs at least 3, got {size}\.$"
        with pytest.raises(SignalError, match=sentence):
            objective.check(student, teacher, batch[:size])
        with pytest.raises(SignalError, match=sentence):
            objective.check_batch_size(size)


def test_a_sum_needs_the_largest_of_the_smallest_batches_and_is_order_free_if_all_parts_are() -> None:
    assert WeightedSum([]).minimum_batch == KD().minimum_batch == 1
    assert (CE() + asking(minimum_batch=2) + 0 * asking(minimum_batch=9)).minimum_batch == 2
    assert (CE() + KD()).order_free
    assert not (CE() + asking(order_free=False)).order_free
    assert (CE() + 0 * asking(order_free=False)).order_free


# -- what an objective is told --------------------------------------------------------------------------------------------


class Ramp(Objective):
    """A weight that grows with the epoch, kept in a buffer."""

    name = "ramp"
    needs = frozenset({"logits", "index"})
    factor: Tensor

    def __init__(self, *, epochs: int = 4) -> None:
        super().__init__()
        self.epochs = epochs
        self.labels: Tensor | None = None
        self.register_buffer("factor", torch.zeros(()))

    def set_training_labels(self, labels: Tensor) -> None:
        self.labels = labels

    def start_epoch(self, epoch: int) -> None:
        self.factor.fill_(min(epoch / self.epochs, 1.0))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
        return {"ramp": self.factor * (student.logits - teacher.logits).square().mean()}


def test_the_epoch_reaches_every_part_of_a_sum() -> None:
    first, second = Ramp(), Ramp(epochs=2)
    objective = CE() + 2 * first + second
    plain = float((sample_signals(1).logits - sample_signals(2).logits).square().mean())
    for epoch, (one, other) in enumerate([(0.25, 0.5), (0.5, 1.0), (0.75, 1.0), (1.0, 1.0), (1.0, 1.0)], start=1):
        objective.start_epoch(epoch)
        terms = objective(sample_signals(1), sample_signals(2), sample_batch())
        assert terms["ramp1.ramp"].item() == pytest.approx(2 * one * plain)
        assert terms["ramp2.ramp"].item() == pytest.approx(other * plain)


def test_a_new_epoch_does_not_compile_anew() -> None:
    ramp, compilations = Ramp(), []

    def backend(graph: Any, example: Any) -> Any:
        compilations.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(ramp, backend=backend, fullgraph=True)
    values = []
    for epoch in range(1, 4):
        ramp.start_epoch(epoch)
        values.append(compiled(sample_signals(1), sample_signals(2), sample_batch())["ramp"].item())
    assert values == pytest.approx([values[0], 2 * values[0], 3 * values[0]])
    assert len(compilations) == 1


def test_the_training_labels_reach_every_part_of_a_sum() -> None:
    first, second, labels = Ramp(), Ramp(), torch.tensor([3, -1, 0])
    (CE() + first + 0.5 * (KD() + second)).set_training_labels(labels)
    assert first.labels is second.labels is labels


def test_an_objective_that_looks_at_neither_may_be_told_both() -> None:
    before = KD().expression()
    objective = KD()
    objective.start_epoch(3)
    objective.set_training_labels(torch.tensor([0]))
    assert objective.expression() == before


class Warming(Objective):
    """Trains alone for its first epochs, as AB and FSP do."""

    name = "warming"
    needs = frozenset({"logits"})

    def __init__(self, *, init_epochs: int = 30) -> None:
        super().__init__()
        self.init_epochs = init_epochs


def test_an_objective_with_initial_epochs_trains_alone_first_and_then_no_more() -> None:
    objective = Warming()
    assert objective.only_initial
    stage = objective.initial_stage()
    assert stage == InitialStage(objective, 30, ("student", "objective"), None)
    assert stage is not None
    assert stage.objective is objective


@pytest.mark.parametrize("objective", [Warming(init_epochs=0), KD(), CE() + Warming(), WeightedSum([])], ids=str)
def test_others_have_no_initial_stage(objective: Objective) -> None:
    # What a sum holds is asked part by part.
    assert not objective.only_initial
    assert objective.initial_stage() is None


@pytest.mark.parametrize("name", objectives())
def test_every_objective_of_ours_that_starts_alone_says_for_how_long(name: str) -> None:
    objective = objectives()[name]()
    stage = objective.initial_stage()
    assert (stage is not None) or not objective.only_initial
    if stage is not None:
        assert stage.epochs > 0
        assert set(stage.trains) <= {"student", "objective"}
        assert stage.trains
        assert isinstance(stage.objective, Objective)


class Replacing(Objective):
    name = "replacing"

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)

    def new_classifier(self) -> nn.Module:
        return self.head


def test_one_part_of_a_sum_may_replace_the_classifier_and_two_may_not() -> None:
    part = Replacing()
    assert (CE() + 2 * part).new_classifier() is part.head
    assert (CE() + KD()).new_classifier() is None
    with pytest.raises(
        SettingError, match=r"'replacing\(\) \+ replacing\(\)': two objectives would replace the student's"
    ):
        (part + Replacing()).new_classifier()


# -- an objective inside another ------------------------------------------------------------------------------------------


def around() -> type[Objective]:
    class Around(Objective, name="around"):
        takes_objective = True
        needs = frozenset({"logits"})

        def __init__(self, objective: Objective | None = None, *, power: float = 1.0) -> None:
            super().__init__()
            self.objective = KD() if objective is None else objective
            self.power = power

    return Around


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("around()", "around(kd())"),
        ("around", "around(kd())"),
        ("around(power=2)", "around(kd(), power=2)"),
        ("around(kd, power=1.0)", "around(kd())"),
        ("ce + 0.5*around(kd(temperature=2), power=3)", "ce() + 0.5*around(kd(temperature=2), power=3)"),
        ("around(2*kd)", "around(2*kd())"),
        ("around(kd + 0.3*ce(label_smoothing=0.1))", "around(kd() + 0.3*ce(label_smoothing=0.1))"),
        ("around(around(kd + ce), power=2)", "around(around(kd() + ce()), power=2)"),
    ],
)
def test_an_objective_in_the_parentheses_is_written_as_it_is_read(text: str, written: str) -> None:
    around()
    objective = parse_objective(text)
    assert objective.expression() == str(objective) == written
    assert parse_objective(written).expression() == written


def test_the_objective_inside_is_no_argument_by_name() -> None:
    cls = around()
    assert cls.defaults() == {"power": 1.0}
    assert cls().arguments() == {"power": 1.0}
    one = parse_objective("around(kd(temperature=2))").parts[0].objective
    assert isinstance(one, KD)
    assert one.temperature == 2
    assert isinstance(parse_objective("around(2*kd)").parts[0].objective, WeightedSum)
    assert isinstance(parse_objective("around(kd + ce)").parts[0].objective, WeightedSum)
    assert not parse_objective("kd").parts[0].takes_objective
