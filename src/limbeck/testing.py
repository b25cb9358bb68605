"""The contract every objective keeps, as checks that anyone can run on their own objective.

    from limbeck.testing import check_objective
    check_objective("focal(gamma=2)")

Each check takes an objective's expression and raises AssertionError with what is wrong.
"""

from __future__ import annotations

import copy
import io
import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException, start_processes

from limbeck.objectives import Objective, WeightedSum, parse_objective
from limbeck.signals import IGNORED, Batch, Signals

SignalsOrBatch = TypeVar("SignalsOrBatch", Signals, Batch)

BATCH, CLASSES = 8, 5
_STEM = (3, 8)
_STUDENT_MAPS = {"stage1": (4, 8), "stage2": (6, 4)}
_TEACHER_MAPS = {"stage1": (6, 8), "stage2": (8, 4)}


def sample_signals(
    seed: int,
    *,
    embedding_size: int = 6,
    maps: Mapping[str, tuple[int, int]] = _STUDENT_MAPS,
    peers: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Signals:
    """Random signals of a network for a batch of 8.

    Logits (8, 5), those of attacked images, an embedding, a stem, two stages before and after their ReLU, and the constants of
    a network with such signals. ``maps`` gives (channels, side) of each stage. With ``peers`` there are the logits of so many
    networks beside it, and a trunk, which is the first stage.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    logits, embedding_map = draw(BATCH, CLASSES), draw(BATCH, embedding_size, 4, 4)
    embedding = embedding_map.mean(dim=(2, 3)) * 4  # as large as the other signals
    before = {name: draw(BATCH, channels, side, side) for name, (channels, side) in maps.items()}
    constants = {"classifier.weight": draw(CLASSES, embedding_size), "classifier.bias": draw(CLASSES)}
    for name, (channels, _) in maps.items():
        constants |= {f"{name}.shift": draw(channels), f"{name}.scale": draw(channels)}
    stem = draw(BATCH, _STEM[0], _STEM[1], _STEM[1])
    return Signals(
        logits=logits,
        embedding=embedding,
        embedding_map=embedding_map * 4,
        features={name: value.relu() for name, value in before.items()},
        preactivations=before,
        stem=stem,
        attacked=draw(BATCH, CLASSES),
        peers=draw(BATCH, peers, CLASSES) if peers else None,
        trunk=next(iter(before.values())).relu() if peers else None,
        constants=constants,
    )


def sample_batch(seed: int = 0) -> Batch:
    """A batch of 8 samples with labels among 5 classes, indices and views, of which three were attacked."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    return Batch(
        torch.zeros(BATCH, 1),
        labels,
        index=torch.arange(BATCH),
        view=torch.zeros(BATCH, dtype=torch.int64),
        attacked=torch.tensor([2, -1, 0, -1, -1, 1, -1, -1]),
    )


def sample_tokens(dtype: torch.dtype = torch.float32, *, peers: int = 0) -> tuple[Signals, Signals, Batch]:
    """Student, teacher and batch of a token model: logits (8, 4, 5), masks with 1 to 4 positions, labels -100 elsewhere.

    With ``peers`` the student has the logits (8, peers, 4, 5) of so many networks beside it.
    """
    mask = torch.arange(4)[None, :] < torch.tensor([4, 2, 3, 1, 4, 4, 2, 1])[:, None]
    logits = torch.randn(2, BATCH, 4, CLASSES, generator=torch.Generator().manual_seed(0), dtype=dtype)
    labels = torch.randint(0, CLASSES, (BATCH, 4), generator=torch.Generator().manual_seed(1))
    student, teacher = (Signals(logits=values, mask=mask) for values in logits)
    if peers:
        beside = torch.randn(BATCH, peers, 4, CLASSES, generator=torch.Generator().manual_seed(2), dtype=dtype)
        student = replace(student, peers=beside)
    return student, teacher, replace(sample_batch(), labels=labels.where(mask, IGNORED))


