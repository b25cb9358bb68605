"""A teacher made faster says what it said before, whatever its network is made of."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import limbeck
from limbeck.taps import Tapped, find_classifier
from limbeck.teachers.inference import TOLERANCE, fold_batch_norms, for_inference


def _images(rows: int = 4, channels: int = 3) -> Tensor:
    return torch.randn(rows, channels, 8, 8, generator=torch.Generator().manual_seed(0))


def _trained(network: nn.Module, images: Tensor) -> nn.Module:
    """In eval mode, with statistics, scales and shifts that are not the first ones."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
                module.weight.uniform_(0.5, 2)
                module.bias.uniform_(-1, 1)
        for _ in range(3):
            network.train()(images)
    return network.eval()


def _norms(network: nn.Module) -> list[str]:
    return [path for path, module in network.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def _close(found: Tensor, expected: Tensor) -> bool:
    return float((found - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())


def _layers(*after: nn.Module, bias: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), *after)


class _Reads(nn.Module):
    """A convolution and a norm, put together by a function that may read the convolution's output twice."""

    def __init__(self, forward: Callable[[nn.Module, nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.conv, self.norm, self._forward = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), forward

    def forward(self, images: Tensor) -> object:
        return self._forward(self.conv, self.norm, images)


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "vgg8", "mobilenetv2_half", "shufflenetv1"])
def test_a_zoo_network_says_the_same_with_its_norms_folded(name: str) -> None:
    images = torch.randn(4, 3, 32, 32)
    network = _trained(limbeck.create_model(name, num_classes=10).network, images)
    with torch.no_grad():
        before, state = network(images), copy.deepcopy(network.state_dict())
        lines: list[str] = []
        folded = fold_batch_norms(network, images, say=lines.append)
        assert _close(folded(images), before)
    assert len(_norms(folded)) < len(_norms(network))
    assert len(lines) == 1
    assert "folded" in lines[0]
    assert [path for path, _ in folded.named_modules()] == [path for path, _ in network.named_modules()]
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    "network",
    [
        _layers(nn.BatchNorm2d(4)),
        _layers(nn.BatchNorm2d(4), nn.ReLU(inplace=True), bias=False),
        _layers(nn.BatchNorm2d(4, affine=False)),
        nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.BatchNorm1d(5)),
        nn.Sequential(nn.Flatten(), nn.Linear(192, 5, bias=False), nn.BatchNorm1d(5, affine=False)),
        _Reads(lambda conv, norm, images: norm(conv(images)) + images),
        _Reads(lambda conv, norm, images: norm(conv(images) if images.sum() < 1e9 else images)),  # fx cannot trace it
    ],
)
def test_a_norm_that_alone_reads_a_layer_is_folded(network: nn.Module) -> None:
    images = _images()
    network = _trained(network, images)
    folded = fold_batch_norms(network, images)
    assert not _norms(folded)
    with torch.no_grad():
        assert _close(folded(_images(2)), network(_images(2)))


@pytest.mark.parametrize(
    "network",
    [
        _layers(nn.ReLU(), nn.BatchNorm2d(4)),
        _layers(nn.ReLU(inplace=True), nn.BatchNorm2d(4)),
        _layers(nn.BatchNorm2d(4, track_running_stats=False)),
        nn.Sequential(nn.BatchNorm2d(3)),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Flatten(2), nn.Linear(64, 3), nn.BatchNorm1d(3)),  # the norm's channels are not the layer's
        _Reads(lambda conv, norm, images: norm(conv(conv(images)))),
        _Reads(lambda conv, norm, images: norm(norm(conv(images)))),
        _Reads(lambda conv, norm, images: norm(conv(images)) + norm(images)),
        _Reads(lambda conv, norm, images: (lambda made: norm(made) + made)(conv(images))),
        _Reads(lambda conv, norm, images: (lambda made: (norm(made), made))(conv(images))),
        _Reads(lambda conv, norm, images: (lambda made: norm(made) + made.detach().numpy().max())(conv(images))),
    ],
)
def test_other_norms_are_left_alone(network: nn.Module) -> None:
    images = _images()
    network = _trained(network, images)
    lines: list[str] = []
    assert fold_batch_norms(network, images, say=lines.append) is network
    assert lines
    assert lines[0].startswith("batch norms are not folded")


