from __future__ import annotations

import torch
from torch import nn

from limbeck.engine.ema import MovingAverage


def test_the_average_follows_the_formula_with_its_early_ramp() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = MovingAverage(network, 0.5)
    expected = 0.0
    for update in range(8):
        with torch.no_grad():
            network.weight.fill_(float(update))
        average.update(network)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * update
    with average.in_place_of(network):
        torch.testing.assert_close(network.weight.item(), expected)
    assert network.weight.item() == 7.0


def test_buffers_are_averaged_and_counters_copied() -> None:
    network = nn.BatchNorm1d(2)
    average = MovingAverage(network, 0.9)
    for _ in range(3):
        network(torch.randn(4, 2) + 5)
        average.update(network)
    with average.in_place_of(network):
        assert network.num_batches_tracked.item() == 3
        kept = network.running_mean.clone()
    assert not torch.equal(kept, network.running_mean)


def test_its_state_can_be_saved_and_loaded() -> None:
    network = nn.Linear(2, 2)
    average = MovingAverage(network, 0.9)
    average.update(network)
    other = MovingAverage(nn.Linear(2, 2), 0.9)
    other.load_state_dict(average.state_dict())
    assert other.updates == 1
    with other.in_place_of(network):
        taken = network.weight.clone()
    with average.in_place_of(network):
        assert torch.equal(taken, network.weight)
