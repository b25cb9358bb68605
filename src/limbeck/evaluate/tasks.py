"""Tasks of the package lm-eval on a language model: benchmarks that are known by their names, as their authors run them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import nn

from limbeck.errors import MissingExtraError, SettingError, nearest
from limbeck.evaluate.kinds import Count, Number

if TYPE_CHECKING:
    from limbeck.evaluate.bench import Options

_ERROR = "_stderr"


@dataclass(frozen=True)
class TaskFigure:
    """One figure of one task, as lm-eval calls them; error: its standard error, None where lm-eval has none."""

    task: str
    metric: str
    value: Number
    error: Number | None
    count: Count | None


def check_tasks(options: Options) -> None:
    """Refuse what cannot be done before anything is.

    Raises:
        SettingError: no task is named, or one that lm-eval does not know. MissingExtraError: lm-eval is not installed.
    """
    if not options.tasks:
        raise SettingError("tasks: name some of lm-eval's, as in --tasks arc_easy,hellaswag.")
    if find_spec("lm_eval") is None:
        raise MissingExtraError("lm-eval", "lm-eval", "running tasks of lm-eval")
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    for name in options.tasks:
        if not manager.match_tasks([name]):
            near = nearest(name, manager.all_tasks)  # there are thousands, which no message lists
            hint = f"; did you mean '{near}'?" if near else "."
            raise SettingError(f"tasks: lm-eval has no task '{name}'{hint} 'lm-eval ls tasks' lists them.")


def run_tasks(
    network: nn.Module,
    tokenizer: object,
    tasks: Sequence[str],
    *,
    limit: int | None,
    batch_size: int,
    device: torch.device,
) -> tuple[TaskFigure, ...]:
    """The figures of named tasks, with the shots and prompts that each task's own configuration says.

    network: a causal model of transformers. tokenizer: of transformers too. limit: so many samples of each task at most, which
    is for trying out. Data sets of tasks are downloaded by lm-eval where they are not on disk.

    Raises:
        SettingError: a tokenizer that it cannot use.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import PreTrainedTokenizerBase

    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise SettingError("tasks: lm-eval takes tokenizers of Hugging Face, and this model's are characters or bytes.")
    manager = TaskManager()
    model = HFLM(pretrained=network, tokenizer=tokenizer, batch_size=batch_size, device=str(device))
    found = simple_evaluate(model=model, tasks=list(tasks), limit=limit, task_manager=manager, log_samples=False)
    assert found is not None
    return tuple(_figures(found["results"], found.get("n-samples", {})))


def _figures(
    results: Mapping[str, Mapping[str, Any]], samples: Mapping[str, Mapping[str, int]]
) -> Iterator[TaskFigure]:
    """A result's keys are ``METRIC,FILTER``, beside ``METRIC_stderr,FILTER`` for its standard error."""
    for task, figures in results.items():
        for key, value in figures.items():
            metric, comma, how = key.partition(",")
            if not comma or metric.endswith(_ERROR) or not _is_number(value):
                continue
            error = figures.get(f"{metric}{_ERROR},{how}")
            name = metric if how == "none" else f"{metric} ({how})"
            count = samples.get(task, {}).get("effective")
            yield TaskFigure(task, name, float(value), error if _is_number(error) else None, count)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
