"""Many students of one teacher, taught together: a batch is loaded and seen by the teacher once for all of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from limbeck.contest import Contest, Entry, entries_of, jobs_of
from limbeck.distillation import leaving, loop_of, opened, ready, teach, trackers_of
from limbeck.engine.callbacks import Callback
from limbeck.engine.learner import Learner
from limbeck.engine.loop import Loop
from limbeck.engine.memory import Footprint, free_memory, groups_that_fit
from limbeck.errors import Failure, RunFolderError
from limbeck.job import Distilled, Job, Plan, plan_of
from limbeck.layouts import choose
from limbeck.matching import Names
from limbeck.report.identity import variants
from limbeck.report.read import read_run
from limbeck.report.rows import MethodRow, summarise
from limbeck.runs import EVALUATION, FAILURE, Result, RunFolder, run_name
from limbeck.session import Session
from limbeck.surroundings import Say

logger = logging.getLogger("limbeck")

REPORT, GROUPS = "report.html", "groups.json"
_SHARE_OF_MEMORY = 0.8  # operators need some for a moment, and others use the machine too

Group = list[str]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    students: those that were trained in this call, by name; without those that a resumed comparison had done before.
    results: of every student that finished. failures: why the others did not.
    rows: the table, a method each. folder: where all of it is; None when nothing was written.
    """

    students: Mapping[str, Distilled]
    results: Mapping[str, Result]
    failures: Mapping[str, Failure]
    rows: Sequence[MethodRow]
    folder: Path | None


def run_comparison(
    contest: Contest,
    *,
    folder: bool = True,
    page: bool = True,
    callbacks: Sequence[Callback] = (),
    say: Say = logger.info,
) -> Comparison:
    """Check every student, then teach them in as few passes as the memory allows, and compare them.

    Args:
        folder: whether to keep a folder with the students' own run folders in it, tables and a page.
        page: whether to draw the page, which takes seconds; False for who draws one of his own.
        say: gets a line for each thing a user wants to know before the first step, and when a student fails.

    Raises:
        LimbeckError: what is wrong with the settings, the data, the networks or the objectives of any student, before the
            first of them is trained.
    """
    settings = contest.settings
    entries = entries_of(contest)
    accelerator = ready(settings)
    plans = {name: plan_of(job) for name, job in jobs_of(contest, entries, None).items()}
    runs = RunFolder(settings, _default_name(contest)) if folder else None
    with leaving(runs), opened(list(plans.values()), accelerator, say) as session:
        return _Comparison(contest, entries, plans, runs, session, callbacks, say).run(page)


def _default_name(contest: Contest) -> str:
    students = [student if isinstance(student, str) else student.__name__ for student in contest.students]
    return run_name(contest.settings.data, "+".join(students) or "members", "compare", contest.settings.seed)


