"""Encoders on a collection that is searched."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from limbeck.data.search import PairTexts, SearchCorpus
from limbeck.errors import LimbeckError, SettingError
from limbeck.evaluate.bench import SPLITS, TEACHER, Bench, Figures
from limbeck.evaluate.cost import costs
from limbeck.evaluate.record import Scored
from limbeck.evaluate.search.figures import IndexCost, IndexCosts, IndexRatios, SearchFigures
from limbeck.machine import device_name
from limbeck.modalities.search_networks import reading_of
from limbeck.models.encoders import Encoder
from limbeck.pair_taps import PairTapped
from limbeck.searching import FIGURES, Searched, searched


@dataclass(frozen=True)
class SearchBench(Bench):
    """Encoders that search all documents of ``corpus``. max_length: tokens of the longest text."""

    kind = "search"
    corpus: SearchCorpus = field(kw_only=True)
    max_length: int = field(kw_only=True)
    _searched: dict[str, Searched] = field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        return self.corpus.name

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    @property
    def part(self) -> str:
        """The part of the queries, as the collection calls it."""
        return SPLITS[self.split]

    def encoder(self, who: str) -> Encoder:
        """A network by its name."""
        network = self.networks[who].tapped.network
        assert isinstance(network, Encoder)
        return network

    def texts(self, who: str) -> PairTexts:
        """Queries and documents in a network's tokens."""
        return self.corpus.texts[reading_of(self.encoder(who), self.max_length).key]

    def searched(self) -> dict[str, Searched]:
        """What each network found for the queries of the split, and its embeddings; searched once."""
        for who in self.networks:
            if who not in self._searched:
                encoder, tapped = self.encoder(who), self.networks[who].tapped
                assert isinstance(tapped, PairTapped)
                try:
                    self._searched[who] = searched(
                        encoder,
                        self.corpus.data,
                        self.texts(who),
                        similarity=encoder.similarity,
                        batch_size=self.batch_size,
                        device=self.device,
                        part=self.part,
                        keep=True,
                        documents=tapped.documents_of,
                    )
                except LimbeckError as error:
                    raise type(error)(f"{who}: {error}") from None
        return self._searched

    def costs(self, files: Mapping[str, Path | None]) -> Figures:
        inputs: dict[str, tuple[nn.Module, Tensor]] = {
            who: (_Reads(self.encoder(who)), self._document(who)) for who in self.networks
        }
        found = costs(inputs, batch_size=self.batch_size, files=files, teacher=TEACHER)
        return {"cost": found, "index": self._index()}

    def _document(self, who: str) -> Tensor:
        """(1, L) the document of median length."""
        rows = self.texts(who).documents
        place = rows.lengths.argsort()[len(rows) // 2]
        return rows.batch(place[None]).tokens.to(self.device)

    def _index(self) -> IndexCosts:
        found = {}
        for who, each in self.searched().items():
            cost, width = each.cost, self.encoder(who).width
            found[who] = IndexCost(
                width, cost.index_bytes, cost.documents_per_second, cost.query_milliseconds, cost.search_milliseconds
            )
        theirs = found.get(TEACHER)
        ratios = {who: _over(theirs, each) for who, each in found.items() if who != TEACHER} if theirs else None
        return IndexCosts(device_name(self.device), found, ratios)

    def tap(self, parts: Collection[str], classifiers: Mapping[str, str]) -> None:
        """Embeddings are what encoders give."""

    def scores(self) -> tuple[dict[str, Scored], Figures]:
        found = self.searched()
        first = {who: each.found.documents[:, 0] for who, each in found.items()}
        scored = {}
        for who, each in found.items():
            beside = who != TEACHER and TEACHER in found
            scored[who] = Scored(
                count=each.score.count,
                accuracy=each.score.means["Success@1"],
                top5=each.score.means["Success@5"],
                agreement=float((first[who] == first[TEACHER]).double().mean()) if beside else None,
            )
        return scored, {"search": {who: self._figures(each) for who, each in found.items()}}

    def _figures(self, found: Searched) -> SearchFigures:
        means = {name: found.score.means[measure] for name, measure in FIGURES.items()}
        return SearchFigures(
            queries=found.score.count,
            documents=len(self.corpus.data.documents),
            recall_10=found.score.means["R@10"],
            **means,
        )


def check_part(corpus: SearchCorpus, split: str) -> None:
    """Raise SettingError unless the collection has queries of this split, naming those that it has."""
    there = [name for name, part in SPLITS.items() if part in corpus.data.judgements]
    if split not in there:
        raise SettingError(
            f"split is '{split}', and {corpus.name} has no judgements for it; it has {', '.join(there)}."
        )


class _Reads(nn.Module):
    """An encoder that takes rows of tokens (B, L) int64 without any that are filled up."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Tensor) -> None:
        self.encoder({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})


def _over(teacher: IndexCost, student: IndexCost) -> IndexRatios:
    return IndexRatios(
        teacher.index_bytes / student.index_bytes,
        student.documents_per_second / teacher.documents_per_second,
        teacher.query_ms / student.query_ms,
    )
