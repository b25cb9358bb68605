"""Divergences between rows of probabilities, against slow loops; chunks, masks, precision, and the fused projection."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck import losses
from limbeck.losses import chunks
from limbeck.losses.chunks import Projection

Rows = Callable[[list[float], list[float]], float]


def draw(seed: int, *shape: int, size: float = 3.0) -> Tensor:
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    total = sum(math.exp(value / temperature) for value in row)
    return [math.exp(value / temperature) / total for value in row]


def kl(p: list[float], q: list[float]) -> float:
    return sum(p_c * (math.log(p_c) - math.log(q_c)) for p_c, q_c in zip(p, q, strict=True))


def mixture(m: float, p: list[float], q: list[float]) -> list[float]:
    return [m * p_c + (1 - m) * q_c for p_c, q_c in zip(p, q, strict=True)]


def slow_jsd(beta: float) -> Rows:
    def formula(p: list[float], q: list[float]) -> float:
        m = mixture(beta, p, q)
        return beta * kl(p, m) + (1 - beta) * kl(q, m)

    return formula


KINDS: dict[str, tuple[losses.RowLoss, Rows]] = {
    "forward": (losses.FORWARD_KL, kl),
    "reverse": (losses.REVERSE_KL, lambda p, q: kl(q, p)),
    "jsd": (losses.jensen_shannon(), slow_jsd(0.5)),
    "jsd 0.1": (losses.jensen_shannon(0.1), slow_jsd(0.1)),
    "jsd 0.9": (losses.jensen_shannon(0.9), slow_jsd(0.9)),
    "skewed": (losses.skewed_kl(0.1), lambda p, q: kl(p, mixture(0.1, p, q))),
    "skewed back": (losses.skewed_kl(0.1, reverse=True), lambda p, q: kl(q, mixture(0.9, p, q))),
    "total variation": (
        losses.TOTAL_VARIATION,
        lambda p, q: sum(abs(p_c - q_c) for p_c, q_c in zip(p, q, strict=True)) / 2,
    ),
}
every_kind = pytest.mark.parametrize("name", KINDS)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two rows of six."""
    for name, value in (("_OF_LOGITS", 12), ("_OF_PRODUCTS", 12), ("_MOST_CHUNKS", 1000)):
        monkeypatch.setattr(chunks, name, value)


