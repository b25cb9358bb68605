"""Counts that can be worked out by hand, and times that are told with their spread."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from limbeck.evaluate.cost import costs, macs, peak_memory, weight_bytes


def layers() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10)
    ).eval()


def test_macs_of_layers_by_hand() -> None:
    network = layers()
    assert macs(network, torch.zeros(1, 3, 4, 4)) == 3 * 8 * 9 * 16 + 8 * 16 * 10
    assert macs(network, torch.zeros(5, 3, 4, 4)) == 5 * macs(network, torch.zeros(1, 3, 4, 4))


def test_macs_of_attention_are_counted_and_the_setting_is_put_back() -> None:
    block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0).eval()
    projections, mlp, products = 4 * 16 * 16, 2 * 16 * 32, 2 * 5 * 16
    assert macs(block, torch.zeros(1, 5, 16)) == 5 * (projections + mlp + products)
    assert torch.backends.mha.get_fastpath_enabled()


def test_bytes_are_those_of_a_file_and_shared_weights_count_once(tmp_path: pytest.TempPathFactory) -> None:
    network = layers()
    path = tmp_path / "weights.safetensors"  # type: ignore[operator]
    save_file(network.state_dict(), path)
    assert 0 < path.stat().st_size - weight_bytes(network) < 1024
    one = nn.Linear(4, 4, bias=False)
    assert weight_bytes(nn.Sequential(one, one)) == 64


def test_peak_memory_by_hand() -> None:
    network = nn.Sequential(nn.Linear(10, 100), nn.ReLU(), nn.Linear(100, 1))
    weights, inputs = (10 * 100 + 100 + 100 + 1) * 4, 32 * 10 * 4
    # Before and after the ReLU, which is out of place.
    found, allocated = peak_memory(network, torch.zeros(32, 10))
    assert found == weights + inputs + 2 * 32 * 100 * 4
    assert allocated is None
    in_place = nn.Sequential(nn.Linear(10, 100), nn.ReLU(inplace=True), nn.Linear(100, 1))
    assert peak_memory(in_place, torch.zeros(32, 10))[0] == weights + inputs + 32 * 101 * 4


def test_ratios_are_the_teachers_over_the_models() -> None:
    small, large = nn.Linear(50, 50), nn.Sequential(nn.Linear(50, 500), nn.Linear(500, 50))
    image = torch.zeros(1, 50)
    found = costs({"model": (small, image), "teacher": (large, image)}, batch_size=16, teacher="teacher")
    model, teacher = found.networks["model"], found.networks["teacher"]
    assert found.ratios is not None
    assert list(found.ratios) == ["model"]
    assert found.ratios["model"].macs == pytest.approx(2 * 500 / 50)
    assert found.ratios["model"].parameters == pytest.approx(teacher.parameters / model.parameters)
    assert [each.batch for each in model.latency] == [1, 16]
    for each in (*model.latency, *teacher.latency):
        assert 0 < each.low_ms <= each.median_ms <= each.high_ms
        assert each.repeats >= 7
        assert each.images_per_second == pytest.approx(1000 * each.batch / each.median_ms)
    assert model.file_bytes is None
    assert costs({"model": (small, image)}, batch_size=1).ratios is None
    assert len(costs({"model": (small, image)}, batch_size=1).networks["model"].latency) == 1
