"""Factor transfer against its formula (shared/spec/vision-methods.md, section 3.2, item 10), and its two stages."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck.engine.trainable import Stage, Trainable
from limbeck.errors import SettingError
from limbeck.objectives import WeightedSum, objectives, parse_objective
from limbeck.objectives.base import InitialStage
from limbeck.objectives.ft import FT
from limbeck.signals import Batch, Signals
from limbeck.taps import Tapped

Maps = list[list[list[list[float]]]]


def signals(seed: int, channels: int, side: int = 3, n: int = 2, dtype: torch.dtype = torch.float64) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    early, last = (torch.randn(n, channels, s, s, generator=generator, dtype=torch.float64) for s in (2 * side, side))
    return Signals(features={"early": early.to(dtype), f"last{seed}": last.to(dtype)})


def last(found: Signals) -> Tensor:
    return list(found.features.values())[-1]


def batch_of(size: int, weight: Tensor | None = None) -> Batch:
    return Batch(torch.zeros(size, 1), torch.zeros(size, dtype=torch.int64), weight=weight)


def alone(student: Signals, teacher: Signals, **options: Any) -> FT:
    objective = FT(**options)
    torch.manual_seed(0)
    objective.build(student, teacher)
    return objective.double()


def staged(student: Signals, teacher: Signals, **options: Any) -> tuple[FT, InitialStage]:
    """As the engine builds it: the first stage's objective, then this."""
    objective = FT(**options)
    stage = objective.initial_stage()
    assert stage is not None
    torch.manual_seed(0)
    stage.objective.build(student, teacher)
    objective.build(student, teacher)
    stage.objective.double()
    return objective.double(), stage


def ft(objective: FT, student: Signals, teacher: Signals, weight: Tensor | None = None) -> Tensor:
    return objective(student, teacher, batch_of(len(last(student)), weight))["ft"]


def slow_convolution(maps: Maps, layer: nn.Module, transposed: bool = False) -> Maps:
    weight, bias = layer.weight.tolist(), [0.0] * 99 if layer.bias is None else layer.bias.tolist()
    side = range(len(maps[0][0]))
    outputs = len(weight[0]) if transposed else len(weight)

    def entry(o: int, c: int, i: int, j: int) -> float:
        return weight[c][o][2 - i][2 - j] if transposed else weight[o][c][i][j]

    def value(sample: list[list[list[float]]], o: int, h: int, w: int) -> float:
        return bias[o] + sum(
            entry(o, c, i, j) * sample[c][h + i - 1][w + j - 1]
            for c in range(len(sample))
            for i in range(3)
            for j in range(3)
            if h + i - 1 in side and w + j - 1 in side
        )

    return [[[[value(sample, o, h, w) for w in side] for h in side] for o in range(outputs)] for sample in maps]


def slow_layer(maps: Maps, layer: nn.Module) -> Maps:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return slow_convolution(maps, layer, isinstance(layer, nn.ConvTranspose2d))
    if isinstance(layer, nn.LeakyReLU):
        return [[[[v if v > 0 else 0.1 * v for v in row] for row in c] for c in sample] for sample in maps]
    assert isinstance(layer, nn.BatchNorm2d)
    found: Maps = [[] for _ in maps]
    for channel, (scale, shift) in enumerate(zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)):
        values = [v for sample in maps for row in sample[channel] for v in row]
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) + 1e-5)
        for ours, sample in zip(found, maps, strict=True):
            ours.append([[scale * (v - mean) / deviation + shift for v in row] for row in sample[channel]])
    return found


def slow_run(layers: nn.Module | None, maps: Tensor) -> Maps:
    assert isinstance(layers, nn.Sequential)
    found = maps.tolist()
    for layer in layers:
        found = slow_layer(found, layer)
    return found


def slow_attention(sample: list[list[list[float]]]) -> list[float]:
    side = range(len(sample[0]))
    flat = [sum(c[h][w] ** 2 for c in sample) / len(sample) for h in side for w in side]
    length = math.sqrt(sum(value * value for value in flat))
    return [value / length for value in flat]