def built(expression: str, dtype: torch.dtype = torch.float32) -> WeightedSum:
    """The objective, with heads for :func:`sample_signals` of a student and of a wider teacher."""
    objective = parse_objective(expression)
    build_for_samples(objective, dtype)
    return objective.to(dtype)


def build_for_samples(objective: Objective, dtype: torch.dtype = torch.float32, *, seed: int = 0) -> None:
    """Build heads for the sample signals and a training set of 40 samples whose first 8 are the sample batch."""
    torch.manual_seed(seed)
    if "index" in objective.needs:
        objective.set_training_labels(torch.cat([sample_batch().labels, torch.arange(32) % CLASSES]))
    objective.build(_student(objective, dtype), _teacher(objective, dtype))


def _student(objective: Objective, dtype: torch.dtype = torch.float32) -> Signals:
    return sample_signals(1, peers=_peers(objective), dtype=dtype)


def _peers(objective: Objective) -> int:
    asked = objective.companions()
    return 0 if asked is None else asked.count


def _teacher(objective: Objective, dtype: torch.dtype = torch.float32) -> Signals:
    equal = any(part.equal_channels for part in _parts(objective))
    return sample_signals(2, embedding_size=7, maps=_STUDENT_MAPS if equal else _TEACHER_MAPS, dtype=dtype)


def _parts(objective: Objective) -> list[Objective]:
    return [part for _, _, part in objective.entries()] if isinstance(objective, WeightedSum) else [objective]


def _learning(signals: Signals) -> Signals:
    return signals.map(lambda value: value.detach().clone().requires_grad_())


def _tensors(signals: Signals) -> list[Tensor]:
    return list(signals.tensors().values())


def _rows(signals: Signals, rows: slice) -> Signals:
    return signals.map(lambda value: value[rows])


