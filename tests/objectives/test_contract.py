"""Every registered objective, preset and option keeps the contract; an objective that breaks it is caught."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.objectives import Objective, objectives, presets
from limbeck.signals import Batch, Signals
from limbeck.testing import CONTRACT, check_compiles, check_objective, check_two_processes

EXPRESSIONS = [
    *(f"{name}()" for name in objectives()),
    *presets(),
    "ce(label_smoothing=0.1)",
    "ce(views='first')",
    "kd(temperature=1)",
    "icd(alpha=0)",
    "icd(dim=3, max_scale=2, detach_target=True)",
    "icd(max_scale=5, learn_scale=False)",
    "icd(symmetric=True, exclude_same_class=True)",
    "icd(variant='paper', exclude_same_class=True)",
    "0.123456789*icd() + kd() + 1e-3*kd(temperature=2.5)",
    "crd(negatives=3)",
    "crd(negatives=12)",
    "rrd(variant='2024')",
    "rrd(variant='2024', queue=5)",
    "rrd(queue=12)",
    "0.5*decay(8, 0.5)*kd() + ramp(1, 2, epochs=3)*icd(dim=3)",
    "infoflow(layers='last', kernel='cosine')",
    "infoflow(layers='intermediate', maps='pooled', kernel='student_t')",
    "infoflow(reduction='paper')",
    "2*lskd(kd(temperature=3))",
    "lskd(0.5*kd() + ce())",
    "r2kd(rank='paper')",
    "r2kd(rank_weight=0)",
    "r2kd(value_weight=0, sharpness=2)",
    "ckd(n=3, kd=1, bias_weight=0.1)",
    *(f"{name}(attention={kind!r})" for name in ("afd", "rtk") for kind in ("uniform", "diagonal")),
    "bss(temperature=2, clean=0, epochs=5)",
    "bss(boundary=0)",
    "lskd(bss())",
    "contrastive(temperature=1)",
    "listwise_kl(temperature=0.5, teacher_temperature=2)",
    "embed_match(documents=0)",
    "embed_match(queries=0)",
    "embed_match(extra=1)",
    "documents(rkd())",
    "documents(0.5*icd(dim=3) + pkt())",
    "rtk(keys=3, dim=8, entropy_floor=0.5)",
    "rtk(keys=1, detach_attention=True)",
    "dml(peers='same, resnet8, resnet14')",
    "0.5*dml() + kd()",
    "one(branches=1)",
    "one(branches=2, temperature=1, warmup_epochs=0)",
    "kl(direction='reverse', temperature=2)",
    "jsd(beta=0.1)",
    "jsd(beta=1)",
    "skewed(direction='reverse')",
    "tvd(temperature=3)",
    "dist(intra=0)",
    "okd(direction='forward', teacher_direction='forward', weight=2)",
    "okd(variant='ce')",
    "okd(variant='kl', rank=2, teacher_weight=0.5)",
]


PLAIN = [f"{name}()" for name in objectives()]
# With a gradient of its own (kl, r2kd) or a memory (crd, rrd). Of the others torch differentiates ordinary operations.
DIFFERENTIATED = ["kd()", "kl()", "r2kd()", "crd()", "rrd()"]
# To compile takes a hundred times as long as any other check: test_is_traced_whole is the quick half of it.
QUICK = [check for check in CONTRACT if check != "compiles"]
# Presets are sums of what has been checked.
OF_SUMS = ("expression", "finite")
SUMS, TERMS = list(presets()), [expression for expression in EXPRESSIONS if expression not in presets()]


# A test for each expression and not for each check of it: of a few milliseconds each, most would be pytest's own.
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_contract(expression: str) -> None:
    for check in OF_SUMS if expression in SUMS else QUICK:
        CONTRACT[check](expression)


@pytest.mark.slow
@pytest.mark.parametrize("expression", SUMS)
def test_presets_keep_all_of_it(expression: str) -> None:
    check_objective(expression)


@pytest.mark.parametrize(
    "expression",
    [pytest.param(each, marks=[] if each in DIFFERENTIATED else [pytest.mark.slow]) for each in TERMS],
)
def test_compiles(expression: str) -> None:
    check_compiles(expression)


@pytest.mark.parametrize("expression", [expression for expression in PLAIN if expression not in DIFFERENTIATED])
def test_is_traced_whole(expression: str) -> None:
    check_compiles(expression, backend="eager")


STRANGER = """
from limbeck.objectives import Objective

