"""The checks of the contract on logits, embeddings and maps, each in one process."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping

import torch
from torch import Tensor

from limbeck.objectives import Objective, parse_objective
from limbeck.signals import Batch, Signals
from limbeck.testing.samples import (
    BATCH,
    build_for_samples,
    built,
    learning,
    loss_of,
    parts_of,
    peers_of,
    per_position_parts,
    rows_of,
    sample_batch,
    sample_tokens,
    student_for,
    teacher_for,
    tensors_of,
    terms_of,
)


def check_finite(expression: str) -> None:
    """Values and gradients are finite in float32 and under bfloat16 autocast, and the loss is a float32 scalar."""
    for autocast in (False, True):
        objective = built(expression)
        student = learning(student_for(objective))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            terms = objective(student, teacher_for(objective), sample_batch())
        assert all(term.shape == () for term in terms.values()), f"{expression}: the terms must be scalars"
        loss = torch.stack(list(terms.values())).sum()
        assert loss.dtype == torch.float32, f"{expression}: the loss is {loss.dtype}, not float32"
        assert loss.isfinite(), f"{expression}: the loss is {loss.item()}"
        loss.backward()
        gradients = [t.grad for t in (*tensors_of(student), *objective.parameters()) if t.grad is not None]
        assert all(g.isfinite().all() for g in gradients), f"{expression}: a gradient is NaN or infinite"


def check_student_learns(expression: str) -> None:
    """At least one of the student's signals gets a gradient that is not zero."""
    objective = built(expression)
    student = learning(student_for(objective))
    loss_of(objective, student, teacher_for(objective), sample_batch()).backward()
    assert any(t.grad is not None and t.grad.abs().sum() > 0 for t in tensors_of(student)), (
        f"{expression}: teaches nothing"
    )


def check_teacher_fixed(expression: str) -> None:
    """No gradient reaches the teacher, even where its signals ask for one."""
    objective = built(expression)
    for part in parts_of(objective):
        teacher = learning(teacher_for(objective))
        loss_of(part, learning(student_for(objective)), teacher, sample_batch()).backward()
        assert all(t.grad is None for t in tensors_of(teacher)), f"{part}: the teacher got a gradient"


def check_parameters_learn(expression: str) -> None:
    """Every parameter of the objective gets a gradient that is not zero, but those in ``dead_parameters``."""
    objective = built(expression)
    loss_of(objective, learning(student_for(objective)), teacher_for(objective), sample_batch()).backward()
    for name, parameter in objective.named_parameters():
        moved = parameter.grad is not None and float(parameter.grad.abs().sum()) > 1e-6
        assert moved != (name in objective.dead_parameters), (
            f"{expression}: the parameter {name} {'learns though it is declared dead' if moved else 'gets no gradient'}"
        )


