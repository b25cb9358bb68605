"""Answers at every position of fixed texts: those of the live teacher from the disk, whole or the largest of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limbeck.data.text import ByteTokenizer, TokenBatches, encode, load_text
from limbeck.data.text.collate import Collate
from limbeck.errors import CacheError
from limbeck.losses import divergence
from limbeck.teachers import Identity, plan_cache, spot_check, write_cache
from limbeck.teachers.cached_tokens import CachedTokenTeacher, PositionBatches, TokenPlaces
from limbeck.token_taps import TokenTapped

TEXTS, _ = encode(load_text("arithmetic(digits=4, train=23)"), "train", ByteTokenizer(), 20)
PLACES = TokenPlaces.of_rows(TEXTS.lengths, TEXTS.prompts, TEXTS.index)


def teacher() -> TokenTapped:
    torch.manual_seed(3)
    from limbeck.models.language import create_language_model

    made = create_language_model("llama(layers=1, width=16, heads=2)", task="causal", vocabulary=258, context=32)
    return TokenTapped(made.network, causal=True).eval()


def cached(folder: Path, logits: str, dtype: str = "fp32", places: TokenPlaces = PLACES) -> CachedTokenTeacher:
    tapped = teacher()

    @torch.no_grad()
    def compute(batch):
        return batch.inputs.to_signals(tapped(batch.inputs.texts.inputs))

    batches = PositionBatches(places, Collate(TEXTS), torch.device("cpu"))
    identity = Identity("t", "d", "v", "t", "p", "fp32", dtype, logits)
    (probe,) = batches.at([(torch.arange(2), torch.zeros(2, dtype=torch.int64))])
    cache = write_cache(folder, plan_cache(identity, len(places), 1, compute(probe)), batches, compute, batch_size=7)
    assert spot_check(cache, batches, compute, index=torch.arange(len(places))) < 1e-3
    return CachedTokenTeacher(cache, places)


@pytest.mark.parametrize("packing", [None, 40])
def test_positions_are_found_again_in_any_batch(tmp_path: Path, packing: int | None) -> None:
    found, tapped = cached(tmp_path / "cache", "dense"), teacher()
    seen = 0
    for batch in TokenBatches(TEXTS, 5, batch_size=4, packing=packing).epoch(1):
        with torch.no_grad():
            live = tapped(batch.inputs).logits
        told = found.signals(batch.inputs, batch).logits
        torch.testing.assert_close(told[batch.learnt], live[batch.learnt], rtol=1e-4, atol=1e-5)
        assert not told[~batch.learnt].any()
        seen += int(batch.learnt.sum())
    assert seen == len(PLACES)


def test_the_largest_and_the_mass_of_the_rest_are_kept(tmp_path: Path) -> None:
    whole, largest = cached(tmp_path / "all", "dense"), cached(tmp_path / "k", "topk(9)")
    every = cached(tmp_path / "every", "topk(258)")
    assert largest.cache.plan.bytes < whole.cache.plan.bytes / 12
    for batch in TokenBatches(TEXTS, 0, batch_size=6).epoch(0):
        live, told, same = (each.signals(None, batch).logits[batch.learnt] for each in (whole, largest, every))
        p = live.double().softmax(-1)
        top = p.topk(9)
        rest = 1 - top.values.sum(-1, keepdim=True)
        wanted = (rest / (258 - 9)).expand_as(p).scatter(-1, top.indices, top.values)
        torch.testing.assert_close(told.double().softmax(-1), wanted, rtol=1e-4, atol=1e-7)
        # Half the sum of differences is at most the mass that is spread.
        assert ((told.double().softmax(-1) - p).abs().sum(-1) / 2 <= rest.squeeze(-1) + 1e-6).all()
        torch.testing.assert_close(same.softmax(-1), live.softmax(-1), rtol=1e-4, atol=1e-7)
        student = torch.randn(live.shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(divergence(student, same), divergence(student, live), rtol=1e-4, atol=1e-5)


def test_entries_are_the_learnt_positions_one_text_after_the_other() -> None:
    texts, positions = PLACES.of_entries(torch.arange(len(PLACES)))
    listed = [
        (text, position)
        for text, (prompt, length) in enumerate(zip(TEXTS.prompts.tolist(), TEXTS.lengths.tolist(), strict=True))
        for position in range(prompt - 1, length - 1)
    ]
    assert list(zip(texts.tolist(), positions.tolist(), strict=True)) == listed


def test_other_texts_are_refused(tmp_path: Path) -> None:
    found = cached(tmp_path / "cache", "topk(4)")
    (batch, *_) = TokenBatches(TEXTS, 0, batch_size=6).epoch(0)
    with pytest.raises(CacheError, match="does not hold every text"):
        found.signals(None, type(batch)(batch.inputs, batch.labels, batch.index + 1000))
    fewer = TokenPlaces(PLACES.first[:-1], PLACES.counts[:-1], PLACES.index[:-1])
    with pytest.raises(CacheError, match="positions, and the texts have"):
        CachedTokenTeacher(found.cache, fewer)
    with pytest.raises(CacheError, match="holds logits, and the objective needs the teacher's embedding"):
        found.require({"logits", "embedding"})
