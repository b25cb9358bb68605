"""A run is a folder: its settings, metrics, checkpoints, student, model card and result."""

from __future__ import annotations

import json
import secrets
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist
import yaml

from limbeck.config import RunSettings
from limbeck.distributed import rank, world_size
from limbeck.errors import RunFolderError
from limbeck.files import atomic_path

CONFIG, METRICS, RESULT, STUDENT = "config.yaml", "metrics.jsonl", "result.json", "student.safetensors"
TEST_ANSWERS, SEARCHED, ENCODER = "answers.json", "search.json", "encoder"
MERGED, ADAPTER = "merged", "adapter"
FAILURE = "failure.json"
EVALUATION = "evaluation.json"

SEARCH_FIGURES = {"ndcg_10": "nDCG@10", "mrr_10": "MRR@10", "recall_100": "recall@100", "map": "MAP"}
"""What figures of a search are called in results, and for people."""


def accuracy_words(*, searched: bool, tokens: bool) -> str:
    """What is counted as right: a query's document among those of its batch, a token, or a sample."""
    return "accuracy in batch" if searched else "token accuracy" if tokens else "accuracy"


# How a run is started, not what it is: these may differ when it is resumed.
_NOT_PART_OF_THE_RUN = {
    "resume",
    "overwrite",
    "name",
    "runs_dir",
    "workers",
    "trackers",
    "download",
    "log_steps",
    "data_dir",
    "group_size",
    "teacher_cache",
    "teacher_key",
    "cache_check",
    "allow_weak_teacher",
}


