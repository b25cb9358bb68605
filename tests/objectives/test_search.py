"""Objectives of search against their formulas, and the convention by which the others serve search as they are.

A batch of search has B queries with M documents each; ``logits`` (B, B·M) are scores, the label of query i is the column i·M
of its positive, and a score of -inf leaves a document out.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck import losses
from limbeck.errors import SettingError, SignalError
from limbeck.objectives import Objective, parse_objective
from limbeck.objectives.contrastive import Contrastive
from limbeck.objectives.documents import Documents
from limbeck.objectives.embed_match import EmbedMatch
from limbeck.objectives.icd import ICD
from limbeck.objectives.kl import KL
from limbeck.objectives.listwise_kl import ListwiseKL
from limbeck.objectives.margin_mse import MarginMSE
from limbeck.signals import Batch, Signals

B, M = 4, 3
LABELS = torch.arange(B) * M
# Query 1's own negative, and a document of query 3 that answers query 0 too.
OUT = torch.zeros(B, B * M, dtype=torch.bool)
OUT[1, 4] = OUT[0, 9] = True


def search(seed: int, width: int = 5, *, out: Tensor | None = OUT, learns: bool = False) -> Signals:
    """Unit embeddings and their cosines."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        rows = losses.unit(torch.randn(shape, generator=generator, dtype=torch.float64))
        return rows.requires_grad_(learns)

    queries, documents = draw(B, width), draw(B, M, width)
    scores = queries @ documents.flatten(0, 1).T
    return Signals(
        logits=scores if out is None else scores.masked_fill(out, -torch.inf), embedding=queries, documents=documents
    )


def batch_of(weight: Tensor | None = None) -> Batch:
    return Batch(torch.zeros(B, 1), LABELS, weight=weight)


def total(objective: Objective, student: Signals, teacher: Signals, weight: Tensor | None = None) -> Tensor:
    return torch.stack(list(objective(student, teacher, batch_of(weight)).values())).sum()


def rows_of(signals: Signals) -> list[list[float]]:
    assert signals.logits is not None
    rows: list[list[float]] = signals.logits.tolist()
    return rows


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [0.0 if value == -math.inf else math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_contrastive_is_its_formula(temperature: float) -> None:
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64)
    rows = [softmax(row, temperature) for row in rows_of(search(1))]
    wanted = sum(-float(weight[i]) * math.log(rows[i][i * M]) for i in range(B)) / B
    found = total(Contrastive(temperature=temperature), search(1), Signals(), weight)
    assert found.item() == pytest.approx(wanted, rel=1e-12)


def test_contrastive_is_ce_and_the_contrast_of_icd() -> None:
    student = search(1)
    assert torch.equal(
        total(Contrastive(temperature=1.0), student, Signals()), total(parse_objective("ce()"), student, Signals())
    )
    square = Signals(logits=search(1, out=None).logits[:, ::M])  # type: ignore[index]
    batch = Batch(torch.zeros(B, 1), torch.arange(B))
    assert square.logits is not None
    assert Contrastive(temperature=0.1)(square, Signals(), batch)["contrastive"].item() == pytest.approx(
        losses.info_nce(square.logits / 0.1).item(), rel=1e-12
    )


@pytest.mark.parametrize(("temperature", "teachers"), [(0.05, 0.0), (0.5, 2.0)])
def test_listwise_kl_is_its_formula(temperature: float, teachers: float) -> None:
    ours = [softmax(row, temperature) for row in rows_of(search(1))]
    theirs = [softmax(row, teachers or temperature) for row in rows_of(search(2))]
    wanted = sum(p * math.log(p / q) for i in range(B) for p, q in zip(theirs[i], ours[i], strict=True) if p) / B
    objective = ListwiseKL(temperature=temperature, teacher_temperature=teachers)
    assert total(objective, search(1), search(2)).item() == pytest.approx(wanted, rel=1e-12)
    assert objective.zero_when_equal == (teachers == 0)


def test_listwise_kl_is_kl_without_its_factor() -> None:
    student, teacher = search(1), search(2)
    assert torch.equal(total(ListwiseKL(temperature=1.0), student, teacher), total(KL(), student, teacher))
    cold = total(ListwiseKL(temperature=0.05), student, teacher)
    assert total(KL(temperature=0.05), student, teacher).item() == pytest.approx(0.05**2 * cold.item(), rel=1e-9)
    assert str(parse_objective("score_kd(temperature=1)")) == "listwise_kl(temperature=1)"