def slow_ft(objective: FT, paraphraser: nn.Module | None, student: Signals, teacher: Signals) -> float:
    ours, theirs = slow_run(objective.translator, last(student)), slow_run(paraphraser, last(teacher))
    gaps = [
        abs(a - b)
        for one, other in zip(ours, theirs, strict=True)
        for a, b in zip(slow_attention(one), slow_attention(other), strict=True)
    ]
    return sum(gaps) / len(gaps)


def test_value_is_the_formula() -> None:
    student, teacher = signals(1, 3), signals(2, 4)
    objective = alone(student, teacher)
    expected = slow_ft(objective, objective.paraphraser, student, teacher)
    assert ft(objective, student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_the_first_stages_loss_is_the_mean_square_error_of_the_reconstruction() -> None:
    student, teacher = signals(1, 3), signals(2, 4)
    _, stage = staged(student, teacher)
    first: Any = stage.objective
    found = torch.tensor(
        slow_run(first.decoder, torch.tensor(slow_run(first.encoder, last(teacher)), dtype=torch.float64))
    )
    expected = (found - last(teacher)).square().mean().item()
    terms = first(student, teacher, batch_of(2))
    assert list(terms) == ["paraphraser"]
    assert terms["paraphraser"].item() == pytest.approx(expected, rel=1e-6)


def test_layers_have_the_widths_of_the_benchmark() -> None:
    objective, stage = staged(signals(1, 6), signals(2, 8))
    first: Any = stage.objective

    def widths(layers: nn.Module | None) -> list[tuple[int, int]]:
        assert layers is not None
        return [
            (layer.in_channels, layer.out_channels)
            for layer in layers.modules()
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        ]

    assert widths(first.encoder) == [(8, 8), (8, 4), (4, 4)]
    assert widths(first.decoder) == [(4, 4), (4, 8), (8, 8)]
    assert widths(objective.translator) == [(6, 6), (6, 4), (4, 4)]
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in first.modules())
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in objective.modules()) == 3
    assert widths(alone(signals(1, 6), signals(2, 8), rate=0.25).translator) == [(6, 6), (6, 2), (2, 2)]
    assert widths(alone(signals(1, 6), signals(2, 8), rate=0.01).paraphraser) == [(8, 8), (8, 1), (1, 1)]


def test_the_larger_of_two_factors_is_averaged() -> None:
    student, teacher = signals(1, 3, side=6), signals(2, 4, side=3)
    objective = alone(student, teacher)
    assert objective.translator is not None
    assert objective.paraphraser is not None
    ours, theirs = objective.translator(last(student)), objective.paraphraser(last(teacher))
    small = ours.reshape(2, 2, 3, 2, 3, 2).mean(dim=(3, 5))
    gaps = [
        abs(a - b)
        for one, other in zip(small.tolist(), theirs.tolist(), strict=True)
        for a, b in zip(slow_attention(one), slow_attention(other), strict=True)
    ]
    assert ft(objective, student, teacher).item() == pytest.approx(sum(gaps) / len(gaps), rel=1e-9)


def test_samples_are_weighted_in_both_stages() -> None:
    student, teacher = signals(1, 3), signals(2, 4)
    objective, stage = staged(student, teacher)
    for part in (objective, stage.objective):
        (plain,), (first,), (second,) = (
            part(student, teacher, batch_of(2, weight)).values()
            for weight in (None, torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0]))
        )
        torch.testing.assert_close(plain, (first + second) / 2)
        assert not torch.allclose(first, second, rtol=1e-3)


def test_the_initial_stage_trains_the_paraphraser_alone_at_its_own_learning_rate() -> None:
    stage = FT(init_lr=0.01).initial_stage()
    assert stage is not None
    assert (stage.epochs, stage.trains, stage.lr) == (30, ("objective",), 0.01)
    other = FT(init_epochs=3).initial_stage()
    assert other is not None
    assert (other.epochs, other.lr) == (3, None)
    assert FT(init_epochs=0).initial_stage() is None
    assert not FT().only_initial, "it is a loss of the main stage too"


