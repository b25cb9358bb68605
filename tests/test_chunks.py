"""Texts that go through an encoder in chunks: the gradient of the whole batch, with the random numbers of the first pass."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from limbeck.pair_taps import PairTapped, SeenPairs


class _Deep(nn.Module):
    """Two layers with dropout over the mean of a text's vectors; counts the texts that it sees at a time."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(50, 6)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 5))
        self.seen: list[int] = []

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        self.seen.append(len(inputs["input_ids"]))
        found: Tensor = self.layers(self.table(inputs["input_ids"]).mean(dim=1))
        return found


def seen(queries: int = 6, each: int = 2) -> SeenPairs:
    generator = torch.Generator().manual_seed(1)

    def tokens(count: int) -> dict[str, Tensor]:
        ids = torch.randint(0, 50, (count, 4), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    count = queries * each
    excluded = torch.zeros(queries, count, dtype=torch.bool)
    places = torch.arange(count).reshape(queries, each)
    return SeenPairs(tokens(queries), tokens(count), excluded, torch.arange(queries), places, places[:, 0])


def loss(network: _Deep, tapped: PairTapped) -> tuple[float, dict[str, Tensor]]:
    network.zero_grad()
    torch.manual_seed(3)
    said = tapped(seen())
    assert said.logits is not None
    value = nn.functional.cross_entropy(said.logits, torch.arange(6) * 2) + said.documents.norm()
    value.backward()
    return float(value.detach()), {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_gradients_are_those_of_the_whole_batch(chunk: int) -> None:
    network = _Deep(0.0).double()
    whole = loss(network, PairTapped(network, similarity="dot", of_teacher=False))
    network.seen.clear()
    parts = loss(network, PairTapped(network, similarity="dot", of_teacher=False, chunk=chunk))
    assert max(network.seen) <= chunk
    assert sum(network.seen) == 2 * 18  # once without a graph, once with it
    assert parts[0] == pytest.approx(whole[0], abs=1e-6)
    for name, value in whole[1].items():
        assert torch.allclose(parts[1][name], value, atol=1e-6), name


def test_dropout_is_the_same_both_times() -> None:
    network = _Deep(0.5).double()
    chunked = PairTapped(network, similarity="dot", of_teacher=False, chunk=4)
    found = loss(network, chunked)

    class _Plain(PairTapped):
        def _encoded(self, inputs: dict[str, Tensor]) -> Tensor:
            rows = len(inputs["input_ids"])
            parts = [slice(start, start + 4) for start in range(0, rows, 4)]
            return torch.cat([self.network({name: value[part] for name, value in inputs.items()}) for part in parts])

    by_hand = loss(network, _Plain(network, similarity="dot", of_teacher=False))
    assert found[0] == by_hand[0]
    for name, value in by_hand[1].items():
        assert torch.allclose(found[1][name], value, atol=1e-12), name


def test_without_a_gradient_nothing_is_seen_twice() -> None:
    network = _Deep(0.0)
    with torch.no_grad():
        PairTapped(network, similarity="cosine", of_teacher=False, chunk=4)(seen())
    assert network.seen == [4, 2, 4, 4, 4]
