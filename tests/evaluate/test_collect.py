"""One pass keeps what networks say, float32 on the CPU, and no more than it may."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from limbeck.errors import DataError
from limbeck.evaluate.collect import collect
from limbeck.signals import Batch, Signals


def batches(count: int, size: int) -> Iterator[Batch]:
    images = torch.arange(count * 4, dtype=torch.uint8).reshape(count, 1, 2, 2)
    for rows in torch.arange(count).split(size):
        yield Batch(images[rows], rows % 3)


def read(batch: Batch) -> Signals:
    maps = batch.inputs.double()
    return Signals(logits=maps.flatten(1)[:, :3], embedding=maps.flatten(1), features={"stage": maps})


@pytest.mark.parametrize("size", [1, 4, 10])
def test_everything_in_order_whatever_the_batches(size: int) -> None:
    walked = batches(10, size)
    found = collect({"one": read, "other": lambda batch: Signals(logits=batch.inputs.flatten(1).half())}, walked)
    images = torch.arange(40.0).reshape(10, 4)
    assert torch.equal(found["one"].logits, images[:, :3])
    assert torch.equal(found["one"].signals.features["stage"], images.mean(dim=1)[:, None, None, None])
    assert torch.equal(found["one"].labels, torch.arange(10) % 3)
    assert found["other"].embedding is None
    assert {value.dtype for each in found.values() for value in each.signals.tensors().values()} == {torch.float32}
    assert list(walked) == []  # one pass, of both


def test_more_than_may_be_kept_is_refused_before_the_end() -> None:
    walked = batches(10, 1)
    with pytest.raises(DataError, match="test-limit"):
        collect({"one": read}, walked, most_bytes=4 * (3 + 4 + 1) * 2)
    assert len(list(walked)) == 7


def test_no_images_is_said() -> None:
    with pytest.raises(DataError, match="no images"):
        collect({"one": read}, [])