def test_the_initial_stage_is_the_same_each_time_it_is_asked_for_and_has_no_public_name() -> None:
    objective = FT()
    one, other = objective.initial_stage(), objective.initial_stage()
    assert one is not None
    assert other is not None
    assert one.objective is other.objective
    assert type(one.objective) not in objectives().values()


def trainable_of(student: Signals, teacher: Signals) -> tuple[Trainable, FT, Any]:
    objective, stage = staged(student, teacher)
    stages = [
        Stage(WeightedSum([(1.0, stage.objective)]), stage.epochs, stage.trains, stage.lr),
        Stage(WeightedSum([(200.0, objective)]), 1),
    ]
    return Trainable(Tapped(nn.Linear(1, 1)), stages).double(), objective, stage.objective


def learning(trainable: Trainable) -> set[str]:
    return {name for name, p in trainable.named_parameters() if p.requires_grad and not name.startswith("student")}


def test_each_stage_trains_its_own_and_the_paraphraser_rests_in_the_main_one() -> None:
    trainable, _, _ = trainable_of(signals(1, 3), signals(2, 4))
    trainable.activate(0)
    first = learning(trainable)
    trainable.activate(1)
    second = learning(trainable)
    assert len(first) == 12
    assert all(name.startswith(("objectives.0.parts.0.encoder.", "objectives.0.parts.0.decoder.")) for name in first)
    assert all(".translator." in name for name in second)
    assert len(second) == 9
    assert len(dict(trainable.named_parameters(remove_duplicate=False))) == len(dict(trainable.named_parameters()))


def test_what_the_first_stage_learns_is_what_the_main_one_uses_and_does_not_change_there() -> None:
    student, teacher = signals(1, 3, n=8), signals(2, 4, n=8)
    trainable, objective, first = trainable_of(student, teacher)
    untrained = ft(objective, student, teacher).item()
    history = []
    trainable.activate(0)
    optimizer = torch.optim.SGD([p for p in trainable.parameters() if p.requires_grad], lr=0.5, momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        loss = first(student, teacher, batch_of(8))["paraphraser"]
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.97 * history[0], "the paraphraser learns to reconstruct"
    assert abs(ft(objective, student, teacher).item() - untrained) > 1e-4
    assert ft(objective, student, teacher).item() == pytest.approx(slow_ft(objective, first.encoder, student, teacher))
    trainable.activate(1)
    trainable.zero_grad()
    before = copy.deepcopy(first.state_dict())
    optimizer = torch.optim.SGD([p for p in trainable.parameters() if p.requires_grad], lr=0.5, weight_decay=0.1)
    start = ft(objective, student, teacher).item()
    for _ in range(20):
        optimizer.zero_grad()
        ft(objective, student, teacher).backward()
        optimizer.step()
    assert ft(objective, student, teacher).item() < start
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())
    assert all(parameter.grad is None for parameter in first.parameters())


def test_a_deep_copy_of_both_stages_is_tied_as_they_are() -> None:
    student, teacher = signals(1, 3), signals(2, 4)
    trainable, objective, _ = trainable_of(student, teacher)
    copied = copy.deepcopy(trainable)
    first, second = (part for stage in copied.objectives for part in stage.parts)  # type: ignore[union-attr]
    assert isinstance(second, FT)
    value = ft(objective, student, teacher)
    assert torch.equal(ft(second, student, teacher), value)
    with torch.no_grad():
        first.encoder[0].weight.add_(torch.randn_like(first.encoder[0].weight))  # type: ignore[index,union-attr]
    assert not torch.allclose(ft(second, student, teacher), value), "the copy follows the copied first stage"
    assert torch.equal(ft(objective, student, teacher), value), "and the original does not"


def saved(module: nn.Module) -> dict[str, Tensor]:
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    state: dict[str, Tensor] = torch.load(buffer, weights_only=True)
    return state


def test_a_checkpoint_of_both_stages_holds_the_paraphraser_once_and_restores_it() -> None:
    student, teacher = signals(1, 3), signals(2, 4)
    trainable, objective, first = trainable_of(student, teacher)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(torch.randn_like(parameter))
    state = saved(trainable)
    assert {name for name in state if "paraphraser" in name} == set()
    assert sum(".encoder." in name for name in state) == 6
    other, resumed, _ = trainable_of(student, teacher)
    other.load_state_dict(state)
    assert torch.equal(ft(resumed, student, teacher), ft(objective, student, teacher))


