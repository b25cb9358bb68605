from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.text.plan import Packing, Plan

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=80)


@given(LENGTHS, st.integers(1, 9), st.integers(0, 5), st.booleans())
def test_every_row_is_in_an_epoch_once(lengths: list[int], size: int, epoch: int, grouped: bool) -> None:
    plan = Plan(torch.tensor(lengths), 3, batch_size=size, grouped=grouped)
    batches = plan.epoch(epoch)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(lengths)))
    assert (
        sorted(map(len, batches))
        == sorted(plan.sizes)
        == sorted([size] * (len(lengths) // size) + [len(lengths) % size] * (len(lengths) % size > 0))
    )


@given(LENGTHS, st.integers(60, 300), st.integers(0, 5), st.booleans())
def test_a_budget_is_kept_and_epochs_have_as_many_batches(
    lengths: list[int], budget: int, epoch: int, grouped: bool
) -> None:
    plan = Plan(torch.tensor(lengths), 3, token_budget=budget, grouped=grouped)
    batches = plan.epoch(epoch)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(lengths)))
    assert all(len(rows) * max(lengths[row] for row in rows.tolist()) <= budget for rows in batches)
    assert len(batches) == len(plan.epoch(epoch + 1)) == len(plan.sizes)


@given(LENGTHS, st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_batches_are_shared_equally(lengths: list[int], multiple: int, times: int, drop_last: bool) -> None:
    plan = Plan(torch.tensor(lengths), 3, batch_size=multiple * times, multiple=multiple, drop_last=drop_last)
    batches = plan.epoch(0)
    rows = [row for part in batches for row in part.tolist()]
    assert all(len(part) % multiple == 0 for part in batches)
    assert len(set(rows)) == len(rows)
    least = len(lengths) - len(lengths) % (multiple * times if drop_last else multiple)
    assert len(rows) == least


def test_rows_of_a_batch_have_similar_lengths_and_epochs_differ() -> None:
    lengths = torch.randint(10, 500, (2000,), generator=torch.Generator().manual_seed(0))
    plan = Plan(lengths, 0, batch_size=16)
    filled = [int(lengths[rows].max()) * len(rows) for rows in plan.epoch(0)]
    assert lengths.sum() / sum(filled) > 0.9
    mixed = [int(lengths[rows].max()) * len(rows) for rows in Plan(lengths, 0, batch_size=16, grouped=False).epoch(0)]
    assert lengths.sum() / sum(mixed) < 0.65
    assert [rows.tolist() for rows in plan.epoch(1)] == [rows.tolist() for rows in Plan(lengths, 0, 16).epoch(1)]
    first, second, other = (
        {tuple(sorted(rows.tolist())) for rows in each}
        for each in (plan.epoch(0), plan.epoch(1), Plan(lengths, 1, 16).epoch(0))
    )
    assert not first & second
    assert not first & other
    assert [len(lengths[rows]) for rows in plan.epoch(0)] == [16] * 125


@given(LENGTHS, st.integers(60, 200), st.integers(0, 5))
def test_packed_rows_hold_every_example_once_and_as_many_in_every_epoch(
    lengths: list[int], capacity: int, epoch: int
) -> None:
    packing = Packing(torch.tensor(lengths), capacity, 5)
    rows = packing.epoch(epoch)
    assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
    sums = [sum(lengths[place] for place in row) for row in rows]
    assert max(sums) <= capacity
    assert sums == packing.row_lengths.tolist()
    # Of two rows that are half empty at most, one would have gone into the other.
    assert sum(2 * used <= capacity for used in sums) <= 1


def test_packing_draws_who_is_together_anew() -> None:
    packing = Packing(torch.tensor([4] * 50 + [3] * 50), 10, 5)
    assert packing.epoch(0) == Packing(torch.tensor([4] * 50 + [3] * 50), 10, 5).epoch(0)
    assert packing.epoch(0) != packing.epoch(1)


@pytest.mark.parametrize("capacity", [512, 2048])
def test_packed_rows_are_nearly_full(capacity: int) -> None:
    lengths = torch.randint(10, 500, (3000,), generator=torch.Generator().manual_seed(0))
    rows = Packing(lengths, capacity, 0).row_lengths
    assert lengths.sum() / (len(rows) * capacity) > 0.97
