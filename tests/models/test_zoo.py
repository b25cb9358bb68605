"""The zoo: structure of every network against the published table, and what adding a family takes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from limbeck.errors import SettingError
from limbeck.models import create_model, list_models, register_model
from limbeck.models.zoo import registry, zoo_models

NARROW = ((16, 32), (16, 32), (32, 16), (64, 8))
WIDE = ((32, 32), (64, 32), (128, 16), (256, 8))
# name: parameters, multiply-adds in millions, (channels, side) of the stem and of the stages; 32×32 RGB, 100 classes
TABLE = {
    "resnet8": (83_892, 12.51, NARROW),
    "resnet14": (181_108, 26.66, NARROW),
    "resnet20": (278_324, 40.82, NARROW),
    "resnet32": (472_756, 69.13, NARROW),
    "resnet44": (667_188, 97.44, NARROW),
    "resnet56": (861_620, 125.75, NARROW),
    "resnet110": (1_736_564, 253.16, NARROW),
    "resnet8x4": (1_233_540, 177.07, WIDE),
    "resnet32x4": (7_433_860, 1083.04, WIDE),
}


def multiply_adds(network: nn.Module, images: torch.Tensor) -> int:
    total = 0

    def count(module, inputs, output):
        nonlocal total
        weights_per_output = module.weight[0].numel()
        total += output[0].numel() * weights_per_output

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(images)
    return total


@pytest.mark.parametrize("name", TABLE)
def test_cifar_resnets_match_the_published_table(name):
    parameters, millions, shapes = TABLE[name]
    with torch.device("meta"):
        network = create_model(name, num_classes=100).network
        seen = {}
        for stage in ("relu", "layer1", "layer2", "layer3"):
            network.get_submodule(stage).register_forward_hook(
                lambda module, inputs, output, stage=stage: seen.update({stage: (output.shape[1], output.shape[2])})
            )
        found = multiply_adds(network, torch.zeros(1, 3, 32, 32))
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert found / 1e6 == pytest.approx(millions, abs=0.01)
    assert tuple(seen.values()) == shapes
    assert network.fc.in_features == shapes[-1][0]


def test_resnet_has_the_names_of_the_public_checkpoints():
    keys = create_model("resnet8x4", num_classes=100).network.state_dict().keys()
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv2.weight", "layer1.0.downsample.0.weight"} <= keys
    assert {"layer3.0.downsample.1.weight", "fc.weight", "fc.bias"} <= keys
    assert "layer1.0.downsample.0.weight" not in create_model("resnet8", num_classes=100).network.state_dict()


@pytest.mark.parametrize("name", ["resnet8", "convnet_tiny", "convnet_base"])
@pytest.mark.parametrize("side", [8, 32, 40])
def test_networks_take_images_of_other_sizes_and_channels(name, side):
    network = create_model(name, num_classes=10, in_channels=1).network
    logits = network(torch.randn(2, 1, side, side))
    logits.sum().backward()
    assert logits.shape == (2, 10)
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_stage_outputs_are_after_the_relu():
    network = create_model("resnet8", num_classes=4).network
    outputs = []
    for stage in (network.layer1, network.layer2, network.layer3):
        stage.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    network(torch.randn(2, 3, 8, 8))
    assert all((output >= 0).all() for output in outputs)
    assert len(outputs) == 3


@pytest.mark.parametrize(("name", "parameters"), [("convnet_tiny", 1_442), ("convnet_base", 288_874)])
def test_named_convnets_have_the_stated_parameters(name, parameters):
    network = create_model(name, num_classes=10, in_channels=1).network
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_convnet_has_a_stage_for_each_width():
    network = create_model("convnet(widths=[4, 6, 8])", num_classes=3, in_channels=1).network
    shapes = []
    for stage in network.stages:
        stage.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    network(torch.randn(2, 1, 8, 8))
    assert shapes == [(2, 4, 8, 8), (2, 6, 4, 4), (2, 8, 2, 2)]
    assert isinstance(network.get_submodule("stages.1"), nn.Sequential)
    assert network.classifier.in_features == 8


@pytest.mark.parametrize("widths", ["[]", "[0]", "[8, 'x']", "8", "[8.5]"])
def test_convnet_refuses_widths_that_are_not_whole_numbers(widths):
    with pytest.raises(SettingError, match="widths must be a list of positive whole numbers"):
        create_model(f"convnet(widths={widths})", num_classes=3)


def test_a_family_is_added_by_its_file_alone(tmp_path, monkeypatch):
    family = tmp_path / "lines.py"
    family.write_text(
        "from torch import nn\n"
        "from limbeck.models.zoo.registry import register_model\n"
        "@register_model\n"
        "def line_of_one(*, num_classes: int, in_channels: int = 3) -> nn.Module:\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))\n"
    )
    import limbeck.models.zoo as package

    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_functions", dict(zoo_models()))
    registry._load_all.cache_clear()
    assert create_model("line_of_one", num_classes=5).network(torch.zeros(1, 3, 4, 4)).shape == (1, 5)
    assert [entry.parameters for entry in list_models("zoo:line*")] == [400]
    registry._load_all.cache_clear()
    sys.modules.pop("limbeck.models.zoo.lines")


def test_a_name_is_given_once():
    def resnet8(*, num_classes: int, in_channels: int = 3) -> nn.Module:
        return nn.Identity()

    assert "resnet8" in zoo_models()
    with pytest.raises(SettingError, match=r"'resnet8' of .* is taken by limbeck\.models\.zoo\.resnet"):
        register_model(resnet8)


def test_importing_models_loads_torch_and_nothing_else_that_is_heavy():
    code = (
        "import sys, limbeck.models\n"
        "heavy = {'torchvision', 'timm', 'transformers', 'sklearn', 'accelerate', 'matplotlib', 'pydantic'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
