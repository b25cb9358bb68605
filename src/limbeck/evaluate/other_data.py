"""The parts of an evaluation that look at other data than those that the networks were trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from limbeck.data import ImageData, ImageSplit, ResidentBatches, Views
from limbeck.data.seeds import stream
from limbeck.data.stratify import choose
from limbeck.evaluate.bench import NOISE, Figures
from limbeck.evaluate.distribution import out_of_distribution
from limbeck.evaluate.image_bench import ImageBench, normalised_for, recoloured, split_of
from limbeck.evaluate.transfer import AUTHORS_BATCH, AuthorsProbe, FrozenProbe, Transfer, authors_probe, frozen_probe
from limbeck.networks import Network
from limbeck.signals import Batch

# The authors pad 4 pixels of 32.
_CROP = 8
_HELD_OUT = 0.1


def out_of_distribution_part(bench: ImageBench) -> Figures:
    """Whether the networks tell other data, or noise, from the data."""
    other = bench.options.other
    inside = bench.gathered()
    if other == NOISE:
        count = len(split_of(bench.data, bench.split))
        outside = bench.collect(bench.batches(_noise(bench.data, count, bench.options.seed)))
        name = f"{count:,} images of uniform noise"
    else:
        assert isinstance(other, ImageData)
        split = _last_split(other)
        outside = bench.collect(bench.foreign_batches(other, split))
        name = f"{other.name}, {len(split):,} images"
    return {
        "distribution": {
            who: out_of_distribution(each.logits, outside[who].logits, other=name) for who, each in inside.items()
        }
    }


def _last_split(data: ImageData) -> ImageSplit:
    return next(split for split in (data.test, data.val, data.train) if split is not None)


def _noise(data: ImageData, count: int, seed: int) -> ImageSplit:
    shape = (count, data.in_channels, *data.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=stream(seed))
    return ImageSplit(images, torch.zeros(count, dtype=torch.int64), torch.arange(count))


def transfer_part(bench: ImageBench) -> Figures:
    """What the networks' embeddings are worth on other data."""
    other = bench.options.transfer
    if other is None:
        bench.say("transfer is left out: it needs other data, as in --transfer stl10.")
        return {}
    ways = bench.options.protocol
    frozen = _frozen(bench, other) if ways in ("frozen", "both") else {}
    tapped = {who: network for who, network in bench.networks.items() if network.tapped.classifier is not None}
    found = {
        who: Transfer(frozen.get(who), _authors(bench, other, network) if ways in ("authors", "both") else None)
        for who, network in tapped.items()
    }
    return {"transfer": found or None, "transfer_data": other.name}


def _frozen(bench: ImageBench, other: ImageData) -> dict[str, FrozenProbe]:
    splits = _probe_splits(other)
    # The logits for other data's classes mean nothing; only the embeddings are looked at.
    gathered = [bench.collect(bench.foreign_batches(other, split)) for split in splits]
    return {
        who: frozen_probe(*(each[who] for each in gathered))
        for who in bench.networks
        if gathered[0][who].embedding is not None
    }


def _probe_splits(data: ImageData) -> tuple[ImageSplit, ImageSplit, ImageSplit]:
    """Train, validation and test of other data; a missing validation split is cut from train, a missing test is validation."""
    test = data.test or data.val
    assert test is not None
    if data.test is not None and data.val is not None:
        return data.train, data.val, test
    chosen = choose(data.train.labels, max(1, round(_HELD_OUT * len(data.train))), 0, keep=1)
    rest = torch.ones(len(data.train), dtype=torch.bool)
    rest[chosen] = False
    return data.train.subset(rest.nonzero().flatten()), data.train.subset(chosen), test


def _authors(bench: ImageBench, other: ImageData, network: Network) -> AuthorsProbe:
    *fitted, test = _probe_splits(other)
    channels = bench.data.in_channels
    views = Views(crop=max(1, min(bench.data.image_size) // _CROP), flip=True)
    together = _joined(fitted)
    size = min(AUTHORS_BATCH, len(together))
    train = ResidentBatches(together, views, size, bench.options.seed, device=bench.device)

    def epoch(number: int) -> Iterable[Batch]:
        return recoloured(train.epoch(number), channels)

    return authors_probe(
        network.tapped,
        normalised_for(other, channels, network.preprocess, bench.device),
        epoch,
        bench.foreign_batches(other, test),
        classes=len(other.classes),
        epochs=bench.options.transfer_epochs,
        seed=bench.options.seed,
    )


def _joined(splits: Sequence[ImageSplit]) -> ImageSplit:
    images = [split.images for split in splits if isinstance(split.images, Tensor)]
    labels, index = (torch.cat([getattr(split, name) for split in splits]) for name in ("labels", "index"))
    return ImageSplit(torch.cat(images), labels, index)