@every_kind
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("shape", [(7,), (3, 2), (2, 3, 2)])
def test_a_divergence_is_its_formula_in_every_row(
    name: str, temperature: float, shape: tuple[int, ...], small_chunks: None
) -> None:
    kind, formula = KINDS[name]
    student, teacher = draw(0, *shape, 6), draw(1, *shape, 6)
    values = losses.divergence(student, teacher, kind, temperature=temperature)
    assert values.shape == shape
    rows = zip(teacher.reshape(-1, 6).tolist(), student.reshape(-1, 6).tolist(), strict=True)
    expected = [formula(softmax(t, temperature), softmax(s, temperature)) for t, s in rows]
    torch.testing.assert_close(values.flatten(), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@every_kind
def test_gradients_are_those_of_the_formula_to_the_second_order(name: str, small_chunks: None) -> None:
    teacher, mask = draw(1, 5, 6), torch.tensor([True, True, False, True, True])

    def loss(student: Tensor) -> Tensor:
        return losses.divergence(student, teacher, KINDS[name][0], temperature=2.0, mask=mask)

    student = draw(0, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(loss, student)
    assert torch.autograd.gradgradcheck(loss, student)


def trl_generalised_jsd(student: Tensor, teacher: Tensor, labels: Tensor, beta: float) -> Tensor:
    """What TRL's GKD trainer computes (``generalized_jsd_loss``, "batchmean"), derived anew from its description.

    The mixture's logarithm by logsumexp, β = 0 and β = 1 apart, and the sum over the labelled positions over their number.
    """
    log_q, log_p = student.log_softmax(-1), teacher.log_softmax(-1)
    if beta == 0:
        values = log_p.exp() * (log_p - log_q)
    elif beta == 1:
        values = log_q.exp() * (log_q - log_p)
    else:
        log_m = torch.stack([log_q + math.log(1 - beta), log_p + math.log(beta)]).logsumexp(0)
        values = beta * log_p.exp() * (log_p - log_m) + (1 - beta) * log_q.exp() * (log_q - log_m)
    return values[labels != -100].sum() / (labels != -100).sum()


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
def test_the_generalised_jensen_shannon_divergence_is_that_of_trl(beta: float) -> None:
    labels = torch.tensor([[1, 2, -100], [3, -100, -100]])
    student, teacher = draw(0, 2, 3, 6).requires_grad_(), draw(1, 2, 3, 6)
    expected = trl_generalised_jsd(student, teacher, labels, beta)
    mask = labels != -100
    found = losses.mean(losses.divergence(student, teacher, losses.jensen_shannon(beta), mask=mask), mask=mask)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    theirs, ours = (torch.autograd.grad(loss, student)[0] for loss in (expected, found))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_skew_of_zero_is_the_plain_divergence() -> None:
    student, teacher = draw(0, 4, 6), draw(1, 4, 6)
    for reverse, kind in ((False, losses.FORWARD_KL), (True, losses.REVERSE_KL)):
        skewed = losses.divergence(student, teacher, losses.skewed_kl(0.0, reverse=reverse))
        assert torch.equal(skewed, losses.divergence(student, teacher, kind))


@every_kind
@given(seed=st.integers(0, 10**6), size=st.floats(0.01, 50))
def test_a_divergence_is_not_negative_zero_for_equal_and_bounded(name: str, seed: int, size: float) -> None:
    kind = KINDS[name][0]
    student, teacher = (draw(seed + i, 4, 6, size=size).float() for i in (0, 1))
    values = losses.divergence(student, teacher, kind)
    bound = {"jsd": math.log(2), "skewed": -math.log(0.1), "skewed back": -math.log(0.1), "total variation": 1.0}
    assert (values >= -1e-6).all()
    assert (values <= bound.get(name, math.inf) + 1e-5).all()
    assert losses.divergence(teacher + 3, teacher, kind).abs().max() < 1e-6 * max(size, 1)


@every_kind
def test_extreme_logits_stay_finite(name: str) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0], [-3e4, 80.0, 100.0]])
    teacher = torch.tensor([[-1e4, 1e4, 0.0], [200.0, -200.0, 0.0], [3e4, -3e4, 0.0]])
    for ours, theirs in ((student, teacher), (teacher, student), (student, student)):
        ours = ours.clone().requires_grad_()
        values = losses.divergence(ours, theirs, KINDS[name][0])
        values.sum().backward()
        assert values.isfinite().all()
        assert ours.grad is not None
        assert ours.grad.isfinite().all()


@every_kind
def test_tokens_that_both_rule_out_count_nothing(name: str) -> None:
    kind = KINDS[name][0]
    student, teacher = draw(0, 3, 6).requires_grad_(), draw(1, 3, 6)
    without = losses.divergence(student, teacher, kind)
    (expected,) = torch.autograd.grad(without.sum(), student)
    padded, other = (torch.nn.functional.pad(rows, (0, 2), value=-math.inf) for rows in (student.detach(), teacher))
    padded.requires_grad_()
    values = losses.divergence(padded, other, kind)
    (gradient,) = torch.autograd.grad(values.sum(), padded)
    torch.testing.assert_close(values, without)
    torch.testing.assert_close(gradient, torch.nn.functional.pad(expected, (0, 2)))


@every_kind
def test_bfloat16_logits_give_the_values_of_the_same_numbers_and_gradients_rounded_once(name: str) -> None:
    lowered = [draw(i, 4, 50).bfloat16() for i in (0, 1)]
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        student = lowered[0].to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            values = losses.divergence(student, lowered[1].to(dtype), KINDS[name][0])
        results.append((values, torch.autograd.grad(values.sum(), student)[0]))
    (values, gradient), (expected, plain) = results
    assert gradient.dtype == torch.bfloat16
    assert torch.equal(values, expected)
    assert torch.equal(gradient, plain.bfloat16())


