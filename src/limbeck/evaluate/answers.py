"""What a network says about images, also where a teacher is several networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from limbeck.errors import LimbeckError
from limbeck.networks import Network
from limbeck.signals import Batch, Signals
from limbeck.stages import find_stages
from limbeck.taps import Tapped, find_classifier


def answer(network: Network, images: Tensor) -> Signals:
    """What a network says about images (B, C, H, W) as the data has them.

    Of several networks these are the principal one's signals with the logits that the rule makes of all.
    """
    told: Signals = network.tapped(network.preprocess(images))
    if network.rule is None or told.logits is None:
        return told
    logits = [_logits(other, images) for other in network.beside]
    place = network.rule.principal % (len(logits) + 1)
    logits.insert(place, told.logits.float())
    return replace(told, logits=network.rule.answer(logits))


def _logits(network: Network, images: Tensor) -> Tensor:
    found: Tensor | None = network.tapped(network.preprocess(images)).logits
    assert found is not None
    return found.float()


def as_module(network: Network, image: Tensor) -> tuple[nn.Module, Tensor]:
    """A network as a module with its input, of one image (1, C, H, W) of the data; several as one module."""
    if not network.beside:
        return network.tapped.network, network.preprocess(image)
    inputs = [each.preprocess(image) for each in network.all]
    return _Several([each.tapped.network for each in network.all], inputs), inputs[0]


class _Several(nn.Module):
    """Networks that run one after the other, each on its own input of as many images as the first is given."""

    def __init__(self, networks: Sequence[nn.Module], inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.networks, self.inputs = nn.ModuleList(networks), list(inputs)

    def forward(self, images: Tensor) -> None:
        count = len(images)
        for network, image in zip(self.networks, self.inputs, strict=True):
            network(image.expand(count, *image.shape[1:]))


def tapped(network: Network, batch: Batch, *, stages: bool, classifier: str | None = None) -> tuple[Network, list[str]]:
    """The network with its embedding and, if asked for, its stages recorded, and remarks on what cannot be found.

    classifier: the layer whose input is the embedding; found where it is None, or not there as after SimKD, which replaces it.
    """
    module, remarks = network.tapped.network, []
    inputs = network.preprocess(batch.inputs[:2])
    if classifier not in dict(module.named_modules()):
        try:
            classifier = find_classifier(module, inputs)
        except LimbeckError as error:
            classifier = None
            remarks.append(f"no embedding: {error}")
    paths: tuple[str, ...] = ()
    if stages:
        try:
            paths = find_stages(module, inputs).paths
        except LimbeckError as error:
            remarks.append(f"no stages: {error}")
    network.tapped.close()
    made = Tapped(module, features=paths, classifier=classifier)
    return replace(network, tapped=made.eval()), remarks
