"""Views of texts: what is mixed with what, and that it depends on seed, epoch and place alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data import parse_view_sets
from limbeck.data.text import TokenBatches, TokenSplit
from limbeck.data.text.mixup import TextViews
from limbeck.data.text.tokenizer import SpecialTokens
from limbeck.data.text.tokens import ends_of, flat
from limbeck.errors import SettingError
from limbeck.signals import Batch

LENGTHS = [2 + i % 5 for i in range(23)]


@pytest.fixture(scope="module")
def split() -> TokenSplit:
    """23 texts, of which no two are the same."""
    rows = [[3 + i, *range(30, 29 + length)] for i, length in enumerate(LENGTHS)]
    count, ends = len(rows), ends_of(rows)
    return TokenSplit(
        flat(rows),
        ends,
        ends.diff(prepend=torch.zeros(1, dtype=torch.int64)),
        torch.arange(count),
        SpecialTokens(0, 1, (), None),
        40,
        labels=torch.arange(count) % 3,
    )


def views(text: str) -> TextViews:
    return TextViews(parse_view_sets(text))


def batches(split: TokenSplit, text: str = "none | mixup=0.4", **settings: Any) -> TokenBatches:
    return TokenBatches(split, settings.pop("seed", 0), batch_size=8, views=views(text), **settings)


def test_texts_come_as_they_are_and_mixed_with_others_of_their_batch(split: TokenSplit) -> None:
    plain, viewed = (list(made.epoch(1)) for made in (TokenBatches(split, 0, batch_size=8), batches(split)))
    assert len(viewed) == len(plain)
    for batch, before in zip(viewed, plain, strict=True):
        rows, inputs, width = len(before), batch.inputs, before.inputs.shape[1]
        assert (batch.copies, batch.mixed, len(batch)) == (2, (False, True), 2 * rows)
        for name in ("tokens", "attention", "positions"):
            assert torch.equal(getattr(inputs, name)[:rows, :width], getattr(before.inputs, name)), name
        assert torch.equal(batch.labels, before.labels.repeat(2))
        assert torch.equal(batch.index, before.index.repeat(2))
        assert (batch.share[:rows] == 1).all()
        lengths = before.inputs.attention.sum(dim=1).tolist()
        met = []
        for i in range(rows, 2 * rows):
            share, own = float(batch.share[i]), lengths[i - rows]
            other = before.inputs.tokens[:, 0].tolist().index(int(inputs.others[i, 0]))
            met.append(other)
            assert batch.other_labels[i] == before.labels[other]
            longest = own if share == 1 else max(own, lengths[other])
            assert inputs.attention[i].tolist() == [place < longest for place in range(width)]
            assert inputs.positions[i, :longest].tolist() == list(range(longest))
            parts = [[share * (place < own), (1 - share) * (place < lengths[other])] for place in range(width)]
            torch.testing.assert_close(inputs.shares[i], torch.tensor(parts))
        assert sorted(met) == list(range(rows)), "each is met once"


def same(one: Batch, other: Batch) -> bool:
    pairs = zip(
        (one.inputs.tokens, one.inputs.others, one.inputs.shares, one.other_labels),
        (other.inputs.tokens, other.inputs.others, other.inputs.shares, other.other_labels),
        strict=True,
    )
    return all(torch.equal(a, b) for a, b in pairs)


def test_an_epoch_goes_on_from_its_middle_and_differs_from_the_next(split: TokenSplit) -> None:
    whole, rest = list(batches(split).epoch(2)), list(batches(split).epoch(2, start=1))
    assert all(same(one, other) for one, other in zip(whole[1:], rest, strict=True))
    assert not torch.equal(whole[0].share, next(iter(batches(split).epoch(3))).share)
    assert not torch.equal(whole[0].share, next(iter(batches(split, seed=1).epoch(2))).share)


def test_two_processes_see_what_one_sees(split: TokenSplit) -> None:
    one, *two = (
        batches(split, drop_last=True, **share).epoch(0)
        for share in ({}, {"rank": 0, "world_size": 2}, {"rank": 1, "world_size": 2})
    )
    for whole, *parts in zip(one, *two, strict=True):
        for name in ("labels", "share", "other_labels"):
            told = torch.cat([getattr(part, name).unflatten(0, (2, -1)) for part in parts], dim=1)
            assert torch.equal(told, getattr(whole, name).unflatten(0, (2, -1))), name


def test_micro_batches_keep_the_views_of_a_text_together(split: TokenSplit) -> None:
    batch = next(iter(batches(split).epoch(0)))
    part, half = batch.samples(slice(2, 4)), len(batch) // 2
    rows = [2, 3, half + 2, half + 3]
    assert torch.equal(part.index, batch.index[rows])
    assert torch.equal(part.share, batch.share[rows])
    assert torch.equal(part.inputs.shares, batch.inputs.shares[rows])


def test_texts_twice_as_they_are_need_nothing_to_mix(split: TokenSplit) -> None:
    batch = next(iter(batches(split, "none | none").epoch(0)))
    assert (batch.copies, batch.mixed) == (2, ())
    assert batch.share is None
    assert batch.inputs.shares is None
    assert torch.equal(*batch.inputs.tokens.chunk(2))


@given(st.floats(0.01, 20), st.integers(1, 40), st.integers(0, 2**31))
def test_shares_are_of_the_distribution_and_never_nothing(concentration: float, rows: int, seed: int) -> None:
    (drawn,) = views(f"mixup={concentration}").draw(rows, seed, 0, 0)
    assert drawn is not None
    assert sorted(drawn.other.tolist()) == list(range(rows))
    assert ((drawn.share > 0) & (drawn.share <= 1)).all()


def test_the_mean_share_is_a_half() -> None:
    (drawn,) = views("mixup=0.4").draw(4000, 0, 0, 0)
    assert drawn is not None
    assert drawn.share.mean() == pytest.approx(0.5, abs=0.03)
    # Of Beta(0.4, 0.4): variance 1 / (4 (2·0.4 + 1)).
    assert drawn.share.var() == pytest.approx(1 / (4 * 1.8), rel=0.05)


def test_what_texts_cannot_do_is_refused(split: TokenSplit) -> None:
    with pytest.raises(SettingError, match=r"as they are or with mixup, as in 'none \| mixup=0.4'; got 'crop=4'"):
        views("none | crop=4")
    with pytest.raises(SettingError, match="for texts that are classified, filled up on the right"):
        TokenBatches(split, 0, batch_size=8, side="left", views=views("mixup=1"))
