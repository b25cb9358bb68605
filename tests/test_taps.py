"""Signals read off networks that know nothing of limbeck."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck.errors import TapError
from limbeck.taps import Tapped, as_map, evaluating, find_classifier, logits_of, module_at, pooled


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.body = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.stem(images)).mean((2, 3)))


def images(*, size: int = 8, n: int = 2) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def test_signals_hold_logits_embedding_and_named_features() -> None:
    network = net()
    signals = Tapped(network, features={"early": "stem", "late": "body"}, classifier="head")(images())
    assert torch.equal(signals.logits, network(images()))
    assert torch.equal(network.head(signals.embedding), signals.logits)
    assert torch.equal(signals.features["early"], network.stem(images()))
    assert signals.features["late"].shape == (2, 4, 6, 6)


def test_features_given_as_a_list_go_by_their_path() -> None:
    assert set(Tapped(net(), features=["stem", "body.1"])(images()).features) == {"stem", "body.1"}


def test_nothing_is_tapped_unasked() -> None:
    assert Tapped(net())(images()).available() == {"logits"}


def test_a_wrong_path_is_an_error_with_the_near_one_and_the_neighbours() -> None:
    with pytest.raises(
        TapError, match=r"Net has no module 'body\.2'; did you mean 'body\.\d'\? Under 'body' are: 0, 1\."
    ):
        Tapped(net(), features=["body.2"])
    with pytest.raises(
        TapError, match=r"did you mean 'head'\? Under '\(the network\)' are: stem, body, unused, head\."
    ):
        Tapped(net(), classifier="haed")


@pytest.mark.parametrize("path", ["weight", "head.weight"])
def test_a_path_names_a_module_inside(path: str) -> None:
    with pytest.raises(TapError, match="has no module"):
        module_at(net(), path)


@pytest.mark.parametrize("taps", [{"features": ["unused"]}, {"classifier": "unused"}])
def test_a_tap_that_does_not_fire_is_an_error_in_that_pass(taps: dict[str, Any]) -> None:
    with pytest.raises(TapError, match="the module 'unused' did not run"):
        Tapped(net(), **taps)(images())


def test_a_tap_that_stops_firing_does_not_hand_out_the_last_pass() -> None:
    network = net()
    tapped = Tapped(network, features=["body.1"])
    tapped(images())
    network.body = nn.Sequential(nn.Identity())
    with pytest.raises(TapError, match=r"'body\.1' did not run"):
        tapped(images())


def test_what_a_failed_pass_recorded_is_not_handed_out_by_the_next() -> None:
    network = net()
    tapped = Tapped(network, features=["body.1"])
    head, network.head = network.head, nn.Linear(3, 5)
    with pytest.raises(RuntimeError):
        tapped(images())
    network.head, network.body = head, nn.Sequential(nn.Identity())
    with pytest.raises(TapError, match=r"'body\.1' did not run"):
        tapped(images())


def test_a_module_without_a_tensor_is_an_error() -> None:
    class Silent(Net):
        def __init__(self) -> None:
            super().__init__()
            self.body = _Nothing()

        def forward(self, images: Tensor) -> Tensor:
            self.body(images)
            return self.head(self.stem(images).mean((2, 3)))

    with pytest.raises(TapError, match="handles no tensor"):
        Tapped(Silent(), features=["body"])(images())


class _Nothing(nn.Module):
    def forward(self, images: Tensor) -> None:
        return None


def test_a_module_that_runs_twice_is_recorded_at_its_last_run() -> None:
    class Twice(Net):
        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.body(self.body(self.stem(images))).mean((2, 3)))

    network = Twice().eval()
    signals = Tapped(network, features=["body"])(images())
    assert torch.equal(signals.features["body"], network.body(network.body(network.stem(images()))))


def test_a_deep_copy_records_into_its_own_copy() -> None:
    original = Tapped(net(), features=["stem"], classifier="head")
    original(images())
    duplicate = copy.deepcopy(original)
    with torch.no_grad():
        duplicate.network.stem.weight.zero_()
        duplicate.network.stem.bias.zero_()
    assert duplicate(images()).features["stem"].abs().max() == 0
    assert original(images()).features["stem"].abs().max() > 0


def test_closing_leaves_the_network_as_it_was_given() -> None:
    network = net()
    tapped = Tapped(network, features=["stem"], classifier="head")
    duplicate = copy.deepcopy(tapped)
    network(images())  # records tensors with a gradient, which cannot be copied
    tapped.close()
    assert not network.stem._forward_hooks
    assert not network.head._forward_pre_hooks
    network(images())
    copy.deepcopy(tapped)
    copy.deepcopy(network)
    assert set(duplicate(images()).features) == {"stem"}
    duplicate.close()
    assert not duplicate.network.stem._forward_hooks


def test_tapping_adds_nothing_to_the_weights() -> None:
    network = net()
    assert (
        Tapped(network, features=["stem"], classifier="head").network.state_dict().keys() == net().state_dict().keys()
    )


def test_compiles_in_one_graph_with_the_gradients_of_the_plain_pass() -> None:
    tapped = Tapped(net(), features={"stem": "stem"}, classifier="head")

    def loss(module: Callable[[Tensor], Any]) -> list[Tensor]:
        tapped.zero_grad()
        signals = module(images())
        (signals.logits.square().sum() + signals.embedding.sum() + signals.features["stem"].square().sum()).backward()
        return [parameter.grad.clone() for parameter in tapped.parameters() if parameter.grad is not None]

    plain = loss(tapped)
    torch.compiler.reset()
    compiled = loss(torch.compile(tapped, fullgraph=True, backend="aot_eager"))
    assert len(plain) == 6
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "output",
    [
        torch.ones(2, 3),
        SimpleNamespace(logits=torch.ones(2, 3)),
        {"logits": torch.ones(2, 3)},
        (torch.ones(2, 3), "more"),
        [torch.ones(2, 3)],
    ],
    ids=lambda output: type(output).__name__,
)
def test_logits_are_found_in_the_usual_outputs(output: object) -> None:
    assert torch.equal(logits_of(output), torch.ones(2, 3))


@pytest.mark.parametrize("output", [None, {}, (), "text", {"scores": torch.ones(1)}, SimpleNamespace(logits=3)])
def test_other_outputs_are_an_error_that_names_the_type(output: object) -> None:
    with pytest.raises(TapError, match=f"the network returned {type(output).__name__}; expected a tensor of logits"):
        logits_of(output)


def test_pooled_is_the_spatial_mean_of_maps_and_vectors_as_they_are() -> None:
    maps = images()
    assert torch.equal(pooled(maps), maps.flatten(2).mean(2))
    vectors = torch.ones(2, 3)
    assert pooled(vectors) is vectors
    with pytest.raises(TapError, match=r"shape \(2, 3, 4\)"):
        pooled(torch.ones(2, 3, 4))


def test_evaluating_restores_the_mode_of_each_module_even_after_an_error() -> None:
    network = net().train()
    network.body.eval()
    modes = [module.training for module in network.modules()]
    seen = []

    def fail() -> None:
        with evaluating(network):
            seen.extend(module.training for module in network.modules())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [False] * len(modes)
    assert [module.training for module in network.modules()] == modes


def _torchvision(name: str, **options: Any) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name, weights=None, num_classes=7, **options)


def _tiny_torchvision_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=7
    )


def _timm(name: str, **options: Any) -> nn.Module:
    import timm

    return timm.create_model(name, num_classes=7, **options)


def _tiny_hf_vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=16, num_labels=7))


def _tiny_hf_resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    sizes = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(**sizes, num_labels=7))


class ConvHead(nn.Module):
    """A 1×1 convolution as classifier, flattened afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.head = nn.Conv2d(4, 7, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stem(images).mean((2, 3), keepdim=True)).flatten(1)