class RunFolder:
    """The folder of one run. A folder that exists is opened only with ``resume`` and emptied only with ``overwrite``.

    chosen: what was measured when a resumed run began, of the settings that are left to be measured now.

    Of several processes the first makes the folder and is the only one that writes; the others learn how it went.

    Raises:
        RunFolderError: the folder exists and neither was asked for, or it holds a run with other settings.
    """

    def __init__(self, settings: RunSettings, default_name: str) -> None:
        self.path = settings.runs_dir / (settings.name or default_name)
        self.resumed = False
        self.chosen: dict[str, Any] = {}
        self._replaced: Path | None = None
        problem: RunFolderError | None = None
        if rank() == 0:
            try:
                self._make(settings)
            except RunFolderError as error:
                problem = error
        if world_size() > 1:
            told: list[Any] = [(problem, self.resumed, self.chosen)]
            dist.broadcast_object_list(told)
            problem, self.resumed, self.chosen = told[0]
        if problem is not None:
            raise problem

    def _make(self, settings: RunSettings) -> None:
        if settings.resume and settings.overwrite:
            raise RunFolderError("resume and overwrite exclude each other; give one of them.")
        if self.path.exists() and any(self.path.iterdir() if self.path.is_dir() else [self.path]):
            self._enter(settings)
        elif settings.resume and not self.path.exists():
            raise RunFolderError(f"there is no run to resume in {self.path}.{self._others()}")
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.resumed:
            self.write_text(CONFIG, self._config(settings))

    def _enter(self, settings: RunSettings) -> None:
        if not (self.path / CONFIG).is_file():
            raise RunFolderError(f"{self.path} exists and is not a run of limbeck; choose another name.")
        if settings.overwrite:
            # Put aside until the new run has passed every check.
            self._replaced = self.path.with_name(f".{self.path.name}-replaced-{secrets.token_hex(4)}")
            self.path.rename(self._replaced)
        elif settings.resume:
            self._check_same(settings)
            self.resumed = True
        else:
            raise RunFolderError(
                f"the run {self.path} exists. Use --resume to go on with it, --overwrite to delete it first, or --name for "
                "another."
            )

    def _check_same(self, settings: RunSettings) -> None:
        # What the file does not tell was not there when it was written, and is as if it were left alone.
        usual = yaml.safe_load(type(settings).model_construct().dump())
        before = usual | yaml.safe_load((self.path / CONFIG).read_text(encoding="utf-8"))
        self.chosen = {name: before.get(name) for name in settings.to_measure()}
        settings = settings.model_copy(update=self.chosen)
        now = yaml.safe_load(self._config(settings))
        keys = (before.keys() | now.keys()) - _NOT_PART_OF_THE_RUN
        changed = [
            f"{key}: {before.get(key)!r} then, {now.get(key)!r} now"
            for key in sorted(keys)
            if before.get(key) != now.get(key)
        ]
        if changed:
            raise RunFolderError(
                f"the run in {self.path} has other settings, so it cannot go on: {'; '.join(changed)}."
            )

    def _others(self) -> str:
        names = sorted(p.parent.name for p in self.path.parent.glob(f"*/{CONFIG}"))
        return f" Runs there: {', '.join(names[:20])}." if names else ""

    @staticmethod
    def _config(settings: RunSettings) -> str:
        values = settings.model_dump(mode="json")
        return yaml.safe_dump({k: v for k, v in values.items() if k not in ("resume", "overwrite")}, sort_keys=False)

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        with atomic_path(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def record(self, settings: RunSettings) -> None:
        """Write down settings that were chosen after the folder was made."""
        if rank() == 0:
            self.write_text(CONFIG, self._config(settings))

    def settle(self) -> None:
        """Delete the run that this one replaces: everything was checked and training begins."""
        if self._replaced is not None:
            shutil.rmtree(self._replaced)
            self._replaced = None

    def leave(self) -> None:
        """After an error: remove the folder when nothing but its settings was written, and bring back what it replaced."""
        if rank() == 0 and not self.resumed and [entry.name for entry in self.path.iterdir()] == [CONFIG]:
            shutil.rmtree(self.path)
            if self._replaced is not None:
                self._replaced.rename(self.path)

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        if rank() != 0:
            return
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def drop_metrics_after(self, step: int) -> None:
        """Remove the lines of steps that a resumed run does again."""
        if rank() != 0:
            return
        records = [record for record in read_metrics(self.path) if record["step"] <= step]
        self.write_text(METRICS, "".join(json.dumps(record) + "\n" for record in records))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics.jsonl; a last line cut off by a crash is left out."""
    path = folder / METRICS
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


@dataclass
class Result:
    """What a run found. Accuracies are shares in [0, 1]; None where there was no such split or no teacher.

    validation_last, validation_best: of the validation split, after the last epoch and at its best, which is the epoch that
    ``judged``, another figure of that split by its name, chose where one did. test: figures of the
    student that was kept (``select`` says which), read once. teacher: the teacher's figures on the same test split.

    seconds: of the whole run; where ``shared_with`` students shared a pass over the data, those that this one took alone,
    and ``shared_seconds`` those of the data and the teacher's answers that all of them shared. memory_mb: what this student
    took in such a pass, in MiB, by its tensors. teacher_calls: images that the teacher was asked about, where it had a budget;
    the students of a comparison share them. extra_parameters: numbers in training beside the student's that are not kept:
    heads of objectives, peers, branches.
    """

    objective: str
    student: str
    teacher: str | None
    data: str
    seed: int
    epochs: int
    select: str
    validation_last: float | None
    validation_best: float | None
    best_epoch: int | None
    test: dict[str, float] | None
    teacher_validation: float | None
    teacher_test: dict[str, float] | None
    student_parameters: int
    teacher_parameters: int | None
    seconds: float
    peak_memory_mb: float
    device: str
    processes: int
    shared_seconds: float | None = None
    shared_with: int = 1
    memory_mb: float | None = None
    teacher_calls: int | None = None
    extra_parameters: int = 0
    judged: dict[str, float] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    finished: str = ""

    @property
    def accuracy_words(self) -> str:
        """What its accuracies are of."""
        known = {*(self.test or ()), *(self.judged or ())}
        return accuracy_words(searched=not known.isdisjoint(SEARCH_FIGURES), tokens="perplexity" in known)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def run_name(*parts: str | int) -> str:
    """A folder name such as ``digits-convnet_tiny-icd+kd-seed0``: the parts as plain words, the last being the seed."""
    *words, seed = parts
    stems = [str(word).split("@")[0].rstrip("/").rpartition("/")[2] for word in words]
    plain = [
        "".join(c if c.isalnum() or c in "+._" else "-" for c in stem.replace(" ", "")).strip("-") for stem in stems
    ]
    return "-".join([*plain, f"seed{seed}"])