def test_without_a_first_stage_the_paraphraser_is_its_own_is_saved_and_never_learns() -> None:
    student, teacher = signals(1, 3), signals(2, 4)
    objective = alone(student, teacher, init_epochs=0)
    names = {name for name, _ in objective.named_parameters()}
    assert all(name.startswith("translator.") for name in names)
    assert sum(name.startswith("paraphraser.") for name in objective.state_dict()) == 6
    objective.requires_grad_(True)
    ft(objective, student, teacher).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.parameters())
    torch.manual_seed(1)
    other = FT(init_epochs=0)
    other.build(student, teacher)
    other.double().load_state_dict(saved(objective))
    assert torch.equal(ft(other, student, teacher), ft(objective, student, teacher))


@pytest.mark.slow
def test_a_compiled_main_stage_reads_the_first_stages_paraphraser() -> None:
    student, teacher = signals(1, 3), signals(2, 4)
    objective, stage = staged(student, teacher)
    torch.compiler.reset()
    compiled = torch.compile(objective, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        value = compiled(student, teacher, batch_of(2))["ft"]
        torch.testing.assert_close(value, ft(objective, student, teacher))
        with torch.no_grad():
            stage.objective.encoder[0].weight.mul_(-2)  # type: ignore[index,operator]


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_teacher_in_half_precision_with_maps_of_size_300_gives_finite_losses(half: torch.dtype) -> None:
    student = signals(1, 3, dtype=torch.float32)
    full = signals(2, 4, dtype=torch.float32).map(lambda maps: 300 * maps.sign())
    teacher = full.map(lambda maps: maps.to(half))
    objective, stage = staged(student, full)
    objective.float()
    stage.objective.float()
    for part in (objective, stage.objective):
        (loss,), (expected,) = (part(student, found, batch_of(2)).values() for found in (teacher, full))
        loss.backward()
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in part.parameters())


def test_gradients_are_those_of_the_formula_for_student_and_translator() -> None:
    student, teacher = signals(1, 2, side=2), signals(2, 3, side=2)
    objective = alone(student, teacher)
    maps = last(student).requires_grad_()
    learned = [maps, *objective.parameters()]
    assert torch.autograd.gradcheck(lambda *_: ft(objective, student, teacher), learned)


def test_every_parameter_of_the_first_stage_learns_and_neither_network_does() -> None:
    student, teacher = signals(1, 3), signals(2, 4)
    _, stage = staged(student, teacher)
    ours, theirs = last(student).requires_grad_(), last(teacher).requires_grad_()
    stage.objective(student, teacher, batch_of(2))["paraphraser"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 1e-8 for p in stage.objective.parameters())
    assert ours.grad is None
    assert theirs.grad is None


def test_the_presets_weigh_it_200_times() -> None:
    for preset in ("ft", "ft+kd"):
        weights = {key: weight for key, weight, _ in parse_objective(preset).entries()}
        assert weights == {"ce": 1.0, "ft": 200.0, **({"kd": 1.0} if "kd" in preset else {})}


def test_forgotten_encoders_are_an_error() -> None:
    student, teacher = signals(1, 3), signals(2, 4)
    with pytest.raises(SettingError, match=r"no translator yet: call build\(student, teacher\) before"):
        ft(FT(), student, teacher)
    stage = FT().initial_stage()
    assert stage is not None
    with pytest.raises(SettingError, match=r"paraphraser is not built yet: call build\(student, teacher\) before"):
        stage.objective(student, teacher, batch_of(2))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rate": 0}, "rate must be greater than 0"),
        ({"init_epochs": -1}, "init_epochs must be a whole number of at least 0, got -1"),
        ({"init_epochs": 2.5}, "init_epochs must be a whole number of at least 0"),
        ({"init_lr": 0.0}, "init_lr must be greater than 0"),
        ({"init_lr": "fast"}, "init_lr must be a finite number"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        FT(**options)