class LogHead(nn.Module):
    """The output is not the memory of any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3 * 32 * 32, 6)
        self.head = nn.Linear(6, 7)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images.flatten(1)).relu()) * 1.0


FOUND = {
    "torchvision:resnet18": (lambda: _torchvision("resnet18"), 32, "fc"),
    "torchvision:vgg11": (lambda: _torchvision("vgg11"), 32, "classifier.6"),
    "torchvision:mobilenet_v3_small": (lambda: _torchvision("mobilenet_v3_small"), 32, "classifier.3"),
    "torchvision:vit": (_tiny_torchvision_vit, 32, "heads.head"),
    "timm:resnet18": (lambda: _timm("resnet18"), 32, "fc"),
    "timm:vit_tiny": (lambda: _timm("vit_tiny_patch16_224", img_size=32, depth=2), 32, "head"),
    "timm:convnext_atto": (lambda: _timm("convnext_atto"), 32, "head.fc"),
    "timm:efficientnet_lite0": (lambda: _timm("efficientnet_lite0"), 32, "classifier"),
    "timm:mobilenetv3_small_050": (lambda: _timm("mobilenetv3_small_050"), 32, "classifier"),
    "hf:vit": (_tiny_hf_vit, 32, "classifier"),
    "hf:resnet": (_tiny_hf_resnet, 32, "classifier.1"),
    "1×1 convolution": (ConvHead, 32, "head"),
    "scaled output": (LogHead, 32, "head"),
}


@pytest.mark.parametrize("name", FOUND)
def test_the_classifier_is_found_and_makes_the_logits_from_the_embedding(name: str) -> None:
    make, size, path = FOUND[name]
    torch.manual_seed(0)
    network = make().train()
    next(iter(network.children())).eval()
    modes = [module.training for module in network.modules()]
    hooks = [len(module._forward_hooks) for module in network.modules()]
    x = images(size=size)
    assert find_classifier(network, x) == path
    assert [module.training for module in network.modules()] == modes
    assert [len(module._forward_hooks) for module in network.modules()] == hooks

    signals = Tapped(network.eval(), classifier=path)(x)
    assert signals.logits.shape == (2, 7)
    assert signals.embedding.ndim == 2
    classifier = module_at(network, path)
    embedding = signals.embedding[..., None, None] if isinstance(classifier, nn.Conv2d) else signals.embedding
    torch.testing.assert_close(classifier(embedding).flatten(1), signals.logits)


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 7), nn.Linear(6, 7)

    def forward(self, x: Tensor) -> Tensor:
        return (self.first(x) + self.second(x)) / 2


class MeanOfTokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x[:, None].expand(-1, 3, -1)).mean(1)


class NoLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)[:, :7] * 2


@pytest.mark.parametrize(
    ("make", "x", "candidates"),
    [
        (TwoHeads, torch.randn(2, 6), "candidates are first, second"),
        (MeanOfTokens, torch.randn(2, 6), "candidates are head"),
        (NoLayer, torch.randn(2, 6), "no layer has 7 outputs"),
        # Its last convolution is followed by ReLU and an average, so no layer's input gives the logits by one layer.
        (lambda: _torchvision("squeezenet1_1"), images(size=64), r"candidates are classifier\.1"),
    ],
    ids=["two heads", "mean of tokens", "no layer", "torchvision:squeezenet1_1"],
)
def test_a_classifier_that_cannot_be_told_is_an_error_that_names_candidates(
    make: Callable[[], nn.Module], x: Tensor, candidates: str
) -> None:
    with pytest.raises(TapError, match=rf"cannot tell which layer of \w+ is the classifier: {candidates}\. Name it"):
        find_classifier(make(), x)


def test_the_named_candidate_of_squeezenet_gives_an_embedding() -> None:
    signals = Tapped(_torchvision("squeezenet1_1"), classifier="classifier.1")(images(size=64))
    assert signals.embedding.shape == (2, 512)


# -- the groups of maps ------------------------------------------------------------------------------------------------


def test_each_group_has_its_field() -> None:
    network = net().eval()
    tapped = Tapped(network)
    tapped.record("features", "late", "body")
    tapped.record("preactivations", "late", "body.1:input")
    tapped.record("stem", "stem", "stem")
    tapped.record("embedding_map", "embedding_map", "body.1")
    signals = tapped(images())
    stem = network.stem(images())
    assert torch.equal(signals.stem, stem)
    assert torch.equal(signals.preactivations["late"], network.body[0](stem))
    assert torch.equal(signals.features["late"], network.body(stem))
    assert torch.equal(signals.embedding_map, signals.features["late"])
    assert tapped.paths["preactivations"] == {"late": "body.1:input"}


def test_the_input_of_a_module_can_be_tapped_by_name() -> None:
    signals = Tapped(net().eval(), features=["body.1:input", "body"])(images())
    assert torch.equal(signals.features["body.1:input"].relu(), signals.features["body"])
    with pytest.raises(TapError, match=r"no module 'bodi'; did you mean 'body'\?"):
        Tapped(net(), features=["bodi:input"])
    with pytest.raises(TapError, match="the module 'unused:input' did not run"):
        Tapped(net(), features=["unused:input"])(images())


def in_place() -> Net:
    network = net()
    network.body[1].inplace = True
    return network


def test_an_in_place_layer_whose_input_is_tapped_works_out_of_place_until_the_taps_are_closed() -> None:
    network = in_place()
    expected = network.eval()(images())
    tapped = Tapped(network)
    tapped.record("preactivations", "body", "body.1:input")
    signals = tapped(images())
    assert not network.body[1].inplace
    assert bool((signals.preactivations["body"] < 0).any())
    assert torch.equal(signals.logits, expected)
    tapped.close()
    assert network.body[1].inplace


def test_what_was_out_of_place_stays_so() -> None:
    network = net()
    tapped = Tapped(network, features=["body.1:input"])
    tapped.close()
    assert not network.body[1].inplace


@pytest.mark.parametrize("training", [True, False])
def test_a_tap_that_a_later_layer_overwrites_in_place_is_an_error(training: bool) -> None:
    tapped = Tapped(in_place().train(training), features=["body.0"])
    with pytest.raises(
        TapError, match=r"tapped at 'body\.0' was overwritten in place by a later layer; tap that layer's"
    ):
        tapped(images())
    with torch.no_grad(), pytest.raises(TapError, match="overwritten in place"):
        tapped(images())


def test_the_in_place_layer_itself_can_be_tapped() -> None:
    signals = Tapped(in_place(), features=["body.1", "body"])(images())
    assert bool((signals.features["body"] >= 0).all())
    assert torch.equal(signals.features["body"], signals.features["body.1"])


def test_tensors_of_inference_mode_are_recorded() -> None:
    # They count no versions.
    with torch.inference_mode():
        signals = Tapped(net().eval(), features=["stem"])(images())
    assert signals.features["stem"].shape == (2, 4, 6, 6)


def test_tokens_become_maps_without_those_of_no_place() -> None:
    tokens = torch.arange(2 * 6 * 3.0).view(2, 6, 3)  # two tokens of no place before 2×2 of 3 channels
    maps = as_map(tokens, nn.Identity())
    assert maps is not None
    assert maps.shape == (2, 3, 2, 2)
    for sample in range(2):
        for row in range(2):
            for column in range(2):
                assert torch.equal(maps[sample, :, row, column], tokens[sample, 2 + 2 * row + column])
    whole = as_map(tokens[:, :4], nn.Identity())
    assert whole is not None
    assert torch.equal(whole[0, :, 1, 0], tokens[0, 2])


def test_maps_with_their_channels_last_are_turned() -> None:
    class Last(nn.Module):
        output_fmt = "NHWC"

    value = torch.randn(2, 4, 5, 3)
    turned = as_map(value, Last())
    assert turned is not None
    assert turned.shape == (2, 3, 4, 5)
    assert torch.equal(turned[:, 1], value[..., 1])
    assert as_map(value, nn.Identity()) is value


def test_other_shapes_are_no_maps() -> None:
    assert as_map(torch.ones(2, 3), nn.Identity()) is None
    assert as_map(torch.ones(2, 1, 3), nn.Identity()) is None
    signals = Tapped(net(), features=["head"])(images())
    assert signals.features["head"].shape == (2, 5)


def test_groups_compile_in_one_graph() -> None:
    tapped = Tapped(in_place().eval())
    tapped.record("preactivations", "body", "body.1:input")
    tapped.record("stem", "stem", "stem")
    plain = tapped(images())
    torch.compiler.reset()
    compiled = torch.compile(tapped, fullgraph=True, backend="eager")(images())
    torch.testing.assert_close(compiled.preactivations["body"], plain.preactivations["body"])
    torch.testing.assert_close(compiled.stem, plain.stem)