def test_a_norm_that_its_network_looks_into_is_left_alone_and_the_reason_is_said() -> None:
    network = _trained(_Reads(lambda conv, norm, images: norm(conv(images)) * norm.weight.sum()), _images())
    lines: list[str] = []
    assert fold_batch_norms(network, _images(), say=lines.append) is network
    assert "AttributeError" in lines[0]


def test_a_norm_in_training_mode_by_its_owner_is_left_alone() -> None:
    class Always(nn.BatchNorm2d):
        def train(self, mode: bool = True) -> Always:
            return super().train(True)

    network = _trained(_layers(Always(4)), _images())
    assert fold_batch_norms(network, _images()) is network


def test_a_network_that_cannot_be_copied_is_returned() -> None:
    network = _layers(nn.BatchNorm2d(4)).eval()
    network.lock = (number for number in range(3))
    assert fold_batch_norms(network, _images()) is network


def test_taps_record_the_same_and_what_is_tapped_is_not_folded() -> None:
    network = _trained(
        nn.Sequential(
            _layers(nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, 5),
        ),
        _images(),
    )
    tapped = Tapped(network, features={"before": "0.2:input", "made": "1.0", "after": "1.1"}, classifier="4").eval()
    folded = fold_batch_norms(tapped, _images())
    assert _norms(folded) == ["network.1.1"]
    with torch.no_grad():
        expected, found = tapped(_images()).tensors(), folded(_images()).tensors()
    assert found.keys() == expected.keys()
    assert all(_close(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("path", ["1.0", "1.1:input", "1.1"])
def test_each_kind_of_tap_decides_alone(path: str) -> None:
    network = _trained(nn.Sequential(nn.ReLU(), _layers(nn.BatchNorm2d(4)), nn.Flatten(), nn.Linear(144, 5)), _images())
    tapped = Tapped(network, features={"map": path}).eval()
    folded = fold_batch_norms(tapped, _images())
    assert (folded is tapped) == (path != "1.1")
    with torch.no_grad():
        assert _close(folded(_images()).features["map"], tapped(_images()).features["map"])


def test_a_tap_on_a_container_that_gives_the_layers_output_keeps_the_norm() -> None:
    network = _trained(
        nn.Sequential(_layers(), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)), _images()
    )
    tapped = Tapped(network, features=["0"]).eval()
    assert fold_batch_norms(tapped, _images()) is tapped


def test_half_precision_weights_are_left_alone() -> None:
    network = _trained(_layers(nn.BatchNorm2d(4)), _images()).to(torch.bfloat16)
    lines: list[str] = []
    assert fold_batch_norms(network, _images().to(torch.bfloat16), say=lines.append) is network
    assert "differs by" in lines[0]


def test_uncompiled_inference_takes_any_batch_and_leaves_the_tapped_network_alone() -> None:
    images = torch.randn(4, 3, 32, 32)
    network = _trained(limbeck.create_model("resnet8", num_classes=10).network, images)
    tapped = Tapped(network, classifier=find_classifier(network, images)).eval()
    fast = for_inference(tapped, images)
    assert _norms(tapped)
    assert not _norms(fast)
    with torch.no_grad():
        assert _close(fast(images[:3]).embedding, tapped(images[:3]).embedding)


@pytest.mark.slow
def test_compiled_inference_says_the_same_and_two_teachers_do_not_share_weights() -> None:
    pairs = []
    for _ in range(2):
        network = _trained(_layers(nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)), _images())
        tapped = Tapped(network, features=["1"], classifier="4").eval()
        lines: list[str] = []
        pairs.append((tapped, for_inference(tapped, _images(), compile=True, say=lines.append).requires_grad_(False)))
        assert "is compiled" in lines[-1]
    with torch.no_grad():
        for tapped, fast in pairs:
            for rows in (4, 3):  # the second shape runs uncompiled
                expected, found = tapped(_images(rows)).tensors(), fast(_images(rows)).tensors()
                assert all(_close(found[name], expected[name]) for name in expected)


def test_a_compiler_that_fails_leaves_the_plain_module_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **keywords: object) -> object:
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(torch, "compile", broken)
    tapped = Tapped(_trained(_layers(nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5)), _images())).eval()
    lines: list[str] = []
    fast = for_inference(tapped, _images(), compile=True, say=lines.append)
    assert lines[-1] == "the teacher is not compiled: RuntimeError: no C++ compiler"
    assert isinstance(fast, Tapped)
