from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import SettingError
from limbeck.policies import Sampling

from .reference import drawn, law

LOGITS = st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=9, unique=True)
UNIFORM = st.floats(0, 1, exclude_max=True)


@given(LOGITS, UNIFORM, st.floats(0.1, 3), st.floats(0.05, 1), st.integers(0, 9))
def test_it_draws_as_the_slow_rule_does(
    logits: list[float], uniform: float, temperature: float, top_p: float, top_k: int
) -> None:
    sampling = Sampling(temperature, top_p, top_k)
    token, usable = sampling.choose(torch.tensor([logits]), torch.tensor([uniform], dtype=torch.float64))
    # Within rounding of the edge between two tokens either is right.
    nearby = {drawn(logits, sampling, min(max(uniform + shift, 0.0), 1 - 1e-16)) for shift in (-1e-5, 0.0, 1e-5)}
    edge = {
        drawn(logits, Sampling(temperature, min(max(top_p + shift, 1e-9), 1.0), top_k), uniform)
        for shift in (-1e-5, 1e-5)
    }
    assert int(token) in nearby | edge
    assert bool(usable)


def test_uniforms_over_a_grid_give_each_token_its_share() -> None:
    logits, sampling = [0.0, 1.0, -1.0, 0.5], Sampling(temperature=0.7, top_p=0.8)
    grid = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    tokens, _ = sampling.choose(torch.tensor([logits]).expand(4000, -1), grid)
    shares = tokens.bincount(minlength=4) / 4000
    assert shares.tolist() == pytest.approx(law(logits, sampling), abs=1e-3)


def test_temperature_zero_takes_the_first_of_the_highest() -> None:
    tokens, _ = Sampling(temperature=0).choose(
        torch.tensor([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]]), torch.full((2,), 0.99).double()
    )
    assert tokens.tolist() == [1, 0]


@pytest.mark.parametrize(("temperature", "tokens"), [(1e-300, [1, 0]), (1e-45, [1, 0]), (1e300, [1, 2])])
def test_a_temperature_beyond_float32_draws_as_its_limit_does(temperature: float, tokens: list[int]) -> None:
    logits = torch.tensor([[-math.inf, 3.0, 2.0], [5.0, -math.inf, 2.0]])
    chosen, _ = Sampling(temperature).choose(logits, torch.tensor([0.1, 0.9], dtype=torch.float64))
    assert chosen.tolist() == tokens


def test_a_nucleus_wider_than_the_head_of_a_large_vocabulary() -> None:
    # Nearly uniform, so that 0.9 of the mass needs 900 of 1000 tokens; the second row's nucleus is one token.
    logits = torch.stack([torch.linspace(0, 1e-3, 1000), torch.zeros(1000)])
    logits[1, 17] = 30.0
    for uniform in (0.0, 0.3, 0.999):
        tokens, _ = Sampling(top_p=0.9).choose(logits, torch.full((2,), uniform, dtype=torch.float64))
        assert int(tokens[0]) == pytest.approx(999 - uniform * 900, abs=2)
        assert int(tokens[1]) == 17


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.0), Sampling(0.5, 0.5), Sampling(top_k=2)])
def test_logits_that_are_not_numbers_are_told_by_row(sampling: Sampling) -> None:
    nan, inf = float("nan"), float("inf")
    logits = torch.tensor([[0.0, nan, 1.0], [0.0, inf, 1.0], [-inf, -inf, -inf], [0.0, -inf, 1.0]])
    tokens, usable = sampling.choose(logits, torch.full((4,), 0.4, dtype=torch.float64))
    assert usable.tolist() == [False, False, False, True]
    assert ((tokens >= 0) & (tokens < 3)).all()
    assert int(tokens[3]) != 1


def test_the_largest_uniform_draws_a_token_that_can_be() -> None:
    logits = torch.tensor([[0.0, 1.0, float("-inf")]])
    for sampling in (Sampling(), Sampling(top_p=0.999999), Sampling(top_k=3)):
        tokens, _ = sampling.choose(logits, torch.tensor([1 - 2.0**-53], dtype=torch.float64))
        assert int(tokens) != 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"temperature": float("nan")}, "temperature must be a finite number"),
        ({"top_p": 0.0}, "top_p must be greater than 0"),
        ({"top_p": 1.5}, "top_p must be at most 1"),
        ({"top_k": 2.5}, "top_k must be a whole number of at least 0"),
    ],
)
def test_settings_are_checked(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Sampling(**arguments)