def test_score_distillation_has_the_gradient_of_the_cross_entropy() -> None:
    student, teacher = search(1, out=None, learns=True), search(2, out=None)
    assert student.logits is not None
    assert teacher.logits is not None
    (ours,) = torch.autograd.grad(total(ListwiseKL(temperature=1.0), student, teacher), student.logits)
    entropy = losses.soft_cross_entropy(student.logits, teacher.logits).mean()
    (theirs,) = torch.autograd.grad(entropy, student.logits)
    assert torch.allclose(ours, theirs, atol=1e-15)


def test_margin_mse_is_its_formula() -> None:
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64)
    ours, theirs = rows_of(search(1)), rows_of(search(2))
    wanted = 0.0
    for i in range(B):
        columns = [j for j in range(B * M) if j != i * M and not OUT[i, j]]
        gaps = [(ours[i][i * M] - ours[i][j]) - (theirs[i][i * M] - theirs[i][j]) for j in columns]
        wanted += float(weight[i]) * sum(gap**2 for gap in gaps) / len(columns) / B
    assert total(MarginMSE(), search(1), search(2), weight).item() == pytest.approx(wanted, rel=1e-12)


def test_margin_mse_does_not_mind_a_shift_of_a_querys_scores() -> None:
    student = search(1)
    assert student.logits is not None
    shifted = Signals(logits=student.logits + torch.arange(B)[:, None])
    assert total(MarginMSE(), shifted, student).item() == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize(
    "text", ["ce()", "kd()", "kl(direction='reverse')", "dist()", "contrastive()", "listwise_kl()", "margin_mse()"]
)
def test_a_document_that_is_left_out_changes_nothing(text: str) -> None:
    objective = parse_objective(text)
    student, teacher = search(1, learns=True), search(2)
    value = total(objective, student, teacher)
    value.backward()
    assert value.isfinite()
    for other in (search(1, learns=True), search(1, learns=True)):
        # Whatever the score would have been.
        assert other.embedding is not None
        assert other.documents is not None
        moved = (other.embedding @ other.documents.flatten(0, 1).T + OUT * 7.0).masked_fill(OUT, -torch.inf)
        again = total(objective, Signals(logits=moved), teacher)
        again.backward()
        assert torch.equal(again, value)
        for name in ("embedding", "documents"):
            ours, theirs = getattr(student, name).grad, getattr(other, name).grad
            assert ours.isfinite().all()
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("text", ["kd()", "kl()", "dist()", "listwise_kl()", "margin_mse()", "embed_match()"])
def test_an_equal_student_has_nothing_to_learn(text: str) -> None:
    objective = parse_objective(text)
    student = search(1)
    objective.build(student, student)
    assert total(objective, student, student).item() == pytest.approx(0, abs=1e-12)


def test_embed_match_is_its_formula() -> None:
    student, teacher = search(1, 3), search(2, 5)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64)
    objective = EmbedMatch(queries=2.0, documents=0.5)
    objective.build(student, teacher)
    objective.double()
    assert isinstance(objective.projection, torch.nn.Linear)
    matrix = objective.projection.weight.tolist()

    def distance(ours: Tensor, theirs: Tensor) -> float:
        moved = [sum(row[k] * float(ours[k]) for k in range(3)) for row in matrix]
        return math.sqrt(sum((a - float(b)) ** 2 for a, b in zip(moved, theirs, strict=True)))

    for one in (student, teacher):
        assert one.embedding is not None
        assert one.documents is not None
    queries = sum(float(weight[i]) * distance(student.embedding[i], teacher.embedding[i]) for i in range(B)) / B  # type: ignore[index]
    documents = sum(
        float(weight[i]) * distance(student.documents[i, k], teacher.documents[i, k])  # type: ignore[index]
        for i in range(B)
        for k in range(M)
    )
    found = objective(student, teacher, batch_of(weight))
    assert found["queries"].item() == pytest.approx(2 * queries, rel=1e-9)
    assert found["documents"].item() == pytest.approx(0.5 * documents / (B * M), rel=1e-9)


