"""Retrieval from a database against a slow reference, query by query."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limbeck.errors import DataError, SettingError
from limbeck.evaluate import database as module
from limbeck.evaluate.database import database_retrieval


def slow_order(query: list[float], database: list[list[float]], metric: str) -> list[int]:
    def nearness(row: list[float]) -> float:
        if metric == "l2":
            return -sum((a - b) ** 2 for a, b in zip(query, row, strict=True))
        lengths = math.hypot(*query) * math.hypot(*row)
        return sum(a * b for a, b in zip(query, row, strict=True)) / lengths

    return sorted(range(len(database)), key=lambda n: -nearness(database[n]))


def slow_eleven_points(relevant: list[bool]) -> Fraction:
    total, points = sum(relevant), []
    for level in range(11):
        reached = [
            Fraction(sum(relevant[:rank]), rank)
            for rank in range(1, len(relevant) + 1)
            if Fraction(sum(relevant[:rank]), total) >= Fraction(level, 10)
        ]
        points.append(max(reached))
    return sum(points, Fraction(0)) / 11


def draw(count: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, 4, generator=generator)
    return rows, torch.randint(0, classes, (count,), generator=generator)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 30), st.integers(1, 5), st.integers(0, 10**6), st.sampled_from(["cosine", "l2"])
)
def test_figures_are_those_of_the_slow_reference(
    queries: int, images: int, classes: int, seed: int, metric: str
) -> None:
    (rows, labels), (database, database_labels) = draw(queries, classes, seed), draw(images, classes, seed + 1)
    labels[0] = database_labels[0]
    top = 1 + seed % images
    found = database_retrieval(rows, labels, database, database_labels, metric=metric, top=top)
    precisions, firsts, shares = [], [], []
    for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
        order = slow_order(row, database.tolist(), metric)
        relevant = [database_labels[n].item() == label for n in order]
        if any(relevant):
            precisions.append(slow_eleven_points(relevant))
            firsts.append(Fraction(sum(relevant[:top]), top))
            shares.append(Fraction(sum(relevant), images))
    count = len(precisions)
    assert (found.queries, found.database, found.top, found.metric) == (count, images, top, metric)
    expected = [float(sum(values, Fraction(0)) / count) for values in (precisions, firsts, shares)]
    assert [found.map, found.precision, found.chance] == pytest.approx(expected, abs=1e-12)


def test_two_queries_by_hand() -> None:
    database, labels = torch.tensor([[1.0], [2], [3], [4]]), torch.tensor([0, 1, 0, 1])
    found = database_retrieval(torch.tensor([[0.0], [5]]), torch.tensor([0, 0]), database, labels, metric="l2", top=2)
    # From 0 the order is 0 1 0 1: precision 1 up to recall 0.5, 2/3 beyond. From 5 it is 1 0 1 0: 1/2 all along.
    assert found.map == pytest.approx(((6 * 1 + 5 * 2 / 3) / 11 + 1 / 2) / 2)
    assert found.precision == 0.5
    assert found.chance == 0.5


def test_lengths_matter_for_l2_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    (rows, labels), (database, database_labels) = draw(20, 3, 0), draw(50, 3, 1)
    scaled = database * (0.1 + 10 * torch.rand(50, 1, generator=generator))
    near, far = (
        database_retrieval(rows, labels, each, database_labels, metric="cosine", top=9) for each in (database, scaled)
    )
    assert near == far
    near, far = (
        database_retrieval(rows, labels, each, database_labels, metric="l2", top=9) for each in (database, scaled)
    )
    assert near != far


def test_a_shift_of_everything_changes_nothing_for_l2() -> None:
    (rows, labels), (database, database_labels) = draw(20, 3, 0), draw(50, 3, 1)
    plain = database_retrieval(rows, labels, database, database_labels, metric="l2", top=9)
    assert database_retrieval(rows + 500, labels, database + 500, database_labels, metric="l2", top=9) == plain


def test_what_is_looked_at_at_a_time_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    (rows, labels), (database, database_labels) = draw(37, 3, 0), draw(50, 3, 1)
    whole = database_retrieval(rows, labels, database, database_labels, metric="cosine", top=10)
    seen = []
    sort = Tensor.argsort
    monkeypatch.setattr(Tensor, "argsort", lambda self, **keywords: seen.append(self.shape) or sort(self, **keywords))
    monkeypatch.setattr(module, "_ENTRIES", 250)
    parted = database_retrieval(rows, labels, database, database_labels, metric="cosine", top=10)
    assert [parted.map, parted.precision] == pytest.approx([whole.map, whole.precision], abs=1e-12)
    assert seen == [(5, 50)] * 7 + [(2, 50)]


def test_equal_images_stand_in_the_order_of_the_database() -> None:
    labels = torch.tensor([0, 1, 1, 1])
    for metric in ("cosine", "l2"):
        found = database_retrieval(torch.ones(1, 2), labels[:1], torch.ones(4, 2), labels, metric=metric, top=1)
        assert (found.map, found.precision) == (1.0, 1.0)


def test_queries_without_an_image_of_their_class_are_left_out() -> None:
    database, labels = draw(30, 2, 0)
    found = database_retrieval(database, labels, database, labels, metric="cosine", top=5)
    strangers = database_retrieval(
        torch.cat([database, torch.randn(3, 4)]),
        torch.cat([labels, torch.full((3,), 7)]),
        database,
        labels,
        metric="cosine",
        top=5,
    )
    assert strangers == found


ROWS, LABELS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.arange(4)


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"metric": "l1"}, SettingError, r"metric: unknown value 'l1'"),
        ({"top": 0}, SettingError, r"top must be a whole number of at least 1"),
        ({"top": 5}, DataError, r"the database has 4 images, and the first 5 are asked for"),
        ({"database": ROWS[:, :2]}, DataError, r"queries have 3 numbers each and the database 2"),
        ({"query_labels": LABELS[:2]}, DataError, r"the queries must be embeddings \(N, D\) with labels \(N,\)"),
        ({"queries": ROWS / 0}, DataError, r"an embedding of the queries is not finite"),
        ({"query_labels": LABELS + 9}, DataError, r"it has none of theirs"),
    ],
)
def test_mistakes_are_sentences(changes: dict[str, object], error: type[Exception], sentence: str) -> None:
    given = {"queries": ROWS, "query_labels": LABELS, "database": ROWS, "database_labels": LABELS, "metric": "l2"}
    with pytest.raises(error, match=sentence):
        database_retrieval(**{**given, "top": 2, **changes})  # type: ignore[arg-type]
