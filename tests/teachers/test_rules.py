"""Rules by themselves: each equals a loop in plain numbers, and refuses what it cannot take."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from limbeck.errors import SettingError
from limbeck.signals import Batch
from limbeck.teachers.rules import RULES, Best, Mean, PrunedMix, Routed, Rule, Vote, pruned

LABELS = torch.tensor([0, 2, 1, 1])


def several(count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(count)]


def batch(index: Sequence[int] = (0, 1, 2, 3)) -> Batch:
    return Batch(torch.zeros(len(index), 1), LABELS[: len(index)], torch.tensor(index))


def softmax(row: Sequence[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def test_the_mean_of_logits_and_of_probabilities() -> None:
    told = several(3)
    weights, shares = [2.0, 1.0, 1.0], [0.5, 0.25, 0.25]
    mean = Mean(weights=weights).answer(told)
    probabilities = Mean(weights=weights, of="probabilities").answer(told)
    for row in range(4):
        rows = [each[row].tolist() for each in told]
        mixed = [sum(share * softmax(each)[k] for share, each in zip(shares, rows, strict=True)) for k in range(3)]
        assert mean[row].tolist() == pytest.approx(
            [sum(share * each[k] for share, each in zip(shares, rows, strict=True)) for k in range(3)]
        )
        assert probabilities[row].exp().tolist() == pytest.approx(mixed)
    assert torch.allclose(Mean().answer(told), sum(told) / 3)  # type: ignore[arg-type]  # a sum of tensors


def test_votes_are_counted() -> None:
    told = [torch.tensor([[3.0, 0.0, 1.0]]), torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0]])]
    found = Vote(smoothing=0.3).answer(told).exp()[0].tolist()
    assert found == pytest.approx([0.7 * 2 / 3 + 0.1, 0.1, 0.7 / 3 + 0.1])


def test_the_best_teacher_of_each_sample_and_no_label_where_none_is_known() -> None:
    told = several(3)
    found = Best().teach(told, batch())
    for row, label in enumerate(LABELS.tolist()):
        best = max(told, key=lambda each: softmax(each[row].tolist())[label])
        assert torch.equal(found[row], best[row])
    assert torch.allclose(Best().answer(told), Mean().answer(told))


def test_pruned_layers_lose_their_smallest_weights_each_by_itself() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 10))
    with torch.no_grad():
        network[3].weight.mul_(100)  # pruning over all layers at once would leave it whole
    before = {name: value.clone() for name, value in network.state_dict().items()}
    thinned = pruned(network, 0.25)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for place in (0, 3):
        ours, theirs = thinned[place].weight.flatten(), network[place].weight.flatten()
        gone = ours == 0
        assert int(gone.sum()) == round(0.25 * theirs.numel())
        assert theirs[gone].abs().max() < theirs[~gone].abs().min()
        assert torch.equal(ours[~gone], theirs[~gone])
    assert torch.equal(thinned[1].weight, network[1].weight)
    assert torch.equal(thinned[3].bias, network[3].bias)


def test_pruned_mix_averages_logits() -> None:
    whole, thinned = several(2)
    assert torch.allclose(PrunedMix(weight=0.3).answer([whole, thinned]), 0.7 * whole + 0.3 * thinned)
    (made,) = PrunedMix(amount=0.5).others(nn.Linear(4, 2))
    assert int((made.weight == 0).sum()) == 4


@given(st.integers(2, 4), st.integers(4, 40), st.sampled_from(["difficulty", "reversed", "random"]), st.integers(0, 9))
def test_each_expert_has_an_equal_share_of_the_samples(count: int, samples: int, order: str, seed: int) -> None:
    losses = torch.rand(count, samples, generator=torch.Generator().manual_seed(seed))
    index = torch.arange(samples) * 3 + 1
    rule = Routed(order=order, pacing=0.5)
    rule.prepare(losses, index)
    rule.start_epoch(10, 10)
    experts = rule.experts(index)
    counts = torch.bincount(experts, minlength=count)
    assert int(counts.max() - counts.min()) <= 1
    ranked = experts[losses.mean(dim=0).argsort(stable=True)].tolist()
    if order == "difficulty":
        assert ranked == sorted(ranked)
    if order == "reversed":
        assert ranked == sorted(ranked, reverse=True)


def test_harder_strata_get_their_experts_later() -> None:
    rule = Routed(pacing=0.5)
    rule.prepare(torch.arange(9.0).repeat(3, 1), torch.arange(9))
    largest = []
    for epoch in range(1, 9):
        rule.start_epoch(epoch, 8)
        largest.append(int(rule.experts(torch.arange(9)).max()))
    assert largest == [0, 0, 1, 1, 2, 2, 2, 2]
    told = several(3)
    assert torch.equal(
        rule.teach(told, batch([0, 4, 8, 1])), torch.stack([told[0][0], told[1][1], told[2][2], told[0][3]])
    )
    assert torch.equal(rule.answer(told), told[2])
    by_largest = Routed(by="largest", pacing=0)
    by_largest.prepare(torch.tensor([[9.0, 9.0, 0.0], [0.0, 1.0, 2.0]]), torch.arange(3))
    assert by_largest.experts(torch.arange(3)).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("rule", "parameters", "reason"),
    [
        (Mean(), [5], "mean takes at least 2 teachers, got 1"),
        (PrunedMix(), [5, 5], "pruned_mix takes 1 teacher, got 2"),
        (Mean(weights=[1, 2, 3]), [5, 5], "3 weights are given for 2 teachers"),
        (Routed(), [9, 5], "from small to large, and these have 9, 5 parameters"),
    ],
)
def test_teachers_that_a_rule_cannot_take(rule: Rule, parameters: list[int], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        rule.check(parameters)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("mean", {"weights": [1, 0]}, "weights must be"),
        ("mean", {"weights": 3}, "weights must be a list"),
        ("mean", {"of": "logit"}, "did you mean 'logits'"),
        ("vote", {"smoothing": 0}, "smoothing must be"),
        ("pruned_mix", {"amount": 1}, "must be less than 1"),
        ("pruned_mix", {"weight": -0.1}, "weight must be"),
        ("routed", {"by": "teacher"}, "by: unknown value"),
        ("routed", {"order": "reverse"}, "did you mean 'reversed'"),
        ("routed", {"pacing": 1.5}, "pacing must be at most 1"),
        ("routed", {"seed": 0.5}, "seed must be a whole number"),
    ],
)
def test_options_out_of_bounds_are_refused(name: str, options: dict[str, object], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        RULES[name](**options)


def test_layers_that_pruning_would_empty_are_refused() -> None:
    with pytest.raises(SettingError, match="leaves no weight of the layer 1"):
        pruned(nn.Sequential(nn.Linear(9, 9), nn.Linear(1, 1)), 0.6)
    with pytest.raises(SettingError, match="no convolution and no linear layer"):
        pruned(nn.BatchNorm2d(3), 0.1)
    rule = Routed()
    with pytest.raises(SettingError, match="2 training samples cannot be shared by 3 experts"):
        rule.prepare(torch.zeros(3, 2), torch.arange(2))
