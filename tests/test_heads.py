"""What takes the place of a student's classifier, and the network around it, as limbeck makes it again from text."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck.errors import LimbeckError
from limbeck.heads import BottleneckClassifier, Projected
from limbeck.models import create_model, projected_name
from limbeck.models.spec import parse_spec

SIZES: dict[str, Any] = {"channels": 6, "teacher_channels": 8, "height": 4, "width": 3, "factor": 2}


def images(size: int = 16, channels: int = 3, n: int = 2) -> Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def head(num_classes: int = 7, **changes: Any) -> BottleneckClassifier:
    torch.manual_seed(0)
    return BottleneckClassifier(num_classes=num_classes, **{**SIZES, **changes})


def test_the_head_is_pooling_three_convolutions_and_a_fixed_classifier() -> None:
    made = head()
    kinds = [type(module).__name__ for module in made.projector]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 3
    convolutions = [module for module in made.projector if isinstance(module, nn.Conv2d)]
    assert [tuple(module.weight.shape) for module in convolutions] == [(4, 6, 1, 1), (4, 4, 3, 3), (8, 4, 1, 1)]
    assert [module.bias for module in convolutions] == [None] * 3
    assert [p.requires_grad for p in made.classifier.parameters()] == [False, False]
    assert all(p.requires_grad for p in made.projector.parameters())


@pytest.mark.parametrize(
    ("size", "expected"), [((8, 6), (4, 3)), ((4, 3), (4, 3)), ((2, 3), (2, 3)), ((2, 2), (2, 2)), ((5, 2), (4, 2))]
)
def test_maps_are_averaged_down_to_the_teachers_size_and_never_up(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    made = head().eval()
    maps = torch.randn(2, 6, *size, generator=torch.Generator().manual_seed(0))
    projected = made.project(maps)
    assert projected.shape == (2, 8, *expected)
    assert bool((projected >= 0).all())
    pooled = nn.functional.adaptive_avg_pool2d(maps, expected)
    torch.testing.assert_close(projected, made.projector(pooled))
    torch.testing.assert_close(made(maps), made.classifier(made.projector(pooled).mean((2, 3))))


@pytest.mark.parametrize(("factor", "narrow"), [(1, 8), (2, 4), (3, 2), (100, 1)])
def test_the_factor_is_by_how_much_it_is_narrower(factor: int, narrow: int) -> None:
    assert head(factor=factor).projector[0].out_channels == narrow


def small() -> nn.Module:
    torch.manual_seed(1)
    return create_model("convnet(widths=[4, 6])", num_classes=7, in_channels=3).network


def projected() -> Projected:
    return Projected(small(), "stages.1", "classifier", head()).eval()


def test_a_projected_network_answers_with_the_heads_logits() -> None:
    made = projected()
    recorded: list[Tensor] = []
    inner: Any = made.network
    inner.stages[1].register_forward_hook(lambda module, inputs, output: recorded.append(output))
    logits = made(images())
    assert logits.shape == (2, 7)
    torch.testing.assert_close(logits, made.head(recorded[0]))
    assert torch.equal(made(images()), logits)


def test_a_copy_uses_its_own_weights() -> None:
    made = projected()
    before = made(images())
    duplicate = copy.deepcopy(made)
    with torch.no_grad():
        for parameter in duplicate.network.parameters():
            parameter.zero_()
    assert torch.equal(made(images()), before)
    assert not torch.equal(duplicate(images()), before)


def test_a_pass_that_fails_leaves_nothing_for_the_next() -> None:
    made = projected()
    expected = made(images())
    inner: Any = made.network
    classifier, inner.classifier = inner.classifier, nn.Linear(1, 1)
    with pytest.raises(RuntimeError):
        made(images(n=5))
    inner.classifier = classifier
    assert torch.equal(made(images()), expected)


def test_it_can_be_exported_and_compiled() -> None:
    made = projected()
    program = torch.export.export(made, (images(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(images(n=5)), made(images(n=5)))
    compiled = torch.compile(made, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images()), made(images()))


class ChannelsLast(nn.Module):
    """A network whose maps have their channels last, as timm's Swin transformers."""

    output_fmt = "NHWC"

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 6), nn.Linear(6, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.permute(0, 2, 3, 1)).mean((1, 2)))


class Tokens(nn.Module):
    """A network of tokens, the first of them not of a place, whose answer is a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Pair()
        self.head = nn.Linear(6, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, 1:].mean(1))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        tokens = self.layer(x.flatten(2).transpose(1, 2))
        return torch.cat([tokens[:, :1] * 0 + 100, tokens], dim=1), "more"


@pytest.mark.parametrize(("network", "layer"), [(ChannelsLast(), "body"), (Tokens(), "body.layer")])
def test_the_head_gets_maps_in_its_own_order(network: nn.Module, layer: str) -> None:
    made = Projected(network, "body", "head", head()).eval()
    x = images(4)
    maps = network.get_submodule(layer)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(made(x), made.head(maps))


# -- as text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["convnet_tiny", "convnet(widths=[4, 6])"])
def test_the_name_makes_the_same_network_again(inner: str) -> None:
    network = create_model(inner, num_classes=7, in_channels=3).network
    width = network.classifier.in_features
    made = Projected(network, "stages.1", "classifier", head(channels=width)).eval()
    name = projected_name(inner, "stages.1", "classifier", made.head)
    assert parse_spec(name).source == "projected"
    assert "num_classes" not in name
    again = create_model(name, num_classes=7, in_channels=3)
    assert again.name == name
    again.network.load_state_dict(made.state_dict())
    assert torch.equal(again.network.eval()(images()), made(images()))


GOOD = (
    "network='convnet_tiny', path='stages.1', classifier='classifier', channels=16, "
    f"{', '.join(f'{k}={v}' for k, v in SIZES.items())}".replace("channels=16, channels=6", "channels=16")
)


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        (f"projected:teacher({GOOD})", {"num_classes": 7}, "has one network, 'student', got 'teacher'"),
        (f"projected:student({GOOD})", {}, "needs to know the number of classes"),
        (f"projected:student({GOOD})@pretrained", {"num_classes": 7}, "has no published weights"),
        ("projected:student(network='convnet_tiny')", {"num_classes": 7}, "path"),
        (f"projected:student({GOOD}, chanels=3)", {"num_classes": 7}, "did you mean 'channels'"),
        (f"projected:student({GOOD}, num_classes=3)", {"num_classes": 7}, "the number of classes of the data"),
        (f"projected:student({GOOD})".replace("convnet_tiny", "convnet_tine"), {"num_classes": 7}, "convnet_tiny"),
    ],
)
def test_mistakes_in_the_text_are_sentences(text: str, options: dict[str, int], sentence: str) -> None:
    with pytest.raises(LimbeckError, match=sentence):
        create_model(text, **options)


def test_a_path_that_is_not_there_is_named() -> None:
    text = f"projected:student({GOOD})".replace("stages.1", "stages.7")
    with pytest.raises(LimbeckError, match=r"has no module 'stages\.7'"):
        create_model(text, num_classes=7)