class _Comparison:
    def __init__(
        self,
        contest: Contest,
        entries: Sequence[Entry],
        plans: Mapping[str, Plan],
        runs: RunFolder | None,
        session: Session,
        callbacks: Sequence[Callback],
        say: Say,
    ) -> None:
        self.entries, self.plans, self.runs = entries, plans, runs
        self.session, self.say = session, say
        self.callbacks = [*callbacks, _Told(say)]
        self.settings = contest.settings
        self.jobs: dict[str, Job] = jobs_of(contest, entries, None if runs is None else runs.path)
        self.footprints: dict[str, Footprint] = {}
        self.students: dict[str, Distilled] = {}
        self.failures: dict[str, Failure] = {}
        self.results: dict[str, Result] = {}

    def run(self, page: bool) -> Comparison:
        """From the check of every student to the table."""
        trackers_of(self.session, self._path)  # for what may be wrong with them
        self._choose()
        names = self._check()
        begun = self.runs is not None and self.runs.resumed and (self.runs.path / GROUPS).exists()
        self.session.keep_answers(self.runs, begun=begun)
        self.session.score_teacher()
        self.session.ready_teacher(list(self.plans.values()), names)
        if self.runs is not None:
            self.runs.settle()
        groups = self._groups()
        for number, group in enumerate(groups):
            if self._is_done(group):
                continue
            if len(groups) > 1:
                count = f"{len(group)} student{'s' * (len(group) != 1)}"
                self.say(f"pass {number + 1}/{len(groups)}    {count}: {', '.join(group)}")
            self._teach(group, number)
        return Comparison(self.students, self.results, self.failures, self._tell(page), self._path)

    @property
    def _seeds(self) -> range:
        return range(self.settings.seed, self.settings.seed + self.settings.seeds)

    @property
    def _path(self) -> Path | None:
        return None if self.runs is None else self.runs.path

    # -- before the first step -----------------------------------------------------------------------------------------

    def _choose(self) -> None:
        """What is left to be measured is so once for all, with the first student that has a teacher."""
        plan = next((plan for plan in self.plans.values() if plan.needs_teacher), next(iter(self.plans.values())))
        known = {} if self.runs is None else self.runs.chosen
        chosen = choose(self.session, replace(plan, job=plan.job.with_settings(**known)))
        values = {**known, **chosen}
        self.settings = self.settings.model_copy(update=values)
        self.plans = {name: replace(plan, job=plan.job.with_settings(**values)) for name, plan in self.plans.items()}
        self.jobs = {name: job.with_settings(**values) for name, job in self.jobs.items()}
        if self.runs is not None and chosen:
            self.runs.record(self.settings)

    def _check(self) -> list[Names]:
        """Make one student of each kind up to its first step, for its errors and its memory, and let it go again.

        Returns what each kind's objectives call the teacher's maps.
        """
        said: set[str] = set()
        names: list[Names] = []

        def say_once(line: str) -> None:
            if line not in said:
                said.add(line)
                self.say(line)

        for entry in self.entries:
            name = f"{entry.name}-seed{self.settings.seed}"
            # A plan of its own: heads and memory banks go when it goes.
            member = self.session.students.admit(plan_of(self.jobs[name]), None, name=name, measure=True, say=say_once)
            if (author := self.session.author_of([member])) is not None:
                author.close()
            names.append(member.learner.names)
            for seed in self._seeds:
                self.footprints[f"{entry.name}-seed{seed}"] = member.footprint
            self.session.students.dismiss(member)
        return names

    def _groups(self) -> list[Group]:
        """Which students share a pass; those that a resumed comparison began with stay together."""
        path = None if self._path is None else self._path / GROUPS
        if self.runs is not None and self.runs.resumed and path is not None and path.exists():
            return _read_groups(path, self.jobs)
        groups = self._new_groups()
        if self.runs is not None and self.session.around.accelerator.is_main_process:
            self.runs.write_text(GROUPS, json.dumps(groups, indent=2) + "\n")
        return groups

    def _new_groups(self) -> list[Group]:
        free = int(_SHARE_OF_MEMORY * free_memory(self.session.around.device))
        together: dict[tuple[int, tuple[int, ...], str], Group] = {}
        for name, plan in self.plans.items():
            # A pass has one order of the data, and its students have the same stages.
            epochs = tuple(stage.epochs for stage in plan.stages)
            # What a student writes, or has written for it, is for itself alone.
            alone = name if plan.job.distill.policy != "fixed" else ""
            together.setdefault((plan.job.settings.data_seed, epochs, alone), []).append(name)
        groups = [
            [group[number] for number in numbers]
            for group in together.values()
            for numbers in groups_that_fit([self.footprints[name] for name in group], free, self.settings.group_size)
        ]
        most = max(self._bytes(group) for group in groups)
        passes = "one pass" if len(groups) == 1 else f"{len(groups)} passes"
        self.say(
            f"students    {len(self.plans)} in {passes} over the data; at most {most / 2**20:,.0f} MiB beside the teacher, "
            f"of {free / 2**20:,.0f} MiB that may be used"
        )
        return groups

    def _bytes(self, group: Group) -> int:
        footprints = [self.footprints[name] for name in group]
        return sum(each.kept for each in footprints) + max(each.passing for each in footprints)

    # -- a pass --------------------------------------------------------------------------------------------------------

    def _is_done(self, group: Group) -> bool:
        """Whether all of a pass's students have a result or a failure, which are taken in then."""
        if self.runs is None or not self.runs.resumed:
            return False
        found = {name: read_run(self.runs.path / name) for name in group}
        if any(run.result is None and run.failure is None for run in found.values()):
            return False
        self.results |= {name: run.result for name, run in found.items() if run.result is not None}
        self.failures |= {name: run.failure for name, run in found.items() if run.failure is not None}
        return True

    def _teach(self, group: Group, number: int) -> None:
        session, path = self.session, self._path
        session.order(self.jobs[group[0]].settings)
        members = []
        for name in group:
            plan = plan_of(self.jobs[name])
            own = None if path is None else RunFolder(plan.job.described(plan.objective), name)
            member = session.students.admit(plan, own, name=name, measure=False, say=lambda line: None)
            members.append(replace(member, footprint=self.footprints[name]))
        checkpoint = None if path is None else path / "checkpoints" / f"pass-{number + 1}.pt"
        callbacks = [*trackers_of(session, path), *self.callbacks]
        loop = loop_of(session, members, path, checkpoint, callbacks, isolate=True)
        resumed = self.runs is not None and self.runs.resumed and loop.resume()
        if resumed:
            self.say(f"resumed     pass {number + 1} at step {loop.position.step}")
        for member in members:
            if member.runs is not None and member.runs.resumed:
                member.runs.drop_metrics_after(loop.position.step if resumed else -1)
        for name, member, done in zip(group, members, teach(session, loop, members), strict=True):
            if done is not None:
                self.students[name], self.results[name] = done, done.result
            elif member.learner.failure is not None:
                self.failures[name] = member.learner.failure
                _write_failure(member.learner.failure, member.runs)
            session.students.dismiss(member)
        if checkpoint is not None and self.session.around.accelerator.is_main_process:
            checkpoint.unlink(missing_ok=True)

    # -- the result ----------------------------------------------------------------------------------------------------

    def _tell(self, page: bool) -> Sequence[MethodRow]:
        results = list(self.results.values())
        settings = [self.jobs[name].settings.model_dump(mode="json") for name in self.results]
        rows: Sequence[MethodRow] = summarise(results, variants(results, settings))
        if self._path is None or not self.session.around.accelerator.is_main_process:
            return rows
        from limbeck.report.formats import write_tables

        if page:
            rows = self._draw(self._path)
        write_tables(rows, self._path)
        return rows

    def _draw(self, path: Path) -> Sequence[MethodRow]:
        from limbeck.report.page import write_report  # which imports matplotlib

        evaluation = path / EVALUATION
        paths = [path / name for name in self.jobs] + ([evaluation] if evaluation.exists() else [])
        return write_report(paths, path / REPORT, title=f"limbeck compare: {path.name}")


def _read_groups(path: Path, jobs: Mapping[str, Job]) -> list[Group]:
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))
        if sorted(name for group in groups for name in group) == sorted(jobs):
            return [list(group) for group in groups]
    except (OSError, ValueError, TypeError) as error:
        raise RunFolderError(f"{path} cannot be read, so the comparison cannot go on: {error}") from None
    raise RunFolderError(f"{path} names other students than the settings do, so the comparison cannot go on.")


def _write_failure(failure: Failure, runs: RunFolder | None) -> None:
    if runs is not None:
        runs.write_text(FAILURE, json.dumps(asdict(failure), indent=2) + "\n")


class _Told(Callback):
    """Says when a student fails."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def on_failure(self, loop: Loop, learner: Learner) -> None:
        failure = learner.failure
        assert failure is not None
        self.say(f"failed      {learner.name} at step {failure.step}, the others go on: {failure.reason}")
