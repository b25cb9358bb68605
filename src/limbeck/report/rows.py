"""Finished runs as rows, a method each: means over seeds, and paired differences to a baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from limbeck.errors import SettingError, unknown_name
from limbeck.report.names import ALONE, MethodKey, labels_of
from limbeck.report.statistics import Difference, Stat, holm, paired_difference
from limbeck.runs import Result, accuracy_words

_NDCG = "ndcg_10"


@dataclass(frozen=True)
class MethodRow:
    """One method on one data set: its figures over seeds. Accuracies, agreement and ``kept`` are shares, not percent.

    A seed that was run twice counts once, as its mean.

    label: preset or expression, "student alone" or "teacher …". kept: test accuracy, of search nDCG@10,
        over the teacher's, run by run.
    ndcg, mrr, recall, average_precision: of search on the test queries: nDCG@10, MRR@10, Recall@100 and MAP, in [0, 1].
    exact_match, rouge_l: shares of language models' answers to test prompts; perplexity: of their test tokens.
    scores: for each of ``seeds`` what differences are made of: of the test nDCG@10 or the exact match where there is one,
        else the accuracy; without a test the best validation accuracy.
    difference: to the row that has ``baseline``, over the seeds both have, when there are at least two.
    parameters_ratio: the teacher's parameters over the student's. variant: settings that set it apart from a namesake.
    seconds: of training; where ``shared_with`` students shared a pass, of this one alone. shared_seconds: of the data and
        the teacher's answers, which all of those shared, and None where each run had its own. memory_mb: what this student
        took in such a pass. The three are None for a teacher. teacher_calls: images that the teacher was asked about in a run;
        None without a budget.
    """

    label: str
    objective: str
    data: str
    student: str
    teacher: str | None
    variant: str
    epochs: int | None
    seeds: tuple[int, ...]
    parameters: int
    parameters_ratio: float | None
    validation_best: Stat | None
    validation_last: Stat | None
    test: Stat | None
    agreement: Stat | None
    kept: Stat | None
    seconds: Stat | None
    scores: tuple[float | None, ...] = ()
    shared_seconds: Stat | None = None
    shared_with: int = 1
    memory_mb: Stat | None = None
    teacher_calls: int | None = None
    ndcg: Stat | None = None
    mrr: Stat | None = None
    recall: Stat | None = None
    average_precision: Stat | None = None
    exact_match: Stat | None = None
    rouge_l: Stat | None = None
    perplexity: Stat | None = None
    difference: Difference | None = None
    baseline: bool = False
    is_teacher: bool = False

    @property
    def accuracy_words(self) -> str:
        """What its accuracies are of."""
        return accuracy_words(searched=self.ndcg is not None, tokens=self.perplexity is not None)

    @property
    def judged(self) -> Stat | None:
        """What differences on the test split are made of: nDCG@10 or the exact match where there is one, else the accuracy."""
        return self.ndcg or self.exact_match or self.test

    @property
    def judged_words(self) -> str:
        """What :attr:`judged` is."""
        return "nDCG@10" if self.ndcg else "exact match" if self.exact_match else self.accuracy_words

    @property
    def key(self) -> MethodKey:
        """What makes it a method of its own."""
        return self.data, self.student, self.teacher, self.objective, self.epochs, self.variant

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the fields, and the difference's ``verdict`` with it."""
        values = asdict(self)
        if self.difference is not None:
            values["difference"]["verdict"] = self.difference.verdict
        return values


def summarise(results: Sequence[Result], variants: Sequence[str] = (), baseline: str | None = None) -> list[MethodRow]:
    """A row a method, over its seeds, grouped by data and student: teachers, then baselines, then by mean accuracy.

    The baseline of a student is the method of that name, else the student alone, else the first method in ``results``.

    Args:
        results: of finished runs, in any order.
        variants: a text for each result that tells apart runs whose objective, networks, data and epochs are the same.
        baseline: the label of the method that the others are set beside.

    Raises:
        SettingError: no method has the baseline's label.
    """
    groups: dict[MethodKey, list[Result]] = {}
    for number, result in enumerate(results):
        groups.setdefault(method_key(result, variants[number] if variants else ""), []).append(result)
    labels = labels_of(groups)
    if baseline is not None and baseline not in labels.values():
        raise SettingError(f"baseline: {unknown_name('method', baseline, labels.values())}")
    rows: list[MethodRow] = []
    for contest in dict.fromkeys((key[0], key[1]) for key in groups):
        members = {key: group for key, group in groups.items() if key[:2] == contest}
        rows += _contest(members, labels, baseline)
    return _teachers(results) + rows


def method_key(result: Result, variant: str = "") -> MethodKey:
    """Runs with the same key are one method; it is the ``key`` of that method's row."""
    return result.data, result.student, result.teacher, result.objective, result.epochs, variant


def _contest(
    groups: Mapping[MethodKey, list[Result]], labels: Mapping[MethodKey, str], baseline: str | None
) -> list[MethodRow]:
    named = [key for key in groups if labels[key] == baseline]
    alone = [key for key in groups if key[2] is None and key[3] in ALONE]
    beside = [*named, *alone, *groups][0]
    rows = [_row(labels[key], key, group, groups[beside], key == beside) for key, group in groups.items()]
    if len(rows) == 1:  # nothing to compare it with
        rows = [replace(rows[0], baseline=False)]
    rows = _corrected(rows)
    return sorted(rows, key=lambda row: (not row.baseline, -_figure(row)))