def check_zero_when_equal(expression: str) -> None:
    """Parts that say so are zero for a student whose signals are the teacher's."""
    for _, _, part in parse_objective(expression).entries():
        if part.zero_when_equal:
            signals = learning(student_for(part))
            part.build(signals, signals)
            loss = loss_of(part, signals, signals.detach(), sample_batch())
            assert loss.abs() < 1e-6, f"{part}: is {loss.item()} for student = teacher"


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether the same terms have the same values, each to the precision in which it was answered."""

    # The loss was given float64; a term that is answered in float32 was computed in it and can be held to no more.
    def close(a: Tensor, b: Tensor) -> bool:
        exact = a.dtype == torch.float64
        return torch.allclose(a, b, rtol=1e-9 if exact else 1e-5, atol=1e-12 if exact else 1e-6)

    return one.keys() == other.keys() and all(close(value, other[term]) for term, value in one.items())


def check_permutation(expression: str) -> None:
    """The order of the samples in a batch does not matter, unless ``order_free`` is False: then it does."""
    objective, order = built(expression, torch.float64), torch.randperm(BATCH)
    student, teacher, batch = (
        student_for(objective, torch.float64),
        teacher_for(objective, torch.float64),
        sample_batch(),
    )
    plain = terms_of(objective, student, teacher, batch)
    shuffled = terms_of(objective, student.map(lambda v: v[order]), teacher.map(lambda v: v[order]), batch[order])
    assert _equal(plain, shuffled) == objective.order_free, (
        f"{expression}: {'depends' if objective.order_free else 'does not depend'} on the order of the batch, and "
        f"order_free is {objective.order_free}"
    )


def check_micro_batches(expression: str) -> None:
    """Two halves of a batch average to the whole, unless ``batch_coupled`` says that they do not."""
    objective = built(expression, torch.float64)
    student, teacher, batch = (
        student_for(objective, torch.float64),
        teacher_for(objective, torch.float64),
        sample_batch(),
    )
    whole = terms_of(objective, student, teacher, batch)
    half = BATCH // 2
    first, second = (
        terms_of(objective, rows_of(student, rows), rows_of(teacher, rows), batch[rows])
        for rows in (slice(0, half), slice(half, BATCH))
    )
    equal = _equal(whole, {term: (value + second[term]) / 2 for term, value in first.items()})
    assert equal != objective.batch_coupled, (
        f"{expression}: micro-batches {'equal' if equal else 'do not equal'} the batch, and batch_coupled is "
        f"{objective.batch_coupled}"
    )


def check_state_dict(expression: str) -> None:
    """Saved and loaded, or copied, it computes the same; after a first call too, which may leave something behind."""
    objective = built(expression)
    teacher = teacher_for(objective)
    loss_of(objective, student_for(objective), teacher, sample_batch())
    buffer = io.BytesIO()
    torch.save(objective.state_dict(), buffer)
    buffer.seek(0)
    loaded = parse_objective(expression)
    # Other numbers than the original drew, so that what is not saved shows.
    build_for_samples(loaded, seed=1)
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    others = (loaded, copy.deepcopy(objective))
    expected = loss_of(objective, student_for(objective), teacher, sample_batch())
    for other in others:
        assert torch.equal(loss_of(other, student_for(objective), teacher, sample_batch()), expected), (
            f"{expression}: changed by saving"
        )


def check_expression(expression: str) -> None:
    """Written as text and read again, it is the same objective."""
    objective = parse_objective(expression)
    text = objective.expression()
    again = parse_objective(text)
    same = again.expression() == text and again.weights == objective.weights
    assert same, f"{expression}: is written as {text}, which reads as {again.expression()}"


def check_compiles(expression: str, backend: str = "aot_eager") -> None:
    """``torch.compile`` takes it without a graph break, and the value and gradients stay the same; of token models too.

    backend: of ``torch.compile``. ``"eager"`` only traces, in half the time; ``"aot_eager"`` also differentiates the trace, as
    a compiled training step does.
    """
    objective = built(expression)
    _compare_compiled(backend, expression, objective, student_for(objective), teacher_for(objective), sample_batch())
    for part in per_position_parts(expression):
        _compare_compiled(backend, expression, part, *sample_tokens(peers=peers_of(part)))


def _compare_compiled(
    backend: str, expression: str, objective: Objective, student: Signals, teacher: Signals, batch: Batch
) -> None:
    plain_student, compiled_student, other = learning(student), learning(student), copy.deepcopy(objective)
    plain = loss_of(objective, plain_student, teacher, batch)
    plain.backward()
    torch.compiler.reset()
    compiled = torch.compile(other, backend=backend, fullgraph=True)
    try:
        loss = loss_of(compiled, compiled_student, teacher, batch)
        loss.backward()
    except torch._dynamo.exc.TorchDynamoException as error:
        raise AssertionError(f"{expression}: torch.compile cannot take it whole: {error}") from error
    assert torch.allclose(loss, plain, rtol=1e-5, atol=1e-7), (
        f"{expression}: compiled it is {loss}, plain it is {plain}"
    )
    for eager, traced in zip(tensors_of(plain_student), tensors_of(compiled_student), strict=True):
        assert (eager.grad is None) == (traced.grad is None), f"{expression}: compiled it teaches other signals"
        if eager.grad is not None and traced.grad is not None:
            assert torch.allclose(eager.grad, traced.grad, rtol=1e-4, atol=1e-6), (
                f"{expression}: compiled gradients differ"
            )
