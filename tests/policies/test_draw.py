from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest

from limbeck.errors import SettingError
from limbeck.policies import Draw, Stream

_MASK = 2**64 - 1


def slow(*values: int) -> float:
    """The same chain in Python's whole numbers."""
    state = 0x6C696D
    for value in values:
        state = (state + value + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return (state >> 11) * 2.0**-53


@pytest.mark.parametrize("seed", [0, 7, 2**63 + 11])
def test_numbers_are_those_of_the_chain(seed: int) -> None:
    rows = torch.tensor([0, 5, 123456789])
    table = Draw(seed, 3).uniforms(Stream.TEACHER, rows, 4)
    expected = [[slow(seed & _MASK, 3, 1, 0, row, place) for place in range(4)] for row in rows.tolist()]
    assert table.tolist() == expected


def test_a_row_draws_the_same_in_any_batch() -> None:
    whole = Draw(1, 2).uniforms(Stream.STUDENT, torch.arange(10), 6)
    some = Draw(1, 2).uniforms(Stream.STUDENT, torch.tensor([7, 3]), 4)
    assert torch.equal(some, whole[[7, 3], :4])


def test_seed_step_and_stream_make_other_numbers_and_a_level_other_coins_alone() -> None:
    rows = torch.arange(4)
    first = Draw(0, 0).uniforms(Stream.STUDENT, rows, 3)
    for other in (Draw(1, 0).uniforms(Stream.STUDENT, rows, 3), Draw(0, 1).uniforms(Stream.STUDENT, rows, 3)):
        assert not (other == first).any()
    assert not (Draw(0, 0).uniforms(Stream.TEACHER, rows, 3) == first).any()
    assert torch.equal(Draw(0, 0).deeper().uniforms(Stream.STUDENT, rows, 3), first)
    coins = Draw(0, 0).uniforms(Stream.COIN, rows, 3)
    assert not (Draw(0, 0).deeper().uniforms(Stream.COIN, rows, 3) == coins).any()


def test_they_are_uniform_along_each_axis() -> None:
    table = Draw(0, 0).uniforms(Stream.STUDENT, torch.arange(200), 200)
    steps = torch.stack([Draw(0, step).uniforms(Stream.STUDENT, torch.arange(1), 1)[0, 0] for step in range(500)])
    for sample in (table.flatten(), table[:, 0], table[0], steps):
        assert kstest(sample.numpy(), "uniform").pvalue > 1e-3
    assert abs(float(torch.corrcoef(torch.stack([table[:, 0], table[:, 1]]))[0, 1])) < 0.25


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"seed": 0, "step": 1.5}, {"seed": 0, "progress": 1.2}])
def test_what_it_is_made_of_is_checked(arguments: dict[str, float]) -> None:
    with pytest.raises(SettingError):
        Draw(**arguments)