def _corrected(rows: Sequence[MethodRow]) -> list[MethodRow]:
    tested = {
        place: row.difference.p for place, row in enumerate(rows) if row.difference and row.difference.p is not None
    }
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return [
        replace(row, difference=replace(row.difference, p_holm=corrected[place]))
        if row.difference and place in corrected
        else row
        for place, row in enumerate(rows)
    ]


def _figure(row: MethodRow) -> float:
    stat = row.ndcg or row.test or row.validation_best
    return -1.0 if stat is None else stat.mean


def _row(label: str, key: MethodKey, group: list[Result], baseline: list[Result], is_baseline: bool) -> MethodRow:
    first = group[0]

    def over_seeds(pick: Callable[[Result], float | None]) -> Stat | None:
        return Stat.of(_by_seed(group, pick).values())

    teacher_size = first.teacher_parameters
    seeds = tuple(sorted({result.seed for result in group}))
    scores = _by_seed(group, _accuracy)
    return MethodRow(
        label=label,
        objective=first.objective,
        data=first.data,
        student=first.student,
        teacher=first.teacher,
        variant=key[-1],
        epochs=first.epochs,
        seeds=seeds,
        parameters=first.student_parameters,
        parameters_ratio=teacher_size / first.student_parameters if teacher_size else None,
        validation_best=over_seeds(lambda result: result.validation_best),
        validation_last=over_seeds(lambda result: result.validation_last),
        test=over_seeds(lambda result: _test(result, "accuracy")),
        agreement=over_seeds(lambda result: _test(result, "agreement")),
        kept=over_seeds(kept),
        seconds=over_seeds(lambda result: result.seconds),
        scores=tuple(scores.get(seed) for seed in seeds),
        shared_seconds=over_seeds(lambda result: result.shared_seconds),
        shared_with=max(result.shared_with for result in group),
        memory_mb=over_seeds(lambda result: result.memory_mb),
        teacher_calls=max((result.teacher_calls for result in group if result.teacher_calls is not None), default=None),
        ndcg=over_seeds(lambda result: _test(result, _NDCG)),
        mrr=over_seeds(lambda result: _test(result, "mrr_10")),
        recall=over_seeds(lambda result: _test(result, "recall_100")),
        average_precision=over_seeds(lambda result: _test(result, "map")),
        exact_match=over_seeds(lambda result: _test(result, "exact_match")),
        rouge_l=over_seeds(lambda result: _test(result, "rouge_l")),
        perplexity=over_seeds(lambda result: _test(result, "perplexity")),
        difference=None if is_baseline else _paired(group, baseline),
        baseline=is_baseline,
    )


def _test(result: Result, name: str) -> float | None:
    return None if result.test is None else result.test.get(name)


def kept(result: Result) -> float | None:
    """The student's test accuracy, of search its nDCG@10, as a share of its teacher's."""
    name = _NDCG if _test(result, _NDCG) is not None else "accuracy"
    own = _test(result, name)
    teacher = None if result.teacher_test is None else result.teacher_test.get(name)
    return own / teacher if own is not None and teacher else None


def _paired(group: list[Result], baseline: list[Result]) -> Difference | None:
    ours, theirs = _by_seed(group, _accuracy), _by_seed(baseline, _accuracy)
    shared = sorted(ours.keys() & theirs.keys())
    return paired_difference([ours[seed] - theirs[seed] for seed in shared]) if len(shared) > 1 else None


def _accuracy(result: Result) -> float | None:
    return result.validation_best if result.test is None else judged(result)


def judged(result: Result) -> float | None:
    """What differences on the test split are made of, of one run: see :attr:`MethodRow.judged`. None without a test."""
    known = result.test or {}
    return next((known[name] for name in (_NDCG, "exact_match", "accuracy") if name in known), None)


def _by_seed(group: list[Result], pick: Callable[[Result], float | None]) -> dict[int, float]:
    # A seed that was run twice counts once, as its mean.
    found: dict[int, list[float]] = {}
    for result in group:
        value = pick(result)
        if value is not None:
            found.setdefault(result.seed, []).append(value)
    return {seed: math.fsum(values) / len(values) for seed, values in found.items()}


def _of_teacher(group: Sequence[Result], name: str) -> Stat | None:
    # Every run tells of its teacher again.
    found = {result.teacher_test[name] for result in group if result.teacher_test and name in result.teacher_test}
    return Stat.of(sorted(found))


def _teachers(results: Sequence[Result]) -> list[MethodRow]:
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.teacher is not None and (result.teacher_test or result.teacher_validation is not None):
            groups.setdefault((result.data, result.teacher), []).append(result)
    rows = []
    for (data, teacher), group in groups.items():
        # Every run tells of its teacher again; teachers of one name with other weights have other figures.
        tests = {result.teacher_test["accuracy"] for result in group if result.teacher_test}
        checks = {result.teacher_validation for result in group}
        rows.append(
            MethodRow(
                label=f"teacher {teacher}",
                objective="",
                data=data,
                student=teacher,
                teacher=None,
                variant="",
                epochs=None,
                seeds=(),
                parameters=group[0].teacher_parameters or 0,
                parameters_ratio=None,
                validation_best=Stat.of(sorted(value for value in checks if value is not None)),
                validation_last=None,
                test=Stat.of(sorted(tests)),
                agreement=None,
                kept=None,
                seconds=None,
                ndcg=_of_teacher(group, _NDCG),
                mrr=_of_teacher(group, "mrr_10"),
                recall=_of_teacher(group, "recall_100"),
                average_precision=_of_teacher(group, "map"),
                exact_match=_of_teacher(group, "exact_match"),
                rouge_l=_of_teacher(group, "rouge_l"),
                perplexity=_of_teacher(group, "perplexity"),
                is_teacher=True,
            )
        )
    return rows