class {name}(Objective, name="{name}"):
    needs = frozenset({{"logits"}})

    def forward(self, student, teacher, batch):
        return {{"gap": (student.logits - teacher.logits).abs().{reduction}()}}
"""


def write_stranger(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, reduction: str) -> None:
    (folder / f"file_of_{name}.py").write_text(STRANGER.format(name=name, reduction=reduction))
    monkeypatch.syspath_prepend(str(folder))
    importlib.import_module(f"file_of_{name}")


def test_two_processes_are_one_with_the_whole_batch(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stranger(tmp_path, monkeypatch, "stranger_mean", "mean")
    # What is drawn by place in the batch depends on its order, and is the same in every process.
    drawn = ["ckd(tuples=20)", "ckd(n=3, tuples=20, kd=1, bias_weight=1)"]
    check_two_processes([*TERMS, *drawn, "stranger_mean()"])


@pytest.mark.slow
def test_two_processes_are_one_with_the_whole_batch_for_sums_too(server: Any) -> None:
    check_two_processes(SUMS)


def test_two_processes_that_differ_from_one_are_caught(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stranger(tmp_path, monkeypatch, "stranger_sum", "sum")
    with pytest.raises(AssertionError, match=r"stranger_sum\(\): .* in two processes, .* in one"):
        check_two_processes(["stranger_sum()"])


def gap(student: Signals, teacher: Signals) -> Tensor:
    assert student.logits is not None
    assert teacher.logits is not None
    return (student.logits - teacher.logits).square().mean(-1)


def from_forward(forward: Callable[..., dict[str, Tensor]], **attributes: Any) -> Callable[[], None]:
    def register() -> None:
        class Broken(Objective, name="broken"):
            pass

        Broken.forward = forward  # type: ignore[method-assign]
        for name, value in attributes.items():
            setattr(Broken, name, value)

    return register


def teaches_the_teacher() -> None:
    class Broken(Objective, name="broken"):
        def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
            return {"gap": gap(student, teacher).mean()}


def has_a_head_that_never_learns() -> None:
    class Broken(Objective, name="broken"):
        def build(self, student: Signals, teacher: Signals) -> None:
            self.head = nn.Linear(5, 5)

        def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
            return {"gap": (gap(student, teacher) + self.head(student.logits).detach().mean()).mean()}


def has_a_dead_parameter_that_learns() -> None:
    class Broken(Objective, name="broken"):
        dead_parameters = frozenset({"scale"})

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
            return {"gap": self.scale * gap(student, teacher).mean()}


def forgets_a_tensor_when_saved() -> None:
    class Broken(Objective, name="broken"):
        def build(self, student: Signals, teacher: Signals) -> None:
            self.direction = torch.rand(8)

        def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
            return {"gap": (self.direction * gap(student, teacher)).mean()}


def writes_another_argument_than_it_was_given() -> None:
    class Broken(Objective, name="broken"):
        def __init__(self, *, power: float = 1.0) -> None:
            super().__init__()
            self.power = 2 * power

        def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
            return {"gap": gap(student, teacher).mean()}


def remembers_the_first_sample() -> None:
    class Broken(Objective, name="broken"):
        def build(self, student: Signals, teacher: Signals) -> None:
            self.register_buffer("row", torch.zeros(5))

        def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
            self.row.copy_(teacher.logits[0].detach())
            return {"gap": (student.logits - self.row).square().mean()}


def remembers_outside_of_buffers() -> None:
    class Broken(Objective, name="broken"):
        row = torch.zeros(5)

        def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
            loss = (student.logits - self.row).square().mean()
            self.row = self.row + teacher.logits.detach().mean(0)
            return {"gap": loss}


def ordered(self: Objective, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
    return {"gap": (torch.linspace(0, 1, len(batch), dtype=student.logits.dtype) * gap(student, teacher)).mean()}


def with_item(self: Objective, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
    values = gap(student, teacher)
    return {"gap": values.mean() if values.sum().item() > 0 else values.sum()}


def mean_of_means(self: Objective, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Tensor]:
    values = gap(student, teacher).where(student.mask, 0.0).float()
    return {"gap": (values.sum(1) / student.mask.sum(1)).mean()}


BROKEN: dict[str, tuple[str, Callable[[], None], str]] = {
    "NaN in the gradient": (
        "finite",
        from_forward(lambda self, s, t, b: {"gap": gap(s, t).mean() + (0 * s.logits).sum().sqrt()}),
        "a gradient is NaN or infinite",
    ),
    "infinite value": (
        "finite",
        from_forward(lambda self, s, t, b: {"gap": gap(s, t).mean() / 0}),
        "the loss is inf",
    ),
    "half precision": (
        "finite",
        from_forward(lambda self, s, t, b: {"gap": (s.logits @ t.logits.T).mean()}),
        "the loss is torch.bfloat16, not float32",
    ),
    "not a scalar": (
        "finite",
        from_forward(lambda self, s, t, b: {"gap": gap(s, t)}),
        "the terms must be scalars",
    ),
    "detached student": (
        "student_learns",
        from_forward(lambda self, s, t, b: {"gap": s.logits.mean() * 0 + gap(s.detach(), t).mean()}),
        "teaches nothing",
    ),
    "learning teacher": ("teacher_fixed", teaches_the_teacher, "the teacher got a gradient"),
    "idle head": ("parameters_learn", has_a_head_that_never_learns, "parts.0.head.weight gets no gradient"),
    "dead that lives": ("parameters_learn", has_a_dead_parameter_that_learns, "learns though it is declared dead"),
    "not zero when equal": (
        "zero_when_equal",
        from_forward(lambda self, s, t, b: {"gap": gap(s, t).mean() + 0.1}, zero_when_equal=True),
        r"is 0\.1\d* for student = teacher",
    ),
    "order of the batch": ("permutation", from_forward(ordered), "depends on the order of the batch"),
    "order in name only": (
        "permutation",
        from_forward(lambda self, s, t, b: {"gap": gap(s, t).mean()}, order_free=False),
        "does not depend on the order of the batch, and order_free is False",
    ),
    "order of what was remembered": (
        "permutation",
        remembers_the_first_sample,
        "depends on the order of the batch, and order_free is True",
    ),
    "memory not saved": ("state_dict", remembers_outside_of_buffers, "changed by saving"),
    "a sum over samples": (
        "micro_batches",
        from_forward(lambda self, s, t, b: {"gap": gap(s, t).sum()}),
        "micro-batches do not equal the batch, and batch_coupled is False",
    ),
    "coupled in name only": (
        "micro_batches",
        from_forward(lambda self, s, t, b: {"gap": gap(s, t).mean()}, batch_coupled=True),
        "micro-batches equal the batch, and batch_coupled is True",
    ),
    "mask ignored": (
        "mask",
        from_forward(lambda self, s, t, b: {"gap": gap(s, t).mean() + s.logits.mean()}, per_position=True),
        "masked positions get a gradient",
    ),
    "masked but not in the gradient": (
        "mask",
        from_forward(lambda self, s, t, b: {"gap": losses.mean(gap(s, t), mask=s.mask)}, per_position=True),
        "masked positions change the gradient",
    ),
    "a mean over samples of means over positions": (
        "tokens",
        from_forward(mean_of_means, per_position=True),
        "parts of a batch of tokens do not add up to the whole",
    ),
    "state lost": ("state_dict", forgets_a_tensor_when_saved, "changed by saving"),
    "text lost": ("expression", writes_another_argument_than_it_was_given, "which reads as"),
    "graph break": ("compiles", from_forward(with_item), "torch.compile cannot take it whole"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_objective_is_caught(name: str) -> None:
    check, register, sentence = BROKEN[name]
    register()
    with pytest.raises(AssertionError, match=sentence):
        CONTRACT[check]("broken()")


def test_every_check_has_an_objective_that_fails_it() -> None:
    assert {check for check, _, _ in BROKEN.values()} == set(CONTRACT)


def test_check_objective_runs_them_all() -> None:
    from_forward(ordered)()
    with pytest.raises(AssertionError, match="depends on the order"):
        check_objective("broken()")
