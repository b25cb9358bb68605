"""The law of the text: m(y) = 1[y in A] q(y) + (1 - q(A)) p(y) at every place, whatever the block."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from limbeck.errors import SettingError
from limbeck.policies import Draw, Prompts, Sampling, Speculative, Writer, speculate

from .reference import law, top
from .tiny import END, VOCABULARY, network, ragged, student, teacher, texts

ROWS, LENGTH, PROMPT = 4000, 3, [3, 1]
WRITERS = (Writer(network(seed=1)), Writer(network(seed=2, width=24), Sampling(0.8, 0.95)))


def many() -> Prompts:
    """One prompt many times, each with its own random numbers."""
    tokens = torch.tensor(PROMPT).expand(ROWS, -1)
    return Prompts(tokens, torch.ones_like(tokens, dtype=torch.bool), pad=0, end=END, max_new_tokens=LENGTH)


def joint(k: int) -> dict[tuple[int, ...], float]:
    """The exact law of whole answers, by enumeration of all of them."""
    whole: dict[tuple[int, ...], float] = {}
    going: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(LENGTH):
        prefixes = list(going)
        texts = torch.tensor([PROMPT + list(prefix) for prefix in prefixes])
        with torch.no_grad():
            both = [writer.model(input_ids=texts).logits[:, -1].double().tolist() for writer in WRITERS]
        now, going = going, {}
        for prefix, *logits in zip(prefixes, *both, strict=True):
            q, p = (law(each, writer.sampling) for each, writer in zip(logits, WRITERS, strict=True))
            inside = top(logits[1], k)
            missing = 1 - sum(q[token] for token in inside)
            for token in range(VOCABULARY):
                mass = now[prefix] * (q[token] * (token in inside) + missing * p[token])
                (whole if token == END or len(prefix) + 1 == LENGTH else going)[(*prefix, token)] = mass
    return whole


@pytest.mark.parametrize(("block", "k"), [(1, 3), (5, 3), (5, 0), (2, 1), (5, VOCABULARY)])
def test_answers_have_the_exact_joint_law(block: int, k: int) -> None:
    expected = joint(k)
    assert sum(expected.values()) == pytest.approx(1)
    draw = Draw(seed=block + 10 * k)
    response = speculate(*WRITERS, many(), draw, lambda places: torch.full_like(places, k), block)
    found = Counter(map(tuple, texts(response.tokens, response.mask)))
    assert set(found) <= {answer for answer, mass in expected.items() if mass > 0}
    frequent = [answer for answer, mass in expected.items() if ROWS * mass >= 5]
    counts = [found[answer] for answer in frequent]
    masses = [ROWS * expected[answer] for answer in frequent]
    # What is rare is one cell.
    counts.append(ROWS - sum(counts))
    masses.append(max(ROWS - sum(masses), 1e-9))
    if masses[-1] < 5:
        counts[-2:], masses[-2:] = [sum(counts[-2:])], [sum(masses[-2:])]
    assert chisquare(counts, [mass * ROWS / sum(masses) for mass in masses]).pvalue > 1e-3


def test_the_prefix_matters_to_both_models() -> None:
    # Or the joint law would test no more than the marginal one.
    for writer in WRITERS:
        after = torch.tensor([[3, 1, token] for token in range(VOCABULARY)])
        with torch.no_grad():
            laws = writer.model(input_ids=after).logits[:, -1].softmax(-1)
        distances = [float((a - b).abs().sum() / 2) for a, b in itertools.combinations(laws, 2)]
        assert max(distances) > 0.3


@pytest.mark.parametrize("block", [1, 5, "auto"])
def test_the_policy_at_k_0_and_v_is_that_of_one_model_alone(block: int | str) -> None:
    from limbeck.policies import StudentText, TeacherText

    given, draw = ragged(), Draw(3)
    for k, alone, rate in ((0, TeacherText(), 1.0), (VOCABULARY, StudentText(), 0.0), (99, StudentText(), 0.0)):
        response = Speculative(top_k=k, block=block).respond(given, student(), teacher(), draw)
        assert torch.equal(response.tokens, alone.respond(given, student(), teacher(), draw).tokens)
        assert response.statistics.correction_rate == rate


def test_the_policy_writes_the_same_for_every_block() -> None:
    given, draw = ragged(max_new_tokens=20), Draw(3)
    one, five, auto = (
        Speculative(top_k=3, block=block).respond(given, student(), teacher(), draw) for block in (1, 5, "auto")
    )
    assert torch.equal(one.tokens, five.tokens)
    assert torch.equal(one.tokens, auto.tokens)
    assert one.statistics.student_passes == one.statistics.teacher_passes
    assert five.statistics.teacher_passes < one.statistics.teacher_passes


def test_adaptive_k_falls_with_the_position_and_not_below_one() -> None:
    places = torch.arange(12)
    policy = Speculative(top_k=4, adaptive=True)
    assert policy.top_k_at(places, 12).tolist() == [4, 4, 4, 3, 3, 3, 2, 2, 2, 1, 1, 1]
    assert policy.top_k_at(places, 2).tolist()[:3] == [4, 2, 1]
    assert Speculative(top_k=4, adaptive=True, expected_length=4).top_k_at(places, 99).tolist()[:5] == [4, 3, 2, 1, 1]
    assert Speculative(top_k=4).top_k_at(places, 12).tolist() == [4] * 12


def test_adaptive_k_is_read_at_each_tokens_own_position() -> None:
    from .reference import checked

    given, draw = ragged(max_new_tokens=16), Draw(8)
    response = Speculative(top_k=6, adaptive=True).respond(given, student(), teacher(), draw)
    answers = texts(response.tokens, response.mask)
    rule = checked((student(), teacher()), given, draw, lambda place: max(1, 6 - place // 2), answers)
    assert [[token for token, _ in row] for row in rule] == answers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": -1}, "top_k must be a whole number of at least 0"),
        ({"block": 0}, "block must be a whole number of at least 1"),
        ({"block": "fast"}, 'block must be a whole number of at least 1 or "auto", got'),
        ({"adaptive": 1}, "adaptive must be True or False"),
        ({"expected_length": 9}, "expected_length is read with adaptive=True alone"),
        ({"top_k": 0, "adaptive": True}, "adaptive needs a top_k of at least 1"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Speculative(**arguments)  # type: ignore[arg-type]
