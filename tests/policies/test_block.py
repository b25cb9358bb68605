from __future__ import annotations

import random

import pytest

from limbeck.errors import SettingError
from limbeck.policies import BlockChooser
from limbeck.policies.block import expected_rounds, expected_tokens


def accepted_of(acceptance: float, block: int, generator: random.Random) -> int:
    kept = 0
    while kept < block and generator.random() < acceptance:
        kept += 1
    return kept


@pytest.mark.parametrize("acceptance", [0.0, 0.4, 0.9, 1.0])
def test_expected_tokens_are_those_of_simulated_blocks(acceptance: float) -> None:
    generator = random.Random(0)
    rounds = [min(accepted_of(acceptance, 5, generator) + 1, 5) for _ in range(20000)]
    assert sum(rounds) / len(rounds) == pytest.approx(expected_tokens(acceptance, 5), rel=0.02)


@pytest.mark.parametrize("acceptance", [0.0, 0.6, 0.95, 1.0])
@pytest.mark.parametrize("block", [1, 5, 12])
@pytest.mark.parametrize("rows", [1, 16])
def test_expected_rounds_are_those_of_the_slowest_of_simulated_rows(acceptance: float, block: int, rows: int) -> None:
    generator = random.Random(0)
    found = []
    for _ in range(300):
        written, rounds = [0] * rows, 0
        while min(written) < 96:
            rounds += 1
            written = [count + min(accepted_of(acceptance, block, generator) + 1, block) for count in written]
        found.append(rounds)
    assert expected_rounds(acceptance, block, rows=rows, room=96) == pytest.approx(
        sum(found) / len(found), rel=0.06, abs=0.6
    )


@pytest.mark.parametrize(
    ("acceptance", "student", "fixed", "per_token"),
    [(0.95, 1.0, 20.0, 0.0), (0.8, 1.0, 6.0, 0.0), (0.5, 1.0, 2.0, 0.5), (0.1, 1.0, 1.0, 0.0), (0.9, 1.0, 0.0, 2.0)],
)
def test_it_comes_within_a_tenth_of_the_best_rate(
    acceptance: float, student: float, fixed: float, per_token: float
) -> None:
    generator, chooser = random.Random(1), BlockChooser()
    chosen = []
    for _ in range(400):
        block = chooser.block
        chosen.append(block)
        counts = [accepted_of(acceptance, block, generator) for _ in range(16)]
        chooser.observe(
            block,
            draft_seconds=block * student * generator.uniform(0.9, 1.1),
            score_seconds=(fixed + block * per_token) * generator.uniform(0.9, 1.1),
            accepted=sum(counts),
            corrected=sum(count < block for count in counts),
        )

    def rate(block: int) -> float:
        return 1 / (expected_rounds(acceptance, block) * (block * student + fixed + block * per_token))

    best = max(rate(block) for block in range(1, 17))
    assert sum(rate(block) for block in chosen[100:]) / 300 > 0.9 * best


def test_it_begins_with_the_papers_block_and_never_leaves_its_range() -> None:
    chooser = BlockChooser(most=3, block=3)
    assert BlockChooser().block == 5
    for _ in range(30):
        chooser.observe(chooser.block, draft_seconds=0.0, score_seconds=0.0, accepted=0, corrected=0)
        assert 1 <= chooser.block <= 3
    for arguments in ({"block": 0}, {"most": 0}):
        with pytest.raises(SettingError, match="must be a whole number of at least 1"):
            BlockChooser(**arguments)
