"""What an encoder of queries and documents says of a batch."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from limbeck.data.search import EvalPairBatches, Reading, Tokenising, training_pairs
from limbeck.data.search.generated import synonyms
from limbeck.data.text import ByteTokenizer
from limbeck.errors import TapError
from limbeck.pair_taps import PairTapped
from limbeck.signals import Batch
from limbeck.tasks.search import SearchTask


class _Bag(nn.Module):
    """The mean of the vectors of a text's tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(300, 4)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        counts = inputs["attention_mask"][..., None].float()
        found: Tensor = (self.table(inputs["input_ids"]) * counts).sum(dim=1) / counts.sum(dim=1)
        return found


def batch() -> Batch:
    data = synonyms(train=6, val=1, test=1, meanings=40)
    reading, other = (Reading(Tokenising(ByteTokenizer(), n), Tokenising(ByteTokenizer(), n)) for n in (40, 5))
    pairs = training_pairs(data, negatives=2)
    (found,) = EvalPairBatches(data, pairs, reading.of(data), batch_size=6, teacher=other.of(data))
    return Batch(inputs=found, labels=found.labels)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_scores_are_those_of_queries_and_documents(similarity: str) -> None:
    network, seen = _Bag(), batch()
    said = PairTapped(network, similarity=similarity, of_teacher=False)(SearchTask(False).inputs(seen))
    pairs = seen.inputs
    queries = network(pairs.student.queries.inputs())
    documents = network(pairs.student.documents.inputs())
    assert said.logits is not None
    assert said.documents is not None
    assert torch.equal(said.embedding, queries)
    assert said.documents.shape == (6, 3, 4)
    assert torch.equal(said.documents.flatten(0, 1), documents)
    for row in range(6):
        for column in range(18):
            one, other = queries[row], documents[column]
            if similarity == "cosine":
                one, other = one / one.norm(), other / other.norm()
            wanted = -torch.inf if pairs.excluded[row, column] else float((one @ other).detach())
            assert float(said.logits[row, column].detach()) == pytest.approx(wanted, abs=1e-5)
    said.logits[~pairs.excluded].sum().backward()
    assert network.table.weight.grad is not None
    assert network.table.weight.grad.isfinite().all()


def test_a_teacher_sees_its_own_tokens_and_no_maps_are_tapped() -> None:
    seen = batch().to("cpu")
    ours, theirs = (SearchTask(of_teacher).inputs(seen) for of_teacher in (False, True))
    assert theirs.documents["input_ids"].shape[1] == 5 < ours.documents["input_ids"].shape[1]
    assert torch.equal(ours.excluded, theirs.excluded)
    with pytest.raises(TapError, match="no feature maps"):
        PairTapped(_Bag(), similarity="dot", of_teacher=False).record("features", "a", "table")
