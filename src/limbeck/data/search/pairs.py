"""Training pairs: for each example a query, the document that answers it, and a pool of documents that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.data.search.collection import Example, SearchData
from limbeck.data.seeds import stream
from limbeck.errors import DataError, check_whole

_DRAWS = 64


@dataclass(frozen=True)
class Pairs:
    """E examples, by places in the collection.

    queries: (E,) int64. positives: (E,) int64. pool: (E, K) int64 negatives, of which each epoch takes some. scores:
    (E, 1 + K) float32, a teacher's, of the positive and of each negative; None where there are none. random: how many
    negatives of the pool are random documents, for want of others.
    """

    queries: Tensor
    positives: Tensor
    pool: Tensor
    scores: Tensor | None = None
    random: int = 0

    def __len__(self) -> int:
        return len(self.queries)


def training_pairs(
    data: SearchData, examples: Sequence[Example] | None = None, *, negatives: int = 0, seed: int = 0
) -> Pairs:
    """The pairs of examples, by default of the collection's part ``train``.

    negatives: K, how many each example brings into its pool: its own, in their order, and where these are too few random
    documents that are not known to answer its query, the same for the same seed. A random document has no score, so that
    scores are kept only where every example has negatives enough.

    Raises:
        SettingError: ``negatives`` is no whole number, or there is no part ``train``.
        DataError: some examples have scores and others have none, or the collection has too few documents for a query.
    """
    check_whole("negatives", negatives, low=0)
    examples = data.training() if examples is None else examples
    if not examples:
        raise DataError(f"{data.name} has no training examples.")
    scored = sum(bool(example.scores) for example in examples)
    if scored not in (0, len(examples)):
        raise DataError(
            f"{data.name}: {scored} of {len(examples)} examples have scores; either all must have them or none."
        )
    missing = 0
    pool = []
    for number, example in enumerate(examples):
        own = list(example.negatives[:negatives])
        missing += negatives - len(own)
        pool.append(own + _random(data, example, own, negatives - len(own), stream(seed, number)))
    scores = [example.scores[: 1 + negatives] for example in examples]
    return Pairs(
        queries=torch.tensor([example.query for example in examples]),
        positives=torch.tensor([example.positive for example in examples]),
        pool=torch.tensor(pool, dtype=torch.int64).reshape(len(examples), negatives),
        scores=torch.tensor(scores) if scored and not missing else None,
        random=missing,
    )


def _random(data: SearchData, example: Example, own: list[int], count: int, generator: torch.Generator) -> list[int]:
    """Documents that do not answer the example's query as far as is known, and are not its own."""
    originals = data.documents.originals
    taken = {int(originals[place]) for place in [example.positive, *own]}
    found: list[int] = []
    query = torch.tensor(example.query)
    for _ in range(_DRAWS):
        if len(found) == count:
            break
        drawn = torch.randint(len(data.documents), (2 * count,), generator=generator)
        for place in drawn[~data.is_relevant(query, drawn)].tolist():
            copy = int(originals[place])
            if copy not in taken and len(found) < count:
                taken.add(copy)
                found.append(place)
    if len(found) < count:
        raise DataError(
            f"{data.name}: query '{data.queries.ids[example.query]}' needs {count} random negatives, and the collection has "
            f"too few documents that do not answer it; give fewer negatives."
        )
    return found