@every_kind
def test_float32_agrees_with_float64_over_a_large_vocabulary(name: str) -> None:
    rounded, teacher = draw(0, 2, 128_000).float().requires_grad_(), draw(1, 2, 128_000).float().double()
    student = rounded.detach().double().requires_grad_()
    exact = losses.divergence(student, teacher, KINDS[name][0])
    values = losses.divergence(rounded, teacher.float(), KINDS[name][0])
    torch.testing.assert_close(values.double(), exact, rtol=1e-5, atol=1e-6)
    (expected,) = torch.autograd.grad(exact.sum(), student)
    (found,) = torch.autograd.grad(values.sum(), rounded)
    assert float((found.double() - expected).abs().max() / expected.abs().max()) < 5e-5


@every_kind
def test_chunks_of_strided_logits_are_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, mask = KINDS[name][0], torch.tensor([[True, False, True], [False, True, True], [True, True, True]])
    student, teacher = draw(0, 3, 4, 6).requires_grad_(), draw(1, 3, 4, 6)

    def both() -> tuple[Tensor, Tensor]:
        values = losses.divergence(student[:, :-1], teacher[:, 1:], kind, mask=mask)
        return values.detach(), torch.autograd.grad(values.square().sum(), student)[0]

    whole = both()
    for numbers in (1, 13, 30):  # one row, two, and a sample of three with two over
        monkeypatch.setattr(chunks, "_OF_LOGITS", numbers)
        torch.testing.assert_close(both(), whole, rtol=1e-12, atol=1e-15)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 40), st.integers(1, 60))
def test_the_pieces_cover_every_row_once(leading: list[int], width: int, numbers: int) -> None:
    seen = torch.zeros(*leading, dtype=torch.int64)
    for piece in chunks._pieces((*leading, width), numbers):
        rows = seen[piece]
        assert rows.numel() <= max(numbers // width, -(-seen.numel() // 64), 1)
        rows += 1
    assert (seen == 1).all()


# -- with the projection -----------------------------------------------------------------------------------------------


def projections(dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor]]:
    """Hidden states, weight and bias of a student of width 4 and a teacher of width 5, for 7 rows of 6 classes."""
    student = [draw(0, 7, 4), draw(1, 6, 4, size=1), draw(2, 6, size=1)]
    teacher = [draw(3, 7, 5), draw(4, 6, 5, size=1), draw(5, 6, size=1)]
    return [part.to(dtype).requires_grad_() for part in student], [part.to(dtype) for part in teacher]


@every_kind
@pytest.mark.parametrize("bias", [True, False])
def test_the_fused_projection_is_the_divergence_of_its_logits(name: str, bias: bool, small_chunks: None) -> None:
    kind, mask = KINDS[name][0], torch.tensor([True, False, True, True, True, False, True])
    student, teacher = (parts if bias else parts[:2] for parts in projections())
    logits = (torch.nn.functional.linear(*parts) for parts in (student, teacher))
    plain = losses.divergence(*logits, kind, temperature=2.0, mask=mask)
    fused = losses.projected_divergence(Projection(*student), Projection(*teacher), kind, temperature=2.0, mask=mask)
    torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-12)
    upstream = draw(9, 7)
    expected, found = (torch.autograd.grad(values, student, upstream) for values in (plain, fused))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_the_fused_cross_entropy_is_that_of_its_logits(small_chunks: None) -> None:
    student, _ = projections()
    labels = torch.tensor([0, 5, -100, 3, 3, -100, 1])
    plain = losses.cross_entropy(torch.nn.functional.linear(*student), labels, label_smoothing=0.1)
    fused = losses.projected_cross_entropy(Projection(*student), labels, label_smoothing=0.1)
    torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-12)
    expected, found = (torch.autograd.grad(values.sum(), student) for values in (plain, fused))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_masked_hidden_states_may_be_anything(small_chunks: None) -> None:
    student, teacher = projections()
    mask = torch.tensor([True, False, True, True, True, False, True])
    results = []
    for filler in (0.0, math.nan):
        hidden, told = (parts[0].detach().where(mask[:, None], filler) for parts in (student, teacher))
        hidden.requires_grad_()
        inputs = [hidden, *student[1:]]
        values = losses.projected_divergence(Projection(*inputs), Projection(told, *teacher[1:]), mask=mask)
        results.append((values.detach(), *torch.autograd.grad(values.sum(), inputs)))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    assert (results[1][1][~mask] == 0).all()


