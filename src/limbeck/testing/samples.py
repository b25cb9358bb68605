"""Random signals and batches, an objective built for them, and what it says about them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from limbeck.objectives import Objective, WeightedSum, parse_objective
from limbeck.signals import IGNORED, Batch, Signals

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

    Logits (8, 5), those of attacked images, an embedding, those of three documents and of another query, a stem, two stages
    before and after their ReLU, and the constants of a network with such signals. ``maps`` gives (channels, side) of each
    stage. With ``peers`` there are the logits of so many networks beside it, and a trunk, which is the first stage.
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
        documents=draw(BATCH, 3, embedding_size),
        extra=draw(BATCH, embedding_size),
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
    objective.build(student_for(objective, dtype), teacher_for(objective, dtype))


def student_for(objective: Objective, dtype: torch.dtype = torch.float32) -> Signals:
    return sample_signals(1, peers=peers_of(objective), dtype=dtype)


def peers_of(objective: Objective) -> int:
    """How many networks beside the student an objective asks for."""
    asked = objective.companions()
    return 0 if asked is None else asked.count


def teacher_for(objective: Objective, dtype: torch.dtype = torch.float32) -> Signals:
    equal = any(part.equal_channels for part in parts_of(objective))
    return sample_signals(2, embedding_size=7, maps=_STUDENT_MAPS if equal else _TEACHER_MAPS, dtype=dtype)


def parts_of(objective: Objective) -> list[Objective]:
    return [part for _, _, part in objective.entries()] if isinstance(objective, WeightedSum) else [objective]


def per_position_parts(expression: str) -> list[Objective]:
    return [part for _, _, part in parse_objective(expression).entries() if part.per_position]


def learning(signals: Signals) -> Signals:
    return signals.map(lambda value: value.detach().clone().requires_grad_())


def tensors_of(signals: Signals) -> list[Tensor]:
    return list(signals.tensors().values())


def rows_of(signals: Signals, rows: slice) -> Signals:
    return signals.map(lambda value: value[rows])


def terms_of(objective: Objective, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
    """The terms that a fresh copy gives: what it draws and what it remembers are the same each time."""
    torch.manual_seed(0)
    return copy.deepcopy(objective)(student, teacher, batch)


def loss_of(objective: Callable[..., dict[str, Tensor]], student: Signals, teacher: Signals, batch: Batch) -> Tensor:
    """The sum of the terms; random numbers start from the same seed each time."""
    torch.manual_seed(0)
    return torch.stack(list(objective(student, teacher, batch).values())).sum()
