"""Where the stages of a network end: as it declares them, as timm lists them, or as its run shows them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck.errors import SettingError, TapError
from limbeck.models import create_model, list_models
from limbeck.stages import Stages, StageTaps, find_embedding_map, find_stages
from limbeck.taps import Tapped, find_classifier, module_at

ZOO = [entry.name for entry in list_models("zoo:*")]


def images(size: int, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def torchvision(name: str, **options: Any) -> nn.Module:
    import torchvision.models

    return torchvision.models.get_model(name, weights=None, num_classes=7, **options)


def vgg11_bn() -> nn.Module:
    network = torchvision("vgg11_bn")
    # As they come, the linear layers have 120 million weights.
    network.classifier = nn.Sequential(nn.Linear(512 * 49, 4), nn.ReLU(True), nn.Linear(4, 7))
    return network


def timm(name: str, **options: Any) -> nn.Module:
    import timm

    return timm.create_model(name, num_classes=7, **options)


def tapped_shapes(network: nn.Module, stages: Stages, x: Tensor) -> dict[str, list[tuple[int, ...]]]:
    """What the taps of these stages record, by group; in training mode, where nothing may be overwritten."""
    tapped = Tapped(network)
    for group, paths in (("features", stages.paths), ("preactivations", stages.preactivations)):
        for path in paths:
            tapped.record(group, path, path)
    if stages.stem is not None:
        tapped.record("stem", "stem", stages.stem)
    signals = tapped.train()(x)
    tapped.close()
    return {
        "features": [tuple(value.shape[1:]) for value in signals.features.values()],
        "preactivations": [tuple(value.shape[1:]) for value in signals.preactivations.values()],
        "stem": [tuple(signals.stem.shape[1:])] if signals.stem is not None else [],
    }


# -- the zoo -----------------------------------------------------------------------------------------------------------


_LARGE = {"resnet110", "resnet56", "resnet44", "resnet32x4", "vgg13", "vgg16", "vgg19", "wrn_40_2"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in _LARGE)) for n in ZOO])
def test_stages_of_the_zoo_can_be_tapped_and_shrink(name: str) -> None:
    torch.manual_seed(0)
    network = create_model(name, num_classes=7, in_channels=3).network
    stages = find_stages(network, images(16))
    assert len(stages.paths) == len(stages.preactivations) == len(stages.norms) == len(stages.shapes) >= 2
    sizes = [height for _, height, _ in stages.shapes]
    assert sizes == sorted(sizes, reverse=True)
    assert (stages.stem is None) == name.startswith("convnet")
    seen = tapped_shapes(network, stages, images(16))
    assert seen["features"] == list(stages.shapes)
    assert [shape[1:] for shape in seen["preactivations"]] == [shape[1:] for shape in stages.shapes]


@pytest.mark.parametrize("name", ["convnet_base", "resnet8x4", "wrn_16_1", "vgg8", "shufflenetv1"])
def test_preactivations_of_the_zoo_become_the_stages_by_their_relu(name: str) -> None:
    torch.manual_seed(0)
    network = create_model(name, num_classes=7, in_channels=3).network.eval()
    stages = find_stages(network, images(16))
    tapped = Tapped(network)
    for path, before in zip(stages.paths, stages.preactivations, strict=True):
        assert before.endswith(":input")
        tapped.record("features", path, path)
        tapped.record("preactivations", path, before)
    signals = tapped(images(16))
    for path in stages.paths:
        after, before = signals.features[path], signals.preactivations[path]
        assert bool((before < 0).any())
        # The groups of a wide ResNet end in a sum, and their preactivation is what the next norm makes of it.
        assert torch.equal(before.relu(), after) != name.startswith("wrn")


@pytest.mark.parametrize(
    ("name", "norms"),
    [
        ("convnet_base", ("stages.0.1", "stages.1.1", "stages.2.1")),
        ("resnet14", ("layer1.1.bn2", "layer2.1.bn2", "layer3.1.bn2")),
        ("ResNet50", ("layer1.2.bn3", "layer2.3.bn3", "layer3.5.bn3", "layer4.2.bn3")),
        ("resnet8x4", ("layer1.0.bn2", "layer2.0.bn2", "layer3.0.bn2")),  # the shortcut's norm runs last
        ("vgg8", ("block1.1", "block2.1", "block3.1", "block4.1")),
        ("wrn_16_1", ("block2.layer.0.bn1", "block3.layer.0.bn1", "bn1")),
        ("shufflenetv1", ("layer1.3.bn3", "layer2.7.bn3", "layer3.3.bn3")),
        ("shufflenetv2", (None, None, None)),  # half of a stage has passed no norm
        ("mobilenetv2_half", ("blocks.1.1.conv.7", "blocks.2.2.conv.7", "blocks.4.2.conv.7", "blocks.6.0.conv.7")),
    ],
)
def test_the_norm_before_a_map_is_the_blocks_own(name: str, norms: tuple[str | None, ...]) -> None:
    network = create_model(name, num_classes=7, in_channels=3).network
    stages = find_stages(network, images(16))
    assert stages.norms == norms
    for norm, (channels, _, _) in zip(norms, stages.shapes, strict=True):
        assert norm is None or module_at(network, norm).num_features == channels


# -- other people's networks -------------------------------------------------------------------------------------------

FOUND: dict[str, tuple[Any, int, dict[str, tuple[int, int, int]], str | None]] = {
    "torchvision:resnet18": (
        lambda: torchvision("resnet18"),
        64,
        {"layer1": (64, 16, 16), "layer2": (128, 8, 8), "layer3": (256, 4, 4), "layer4": (512, 2, 2)},
        "relu",
    ),
    # Its blocks work at the size of the stage before at first, and call one ReLU three times.
    "torchvision:resnet50": (
        lambda: torchvision("resnet50"),
        64,
        {"layer1": (256, 16, 16), "layer2": (512, 8, 8), "layer3": (1024, 4, 4), "layer4": (2048, 2, 2)},
        "relu",
    ),
    "torchvision:mobilenet_v2": (
        lambda: torchvision("mobilenet_v2"),
        64,
        {
            "features.1": (16, 32, 32),
            "features.3": (24, 16, 16),
            "features.6": (32, 8, 8),
            "features.13": (96, 4, 4),
            "features.18": (1280, 2, 2),
        },
        None,
    ),
    # The average that makes 7×7 of 1×1 positions is no stage.
    "torchvision:vgg11_bn": (
        vgg11_bn,
        32,
        {
            "features.2": (64, 32, 32),
            "features.6": (128, 16, 16),
            "features.13": (256, 8, 8),
            "features.20": (512, 4, 4),
            "features.27": (512, 2, 2),
        },
        None,
    ),
    # A ReLU that is no module overwrites the last norm in place, so the block before it is what can be tapped.
    "torchvision:densenet121": (
        lambda: torchvision("densenet121"),
        64,
        {
            "features.denseblock1": (256, 16, 16),
            "features.denseblock2": (512, 8, 8),
            "features.denseblock3": (1024, 4, 4),
            "features.denseblock4": (1024, 2, 2),
        },
        "features.relu0",
    ),
    "torchvision:convnext_tiny": (
        lambda: torchvision("convnext_tiny"),
        64,
        {
            "features.1": (96, 16, 16),
            "features.3": (192, 8, 8),
            "features.5": (384, 4, 4),
            "features.7": (768, 2, 2),
        },
        None,
    ),
    # Between its first convolution and its last layer the channels come last.
    "torchvision:swin_t": (
        lambda: torchvision("swin_t"),
        64,
        {"features.1": (96, 16, 16), "features.3": (192, 8, 8), "features.5": (384, 4, 4), "permute": (768, 2, 2)},
        None,
    ),
    "timm:resnet18": (
        lambda: timm("resnet18"),
        64,
        {"layer1": (64, 16, 16), "layer2": (128, 8, 8), "layer3": (256, 4, 4), "layer4": (512, 2, 2)},
        "act1",
    ),
    "timm:mobilenetv2_035": (
        lambda: timm("mobilenetv2_035"),
        64,
        {
            "blocks.0": (8, 32, 32),
            "blocks.1": (8, 16, 16),
            "blocks.2": (16, 8, 8),
            "blocks.4": (32, 4, 4),
            "blocks.6": (112, 2, 2),
        },
        None,
    ),
    "timm:convnext_atto": (
        lambda: timm("convnext_atto"),
        64,
        {"stages.0": (40, 16, 16), "stages.1": (80, 8, 8), "stages.2": (160, 4, 4), "stages.3": (320, 2, 2)},
        None,
    ),
    "timm:swin_tiny": (
        lambda: timm("swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(1, 1, 1, 1)),
        56,
        {"layers.0": (24, 14, 14), "layers.1": (48, 7, 7), "layers.2": (96, 4, 4), "layers.3": (192, 2, 2)},
        None,
    ),
    "timm:vit": (
        lambda: timm("vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=24),
        64,
        {"blocks.0": (24, 4, 4), "blocks.1": (24, 4, 4)},
        None,
    ),
    "timm:deit_distilled": (
        lambda: timm("deit_tiny_distilled_patch16_224", img_size=64, depth=2, embed_dim=24),
        64,
        {"blocks.0": (24, 4, 4), "blocks.1": (24, 4, 4)},
        None,
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_stages_of_other_networks(name: str) -> None:
    make, size, expected, stem = FOUND[name]
    torch.manual_seed(0)
    network = make()
    stages = find_stages(network, images(size))
    assert dict(zip(stages.paths, stages.shapes, strict=True)) == expected
    assert stages.stem == stem
    seen = tapped_shapes(network, stages, images(size))
    assert seen["features"] == seen["preactivations"] == list(expected.values())


@pytest.mark.parametrize(
    ("make", "preactivations", "norms"),
    [
        (lambda: torchvision("resnet18"), "layer{}.1.relu:input", "layer{}.1.bn2"),
        (lambda: timm("resnet18"), "layer{}.1.act2:input", "layer{}.1.bn2"),
    ],
    ids=["torchvision", "timm"],
)
def test_preactivations_of_residual_networks(make: Any, preactivations: str, norms: str) -> None:
    stages = find_stages(make(), images(64))
    assert stages.preactivations == tuple(preactivations.format(number) for number in range(1, 5))
    assert stages.norms == tuple(norms.format(number) for number in range(1, 5))


def test_a_norm_that_holds_its_activation_is_found() -> None:
    network = timm("mobilenetv3_small_050")
    network.stage_taps = StageTaps(stages=("bn1",))
    stages = find_stages(network, images(64))
    assert (stages.preactivations, stages.norms) == (("bn1.act:input",), ("bn1",))


def test_one_convolution_before_a_stage_of_several_is_the_stem() -> None:
    stages = find_stages(timm("mobilenetv3_small_050"), images(64))
    assert (stages.stem, stages.paths[0]) == ("bn1", "blocks.0")
    # Each stage has one convolution: none can be told apart.
    assert find_stages(create_model("convnet_tiny", num_classes=7).network, images(8)).stem is None


def test_a_norm_behind_which_a_convolution_runs_is_not_the_one_before_the_map() -> None:
    # A pre-activation block ends in a convolution; its norms saw other maps.
    assert set(find_stages(timm("resnetv2_50"), images(64)).norms) == {None}


def test_a_transformer_of_torchvision_has_one_stage() -> None:
    from torchvision.models import VisionTransformer

    network = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=7
    )
    stages = find_stages(network, images(32))
    assert (stages.paths, stages.shapes) == (("encoder",), ((8, 4, 4),))


def test_stages_of_hugging_face() -> None:
    from transformers import ResNetConfig, ResNetForImageClassification

    sizes = {"embedding_size": 4, "hidden_sizes": [4, 6, 8], "depths": [1, 1, 1], "layer_type": "basic"}
    network = ResNetForImageClassification(ResNetConfig(**sizes, num_labels=7))
    stages = find_stages(network, images(32))
    assert stages.shapes == ((4, 8, 8), (6, 4, 4), (8, 2, 2))
    assert stages.paths == tuple(f"resnet.encoder.stages.{number}" for number in range(3))
    assert stages.stem is not None


# -- a user's own ------------------------------------------------------------------------------------------------------


class Plain(nn.Module):
    """One ReLU and one pool for all layers, as people write it."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3), nn.Conv2d(6, 8, 3)
        self.norm3 = nn.BatchNorm2d(8)
        self.relu, self.pool = nn.ReLU(inplace), nn.MaxPool2d(2)
        self.head = nn.Linear(8, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        return self.head(self.relu(self.norm3(self.conv3(x))).mean((2, 3)))


@pytest.mark.parametrize("inplace", [False, True])
def test_a_shared_layer_is_a_stage_only_at_its_last_run(inplace: bool) -> None:
    network = Plain(inplace)
    stages = find_stages(network, images(24, 1))
    # 24 → pool 12 → 10 → pool 5 → 3; the convolutions that a shared ReLU overwrites in place cannot be tapped.
    chain = {"conv1": (4, 24, 24), "conv2": (6, 10, 10), "pool": (6, 5, 5), "relu": (8, 3, 3)}
    if inplace:
        chain = {key: value for key, value in chain.items() if not key.startswith("conv")}
    assert dict(zip(stages.paths, stages.shapes, strict=True)) == chain
    assert stages.preactivations[-1] == "relu:input"
    assert stages.norms[-1] == "norm3"
    assert tapped_shapes(network, stages, images(24, 1))["features"] == list(chain.values())


class Blocks(nn.Module):
    """Stages in a sequence in a sequence, behind a stem of one layer; two branches of other sizes at the side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.body = nn.Sequential(nn.Sequential(block(4, 4), block(4, 6, 2)), nn.Sequential(block(6, 8, 2), Squeeze(8)))
        self.wider = nn.Upsample(scale_factor=4)
        self.head = nn.Linear(8, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.stem(x))
        return self.head(x.mean((2, 3))) + 0 * self.wider(x).mean()


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True), nn.Identity()
    )


class Squeeze(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool, self.layer = nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.layer(self.pool(x)).sigmoid()


def test_stages_are_whole_blocks_and_nothing_larger_comes_after() -> None:
    stages = find_stages(Blocks(), images(16, 1))
    # The body changes size twice, so it is looked into; its first part has one size within and one at its end.
    assert dict(zip(stages.paths, stages.shapes, strict=True)) == {"body.0": (6, 8, 8), "body.1": (8, 4, 4)}
    assert stages.stem == "stem"
    # Identity passes the ReLU's output on; behind the squeeze there is no such map.
    assert stages.preactivations == ("body.0.1.2:input", "body.1")
    assert stages.norms == ("body.0.1.1", None)


def test_a_network_without_maps_has_no_stages() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 7))
    assert find_stages(network, images(8, 1)) == Stages()


def test_what_a_network_declares_comes_first() -> None:
    network = Blocks()
    network.stage_taps = StageTaps(stages=("body.1.0",), stem="body.0.0")
    stages = find_stages(network, images(16, 1))
    assert (stages.paths, stages.stem) == (("body.1.0",), "body.0.0")
    assert stages.preactivations == ("body.1.0.2:input",)


def test_what_a_network_declares_wrongly_is_an_error_and_never_left_out() -> None:
    network = Blocks()
    network.stage_taps = StageTaps(stages=("body.1.0", "gone"))
    with pytest.raises(TapError, match="Blocks has no module 'gone'"):
        find_stages(network, images(16, 1))
    network.stage_taps = StageTaps(stages=("body.1.0", "head"))
    with pytest.raises(TapError, match="stage_taps: 'head' of Blocks does not run, or answers with no map"):
        find_stages(network, images(16, 1))
    with pytest.raises(SettingError, match="there are 2 stages and 1 preactivations"):
        StageTaps(stages=("body.1.0", "body.1.1"), preactivations=("body.1.0",))


def test_looking_changes_nothing() -> None:
    network = Blocks().train()
    network.body[0].eval()
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    find_stages(network, images(16, 1))
    find_embedding_map(network, "head", images(16, 1))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


# -- the map before the pooling ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "size", "path"),
    [
        (lambda: create_model("resnet8", num_classes=7, in_channels=3).network, 16, "layer3"),
        (lambda: create_model("wrn_16_1", num_classes=7, in_channels=3).network, 16, "relu"),
        (lambda: create_model("vgg8", num_classes=7, in_channels=3).network, 32, "block4"),
        (lambda: create_model("shufflenetv2", num_classes=7, in_channels=3).network, 32, "relu2"),
        (lambda: create_model("mobilenetv2_half", num_classes=7, in_channels=3).network, 32, "conv2"),
        (lambda: torchvision("resnet18"), 64, "layer4"),
        (lambda: torchvision("mobilenet_v2"), 64, "features"),
        (lambda: torchvision("swin_t"), 64, "permute"),
        (lambda: timm("regnetx_002"), 64, "final_conv"),
        (vgg11_bn, 32, None),  # several linear layers
        (lambda: torchvision("densenet121"), 64, None),  # a ReLU that is no module overwrites it
        (lambda: timm("vit_tiny_patch16_224", img_size=64, depth=1), 64, None),  # a class token
        (lambda: torchvision("resnet18"), 32, None),  # one position is no map
    ],
)
def test_the_embedding_map_has_the_embedding_for_its_mean(make: Any, size: int, path: str | None) -> None:
    torch.manual_seed(0)
    network = make()
    classifier = find_classifier(network, images(size))
    assert find_embedding_map(network, classifier, images(size)) == path
    if path is not None:
        tapped = Tapped(network.eval(), classifier=classifier)
        tapped.record("embedding_map", "embedding_map", path)
        signals = tapped(images(size))
        assert signals.embedding_map is not None
        torch.testing.assert_close(signals.embedding_map.mean((2, 3)), signals.embedding, rtol=1e-4, atol=1e-5)