def test_a_frozen_layer_and_leading_axes() -> None:
    student, teacher = projections()
    hidden = student[0].detach()[:6].view(2, 3, 4).requires_grad_()
    told = Projection(teacher[0][:6].view(2, 3, 5), *teacher[1:])
    layer = [part.detach() for part in student[1:]]
    values = losses.projected_divergence(Projection(hidden, *layer), told)
    assert values.shape == (2, 3)
    (found,) = torch.autograd.grad(values.sum(), hidden)
    plain = losses.divergence(torch.nn.functional.linear(hidden, *layer), torch.nn.functional.linear(*told))
    torch.testing.assert_close(found, torch.autograd.grad(plain.sum(), hidden)[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("autocast", [True, False])
def test_the_fused_projection_in_half_precision(autocast: bool) -> None:
    student, teacher = projections(torch.float32 if autocast else torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        values = losses.projected_divergence(Projection(*student), Projection(*teacher))
        plain = losses.divergence(torch.nn.functional.linear(*student), torch.nn.functional.linear(*teacher))
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, plain, rtol=1e-6, atol=1e-6)
    expected, found = (torch.autograd.grad(v.sum(), student) for v in (plain, values))
    for like, ours, theirs in zip(student, found, expected, strict=True):
        assert ours.dtype == like.dtype
        torch.testing.assert_close(ours, theirs, rtol=3e-2, atol=3e-2)


@pytest.mark.slow
def test_the_fused_projection_compiles_whole(small_chunks: None) -> None:
    def loss(hidden: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, *told: Tensor) -> Tensor:
        return losses.projected_divergence(
            Projection(hidden, weight, bias), Projection(*told), losses.jensen_shannon(), mask=mask
        ).sum()

    student, teacher = projections(torch.float32)
    mask = torch.tensor([True, False, True, True, True, False, True])
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    expected, found = (torch.autograd.grad(form(*student, mask, *teacher), student) for form in (loss, compiled))
    torch.testing.assert_close(found, expected)


# -- vocabularies that differ ------------------------------------------------------------------------------------------


def slow_sorted_distance(p: list[float], q: list[float]) -> float:
    longest = max(len(p), len(q))
    p, q = (sorted(row, reverse=True) + [0.0] * (longest - len(row)) for row in (p, q))
    return sum(abs(p_k - q_k) for p_k, q_k in zip(p, q, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize(("ours", "theirs"), [(6, 6), (4, 6), (6, 4)])
def test_the_sorted_distance_is_its_formula(ours: int, theirs: int, temperature: float, small_chunks: None) -> None:
    student, teacher = draw(0, 5, ours).requires_grad_(), draw(1, 5, theirs)
    values = losses.sorted_distance(student, teacher, temperature=temperature)
    expected = [
        slow_sorted_distance(softmax(t, temperature), softmax(s, temperature))
        for t, s in zip(teacher.tolist(), student.tolist(), strict=True)
    ]
    torch.testing.assert_close(values.tolist(), expected, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda rows: losses.sorted_distance(rows, teacher, temperature=temperature), student
    )


def test_the_sorted_distance_minds_neither_which_token_nor_the_size_of_the_vocabulary() -> None:
    student = draw(0, 4, 6)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    assert losses.sorted_distance(student[:, order], student).abs().max() < 1e-12
    longer = torch.nn.functional.pad(student[:, order], (0, 3), value=-math.inf)
    assert losses.sorted_distance(longer, student).abs().max() < 1e-12
    assert losses.sorted_distance(student, longer).abs().max() < 1e-12
