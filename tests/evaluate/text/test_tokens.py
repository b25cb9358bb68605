from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from limbeck.errors import DataError, NonFiniteError, SignalError
from limbeck.evaluate.text import TokenScorer
from limbeck.evaluate.text import tokens as module


def batch(seed: int, rows: int, length: int, vocabulary: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(rows, length, vocabulary, generator=generator) for _ in range(2))
    labels = torch.randint(vocabulary, (rows, length), generator=generator)
    return student, teacher, labels.where(torch.rand(rows, length, generator=generator) < 0.6, -100)


def probabilities(logits: Tensor) -> list[float]:
    largest = max(logits.tolist())
    raised = [math.exp(value - largest) for value in logits.tolist()]
    return [value / sum(raised) for value in raised]


def test_the_figures_are_means_over_all_tokens_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POSITIONS", 3)
    batches = [batch(0, 2, 5), batch(1, 3, 4), batch(2, 1, 9)]
    scorer = TokenScorer(with_teacher=True)
    count = nll = right = same = forward = reverse = 0.0
    for student, teacher, labels in batches:
        scorer.add(student, labels, teacher)
        for row in range(len(labels)):
            for place in range(labels.shape[1]):
                if labels[row, place] == -100:
                    continue
                q, p = probabilities(student[row, place].double()), probabilities(teacher[row, place].double())
                count += 1
                nll -= math.log(q[labels[row, place]])
                right += q.index(max(q)) == labels[row, place]
                same += q.index(max(q)) == p.index(max(p))
                forward += sum(b * math.log(b / a) for a, b in zip(q, p, strict=True))
                reverse += sum(a * math.log(a / b) for a, b in zip(q, p, strict=True))
    found = scorer.score()
    assert found.tokens == count
    assert found.nll == pytest.approx(nll / count, rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(nll / count), rel=1e-6)
    assert found.accuracy == pytest.approx(right / count)
    assert found.agreement == pytest.approx(same / count)
    assert found.kl == pytest.approx(forward / count, rel=1e-5)
    assert found.reverse_kl == pytest.approx(reverse / count, rel=1e-5)


def test_a_network_that_knows_nothing_is_as_perplexed_as_it_has_tokens() -> None:
    scorer = TokenScorer()
    scorer.add(torch.zeros(2, 3, 50), torch.ones(2, 3, dtype=torch.int64))
    assert scorer.score().perplexity == pytest.approx(50)
    assert "kl" not in scorer.score().as_dict()


def test_half_precision_is_summed_exactly_enough() -> None:
    student, teacher, labels = batch(3, 4, 300)
    whole, half = TokenScorer(with_teacher=True), TokenScorer(with_teacher=True)
    whole.add(student.bfloat16().float(), labels, teacher.bfloat16().float())
    half.add(student.bfloat16(), labels, teacher.bfloat16())
    assert half.score() == whole.score()


def test_what_does_not_count_may_be_anything() -> None:
    student, teacher, labels = batch(4, 2, 6)
    damaged = student.where((labels != -100)[..., None], math.nan)
    one, other = TokenScorer(with_teacher=True), TokenScorer(with_teacher=True)
    one.add(student, labels, teacher)
    other.add(damaged, labels, teacher)
    assert one.score() == other.score()


def test_what_cannot_be_scored() -> None:
    student, teacher, labels = batch(5, 2, 6)
    with pytest.raises(DataError, match="no token counts"):
        TokenScorer().score()
    scorer = TokenScorer()
    scorer.add(student.where(labels[..., None] != labels[labels != -100][0], math.nan), labels)
    with pytest.raises(NonFiniteError, match=r"NaN or infinite for \d+ of \d+ tokens"):
        scorer.score()
    with pytest.raises(SignalError, match=r"logits must be \(B, L, V\)"):
        TokenScorer().add(student[:, 1:], labels)
    with pytest.raises(SignalError, match="with_teacher"):
        TokenScorer().add(student, labels, teacher)
    with pytest.raises(SignalError, match="logits of the same tokens"):
        TokenScorer(with_teacher=True).add(student, labels, teacher[..., 1:])


def test_a_token_that_is_ruled_out_is_infinitely_unlikely() -> None:
    logits = torch.zeros(1, 1, 3)
    logits[0, 0, 1] = -math.inf
    scorer = TokenScorer()
    scorer.add(logits, torch.tensor([[1]]))
    assert scorer.score().perplexity == math.inf


def scored(numbers: range) -> TokenScorer:
    scorer = TokenScorer(with_teacher=True)
    for number in numbers:
        student, teacher, labels = batch(number, 2, 5)
        scorer.add(student, labels, teacher)
    return scorer


def one_of_two(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    figures = scored(range(rank, 5, 2)).score().as_dict()
    (folder / f"{rank}.json").write_text(json.dumps(figures), encoding="utf-8")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_score_what_one_does(server: Any, tmp_path: Path) -> None:
    start_processes(one_of_two, args=(tmp_path,), nprocs=2, start_method="forkserver")
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2))
    assert one == other
    assert one == pytest.approx(scored(range(5)).score().as_dict(), rel=1e-9)