def test_embed_match_of_equal_embeddings_has_a_gradient_of_zero() -> None:
    student = search(1, learns=True)
    objective = EmbedMatch()
    objective.build(student, student)
    assert isinstance(objective.projection, torch.nn.Identity)
    total(objective, student, student).backward()
    for value in (student.embedding, student.documents):
        assert value is not None
        assert value.grad is not None
        assert (value.grad == 0).all()


def test_the_asymmetric_student_matches_queries_alone() -> None:
    student = search(1)
    objective = EmbedMatch(documents=0)
    assert objective.needs == {"embedding"}
    objective.build(student, student)
    assert list(objective(Signals(embedding=student.embedding), search(2), batch_of())) == ["queries"]


def test_extra_queries_are_matched_as_queries_are() -> None:
    student, teacher = search(1), search(2)
    (extra,) = EmbedMatch(queries=0, documents=0, extra=0.5).needs
    assert extra == "extra"
    objective, plain = EmbedMatch(queries=0, documents=0, extra=0.5), EmbedMatch(documents=0)
    ours, theirs = Signals(extra=student.embedding), Signals(extra=teacher.embedding)
    objective.build(ours, theirs)
    plain.build(student, teacher)
    found = objective(ours, theirs, batch_of())["extra"]
    assert torch.equal(found, 0.5 * plain(student, teacher, batch_of())["queries"])
    with pytest.raises(SignalError, match="take a file of them with extra_queries"):
        objective.check(student, theirs, batch_of())


@pytest.mark.parametrize(
    ("objective", "student", "message"),
    [
        (EmbedMatch(project=False), search(1, 3), "have 3 numbers, the teacher's 5, and project=False"),
        (
            EmbedMatch(),
            Signals(embedding=torch.zeros(B, 5), documents=torch.zeros(B, 2, 5)),
            "compares each text with itself",
        ),
        (EmbedMatch(), Signals(embedding=torch.zeros(B, 5)), "needs the student's documents: it is for search"),
        (Documents(), Signals(embedding=torch.zeros(B, 5)), "needs the student's documents: it is for search"),
    ],
)
def test_what_does_not_fit_is_told_before_the_first_step(objective: Objective, student: Signals, message: str) -> None:
    with pytest.raises(SignalError, match=message):
        objective.check(student, search(2), batch_of())


def test_documents_shows_them_as_samples() -> None:
    student, teacher = search(1, 3), search(2)
    objective, plain = Documents(ICD(dim=4)), ICD(dim=4)
    torch.manual_seed(0)
    objective.build(student, teacher)
    torch.manual_seed(0)
    shown = [Signals(embedding=one.documents.flatten(0, 1)) for one in (student, teacher) if one.documents is not None]
    plain.build(*shown)
    objective.double(), plain.double()
    found = objective(student, teacher, batch_of())
    wanted = plain(*shown, Batch(torch.zeros(B * M, 1), torch.zeros(B * M, dtype=torch.int64)))
    assert found.keys() == wanted.keys() == {"contrast", "invariance"}
    assert all(torch.equal(found[name], wanted[name]) for name in found)
    objective.check(student, teacher, batch_of())


def test_documents_weighs_each_document_as_its_query() -> None:
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64)
    student, teacher = search(1), search(2)
    seen: list[Tensor | None] = []

    class Watch(Objective):
        needs = frozenset({"embedding"})

        def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
            seen.append(batch.weight)
            assert student.embedding is not None
            return {"watch": student.embedding.sum()}

    Documents(Watch())(student, teacher, batch_of(weight))
    assert seen[0] is not None
    assert seen[0].tolist() == [float(weight[i]) for i in range(B) for _ in range(M)]


@pytest.mark.parametrize("text", ["documents(kd())", "documents(ce() + icd())", "documents(embed_match())"])
def test_documents_takes_what_compares_embeddings(text: str) -> None:
    with pytest.raises(SettingError, match="objectives that compare embeddings must stand inside"):
        parse_objective(text)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (Contrastive, {"temperature": 0}),
        (ListwiseKL, {"temperature": -1}),
        (ListwiseKL, {"teacher_temperature": -1}),
        (EmbedMatch, {"queries": -1}),
        (EmbedMatch, {"queries": 0, "documents": 0}),
        (EmbedMatch, {"project": "yes"}),
    ],
)
def test_settings_out_of_range_are_refused(cls: type[Objective], options: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        cls(**options)