def _terms_of(objective: Objective, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
    """The terms that a fresh copy gives: what it draws and what it remembers are the same each time."""
    torch.manual_seed(0)
    return copy.deepcopy(objective)(student, teacher, batch)


def loss_of(objective: Callable[..., dict[str, Tensor]], student: Signals, teacher: Signals, batch: Batch) -> Tensor:
    """The sum of the terms; random numbers start from the same seed each time."""
    torch.manual_seed(0)
    return torch.stack(list(objective(student, teacher, batch).values())).sum()


def check_finite(expression: str) -> None:
    """Values and gradients are finite in float32 and under bfloat16 autocast, and the loss is a float32 scalar."""
    for autocast in (False, True):
        objective = built(expression)
        student = _learning(_student(objective))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            terms = objective(student, _teacher(objective), sample_batch())
        assert all(term.shape == () for term in terms.values()), f"{expression}: the terms must be scalars"
        loss = torch.stack(list(terms.values())).sum()
        assert loss.dtype == torch.float32, f"{expression}: the loss is {loss.dtype}, not float32"
        assert loss.isfinite(), f"{expression}: the loss is {loss.item()}"
        loss.backward()
        gradients = [t.grad for t in (*_tensors(student), *objective.parameters()) if t.grad is not None]
        assert all(g.isfinite().all() for g in gradients), f"{expression}: a gradient is NaN or infinite"


def check_student_learns(expression: str) -> None:
    """At least one of the student's signals gets a gradient that is not zero."""
    objective = built(expression)
    student = _learning(_student(objective))
    loss_of(objective, student, _teacher(objective), sample_batch()).backward()
    assert any(t.grad is not None and t.grad.abs().sum() > 0 for t in _tensors(student)), (
        f"{expression}: teaches nothing"
    )


def check_teacher_fixed(expression: str) -> None:
    """No gradient reaches the teacher, even where its signals ask for one."""
    objective = built(expression)
    for part in _parts(objective):
        teacher = _learning(_teacher(objective))
        loss_of(part, _learning(_student(objective)), teacher, sample_batch()).backward()
        assert all(t.grad is None for t in _tensors(teacher)), f"{part}: the teacher got a gradient"


def check_parameters_learn(expression: str) -> None:
    """Every parameter of the objective gets a gradient that is not zero, but those in ``dead_parameters``."""
    objective = built(expression)
    loss_of(objective, _learning(_student(objective)), _teacher(objective), sample_batch()).backward()
    for name, parameter in objective.named_parameters():
        moved = parameter.grad is not None and float(parameter.grad.abs().sum()) > 1e-6
        assert moved != (name in objective.dead_parameters), (
            f"{expression}: the parameter {name} {'learns though it is declared dead' if moved else 'gets no gradient'}"
        )


def check_zero_when_equal(expression: str) -> None:
    """Parts that say so are zero for a student whose signals are the teacher's."""
    for _, _, part in parse_objective(expression).entries():
        if part.zero_when_equal:
            signals = _learning(_student(part))
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
    student, teacher, batch = _student(objective, torch.float64), _teacher(objective, torch.float64), sample_batch()
    plain = _terms_of(objective, student, teacher, batch)
    shuffled = _terms_of(objective, student.map(lambda v: v[order]), teacher.map(lambda v: v[order]), batch[order])
    assert _equal(plain, shuffled) == objective.order_free, (
        f"{expression}: {'depends' if objective.order_free else 'does not depend'} on the order of the batch, and "
        f"order_free is {objective.order_free}"
    )


def check_micro_batches(expression: str) -> None:
    """Two halves of a batch average to the whole, unless ``batch_coupled`` says that they do not."""
    objective = built(expression, torch.float64)
    student, teacher, batch = _student(objective, torch.float64), _teacher(objective, torch.float64), sample_batch()
    whole = _terms_of(objective, student, teacher, batch)
    half = BATCH // 2
    first, second = (
        _terms_of(objective, _rows(student, rows), _rows(teacher, rows), batch[rows])
        for rows in (slice(0, half), slice(half, BATCH))
    )
    equal = _equal(whole, {term: (value + second[term]) / 2 for term, value in first.items()})
    assert equal != objective.batch_coupled, (
        f"{expression}: micro-batches {'equal' if equal else 'do not equal'} the batch, and batch_coupled is "
        f"{objective.batch_coupled}"
    )


def check_mask(expression: str) -> None:
    """Objectives for token models: masked positions have no effect and get no gradient, whatever stands there, NaN too.

    Nor does it matter on which side of a sample they are.
    """
    for part in _per_position(expression):
        student, teacher, batch = sample_tokens(peers=_peers(part))
        expected, gradients = _of_tokens(part, student, teacher, batch)
        mask = student.mask
        assert mask is not None
        assert (gradients[~mask] == 0).all(), f"{part}: masked positions get a gradient"
        for filler in (1e4, torch.nan):
            value, found = _of_tokens(part, _garbled(student, filler), _garbled(teacher, filler), batch)
            assert torch.equal(value, expected), f"{part}: masked positions change the loss"
            assert torch.equal(found, gradients), f"{part}: masked positions change the gradient"
        value, found = _of_tokens(part, _turned(student), _turned(teacher), _turned(batch))
        same = torch.allclose(value, expected, rtol=1e-5) and torch.allclose(found.flip(1), gradients, atol=1e-6)
        assert same, f"{part}: padding on the left and on the right differ"


def check_tokens(expression: str) -> None:
    """Objectives for token models: the mean over the positions that count.

    Parts of a batch, weighed by the share of its positions that they hold, add up to the whole; in bfloat16 the loss is a
    finite float32 number with finite gradients.
    """
    for part in _per_position(expression):
        student, teacher, batch = sample_tokens(peers=_peers(part))
        value, gradients = _of_tokens(part, student.map(Tensor.bfloat16), teacher.map(Tensor.bfloat16), batch)
        assert value.dtype == torch.float32, f"{part}: the loss of bfloat16 logits is {value.dtype}, not float32"
        finite = bool(value.isfinite()) and bool(gradients.isfinite().all())
        assert finite, f"{part}: bfloat16 logits give NaN or an infinite number"
        student, teacher, batch = sample_tokens(torch.float64, peers=_peers(part))
        whole = _terms_of(part, student, teacher, batch)
        total = {term: torch.zeros_like(value) for term, value in whole.items()}
        for some in (slice(0, 3), slice(3, BATCH)):
            ours, theirs = (replace(_rows(s, some), mask=_mask_of(s)[some]) for s in (student, teacher))
            share = (batch.labels[some] != IGNORED).sum() / (batch.labels != IGNORED).sum()
            for term, value in _terms_of(part, ours, theirs, batch[some]).items():
                total[term] += share.double() * value
        equal = all(torch.allclose(total[term], value, rtol=1e-6) for term, value in whole.items())
        assert equal != part.batch_coupled, (
            f"{part}: parts of a batch of tokens {'add' if equal else 'do not add'} up to the whole, and batch_coupled is "
            f"{part.batch_coupled}"
        )


def _per_position(expression: str) -> list[Objective]:
    return [part for _, _, part in parse_objective(expression).entries() if part.per_position]


def _of_tokens(part: Objective, student: Signals, teacher: Signals, batch: Batch) -> tuple[Tensor, Tensor]:
    """The loss and its gradient with respect to the logits of the student and of the networks beside it, (B, L, …)."""
    student = _learning(student)
    loss = torch.stack(list(_terms_of(part, student, teacher, batch).values())).sum()
    loss.backward()
    assert student.logits is not None
    assert student.logits.grad is not None
    if student.peers is None:
        return loss.detach(), student.logits.grad
    assert student.peers.grad is not None
    return loss.detach(), torch.cat([student.logits.grad, *student.peers.grad.unbind(1)], dim=-1)


def _garbled(signals: Signals, filler: float) -> Signals:
    """With a number at the masked positions that has no place there."""
    mask = _mask_of(signals)[..., None]
    return signals.map(lambda value: value.where(mask if value.ndim == mask.ndim else mask[:, None], filler))


def _turned(what: SignalsOrBatch) -> SignalsOrBatch:
    """Every sample's positions from the last to the first."""
    if isinstance(what, Batch):
        return replace(what, labels=what.labels.flip(1))
    return replace(what.map(lambda value: value.flip(-2)), mask=_mask_of(what).flip(1))


def _mask_of(signals: Signals) -> Tensor:
    assert signals.mask is not None
    return signals.mask


def check_state_dict(expression: str) -> None:
    """Saved and loaded, or copied, it computes the same; after a first call too, which may leave something behind."""
    objective = built(expression)
    teacher = _teacher(objective)
    loss_of(objective, _student(objective), teacher, sample_batch())
    buffer = io.BytesIO()
    torch.save(objective.state_dict(), buffer)
    buffer.seek(0)
    loaded = parse_objective(expression)
    # Other numbers than the original drew, so that what is not saved shows.
    build_for_samples(loaded, seed=1)
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    others = (loaded, copy.deepcopy(objective))
    expected = loss_of(objective, _student(objective), teacher, sample_batch())
    for other in others:
        assert torch.equal(loss_of(other, _student(objective), teacher, sample_batch()), expected), (
            f"{expression}: changed by saving"
        )


def check_expression(expression: str) -> None:
    """Written as text and read again, it is the same objective."""
    objective = parse_objective(expression)
    text = objective.expression()
    again = parse_objective(text)
    same = again.expression() == text and again.weights == objective.weights
    assert same, f"{expression}: is written as {text}, which reads as {again.expression()}"


def check_compiles(expression: str) -> None:
    """``torch.compile`` takes it without a graph break, and the value and gradients stay the same; of token models too."""
    objective = built(expression)
    _compare_compiled(expression, objective, _student(objective), _teacher(objective), sample_batch())
    for part in _per_position(expression):
        _compare_compiled(expression, part, *sample_tokens(peers=_peers(part)))


def _compare_compiled(expression: str, objective: Objective, student: Signals, teacher: Signals, batch: Batch) -> None:
    plain_student, compiled_student, other = _learning(student), _learning(student), copy.deepcopy(objective)
    plain = loss_of(objective, plain_student, teacher, batch)
    plain.backward()
    torch.compiler.reset()
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    try:
        loss = loss_of(compiled, compiled_student, teacher, batch)
        loss.backward()
    except torch._dynamo.exc.TorchDynamoException as error:
        raise AssertionError(f"{expression}: torch.compile cannot take it whole: {error}") from error
    assert torch.allclose(loss, plain, rtol=1e-5, atol=1e-7), (
        f"{expression}: compiled it is {loss}, plain it is {plain}"
    )
    for eager, traced in zip(_tensors(plain_student), _tensors(compiled_student), strict=True):
        assert (eager.grad is None) == (traced.grad is None), f"{expression}: compiled it teaches other signals"
        if eager.grad is not None and traced.grad is not None:
            assert torch.allclose(eager.grad, traced.grad, rtol=1e-4, atol=1e-6), (
                f"{expression}: compiled gradients differ"
            )


CONTRACT: dict[str, Callable[[str], None]] = {
    function.__name__.removeprefix("check_"): function
    for function in (
        check_finite,
        check_student_learns,
        check_teacher_fixed,
        check_parameters_learn,
        check_zero_when_equal,
        check_permutation,
        check_micro_batches,
        check_mask,
        check_tokens,
        check_state_dict,
        check_expression,
        check_compiles,
    )
}


def check_objective(expression: str) -> None:
    """Run every check of the contract that needs one process. See :func:`check_two_processes` for the one that needs two."""
    for check in CONTRACT.values():
        check(expression)


def check_two_processes(expressions: Sequence[str]) -> None:
    """Two processes with half the batch each get the loss and the gradients of one process with the whole batch.

    Starts two processes on the CPU (gloo) for all expressions together. Those whose ``local_negatives`` is True keep to the
    samples of one process by definition and are left out.
    """
    compared = [expression for expression in expressions if not parse_objective(expression).local_negatives]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The classes go along so that the new processes import the files that register them.
    classes = list({type(part) for expression in compared for _, _, part in parse_objective(expression).entries()})
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    if method == "forkserver":
        # The server imports once, for this call and those after it.
        multiprocessing.set_forkserver_preload([__name__, "torch._dynamo"])
    try:
        start_processes(_one_of_two, args=(compared, port, classes), nprocs=2, start_method=method)
    except ProcessRaisedException as error:
        raise AssertionError(str(error)) from None


def _one_of_two(rank: int, expressions: list[str], port: int, classes: list[type]) -> None:
    torch.set_num_threads(1)
    references = [_whole_batch(expression) for expression in expressions]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        for expression, reference in zip(expressions, references, strict=True):
            _compare_with_whole(expression, rank, *reference)
    finally:
        dist.destroy_process_group()


class _Heads(nn.Module):
    """A stand-in for a student: one weight on each signal, so that DDP has parameters to average."""

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, CLASSES))
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 6))
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        assert student.logits is not None
        assert student.embedding is not None
        seen = student.map(lambda value: value * self.gain)
        seen = replace(seen, logits=student.logits * self.weight, embedding=student.embedding * self.scale)
        return loss_of(self.objective, seen, teacher, batch)


def _whole_batch(expression: str) -> tuple[Tensor, dict[str, Tensor]]:
    objective = built(expression)
    module = _Heads(objective)
    loss = module(_student(objective), _teacher(objective), sample_batch())
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def _compare_with_whole(expression: str, rank: int, expected: Tensor, gradients: dict[str, Tensor]) -> None:
    rows = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
    objective = built(expression)
    teacher = _rows(_teacher(objective), rows)
    module = _Heads(objective)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in gradients)
    parallel = nn.parallel.DistributedDataParallel(module)
    loss = parallel(_rows(_student(objective), rows), teacher, sample_batch()[rows])
    loss.backward()
    mean = loss.detach().clone()
    dist.all_reduce(mean)
    mean /= 2
    assert torch.allclose(mean, expected, rtol=1e-5, atol=1e-6), (
        f"{expression}: {mean} in two processes, {expected} in one"
    )
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            same = torch.allclose(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)
            assert same, f"{expression}: the gradient of {name} differs between two processes and one"
