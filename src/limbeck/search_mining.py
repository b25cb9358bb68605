"""Hard negatives that a run's teacher finds, and teachers that score pairs: what of the settings they go with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck import losses
from limbeck.config import RunSettings
from limbeck.data.search import Found, KnownTexts, Miner, SearchData
from limbeck.errors import DataError, SettingError
from limbeck.evaluate.search import find, make_index
from limbeck.modalities.search_networks import SCORES, cross_of, is_encoder


def check_mining(settings: RunSettings) -> None:
    """Raise SettingError for settings of mining that do not go together."""
    limits = [name for name in ("mining_margin", "mining_share") if getattr(settings, name) is not None]
    if limits and settings.mining != "teacher":
        raise SettingError(f"{limits[0]} compares scores of the teacher: it goes with mining=teacher.")
    if len(limits) > 1:
        raise SettingError(
            "give either mining_margin or mining_share, two limits for what is too near to the positive."
        )
    if settings.mining == "teacher" and not settings.negatives:
        raise SettingError("mining=teacher finds negatives, and none are asked for: give --negatives too.")


def check_scorers(teachers: Sequence[object], data: SearchData, settings: RunSettings) -> None:
    """Check teachers that score pairs, and a teacher that is to mine.

    Raises:
        SettingError: settings that do not go with them. DataError: the collection holds no scores.
    """
    scorers = [each for each in teachers if not is_encoder(each)]
    if settings.mining == "teacher" and (len(teachers) != 1 or scorers):
        raise SettingError("mining=teacher searches with one teacher that is an encoder; take mining=bm25 here.")
    if not scorers:
        return
    name, cross = scorers[0], cross_of(scorers[0])
    if len(teachers) > 1:
        raise SettingError(f"teacher: {name} scores pairs, and stands alone; encoders can be combined.")
    if not settings.negatives and (cross is None or cross.own):
        raise SettingError(
            f"teacher: {name} scores each query's own documents, of which there is one; give --negatives"
            + (", or pairs='batch' to have all documents of the batch scored." if cross else ".")
        )
    if name == SCORES and not all(example.scores for example in data.training()):
        raise DataError(
            f"teacher=scores: not every example of {data.name} has scores; they stand in the column 'scores' of a file of "
            "examples, of the positive and of each negative."
        )
    if getattr(settings, "teacher_cache", None) is not None and (cross is None or not cross.own):
        raise SettingError(f"teacher_cache: {name} has no scores that are the same in every epoch; leave it out.")


def teacher_miner(known: KnownTexts, margin: float | None, share: float | None) -> Miner:
    """What a teacher's embeddings find, with its scores; ``known`` are all texts of the collection."""
    embedded = known.embedded
    assert embedded is not None
    index = make_index(embedded.documents, similarity=known.similarity)

    def search(data: SearchData, queries: Tensor, count: int) -> Found:
        return find(index, embedded.queries[queries.to(embedded.queries.device)], queries, count)

    def scores(queries: Tensor, documents: Tensor) -> Tensor:
        rows = known.queries(queries), known.documents(documents)
        ours, theirs = (losses.unit(each) for each in rows) if known.similarity == "cosine" else rows
        products: Tensor = torch.linalg.vecdot(ours, theirs)
        return products.cpu()

    return Miner(search, scores, margin, share)
