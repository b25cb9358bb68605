"""How runs and evaluations were made: commands, settings and versions; and those that have nothing to show."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

import yaml

from limbeck.report.material import Evaluated, Material
from limbeck.report.read import Run
from limbeck.report.sections import Section


def status_sections(material: Material) -> list[Section]:
    """Failed and unfinished runs, and what was skipped since it cannot be read: each is named, and they are counted."""
    failed = [(run.name, str(run.failure)) for run in material.runs if run.failure is not None]
    unfinished = [(run.name, run.progress()) for run in material.runs if run.is_unfinished]
    skipped = [(str(path), problem) for path, problem in material.skipped]
    return [
        Section(name, f"{title}: {len(items)}", html=_listed(items))
        for name, title, items in (
            ("failed", "Failed runs", failed),
            ("unfinished", "Unfinished runs", unfinished),
            ("skipped", "Skipped, since they cannot be read", skipped),
        )
        if items
    ]


def _listed(items: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"<li><b>{html.escape(name)}</b>: {html.escape(text)}</li>" for name, text in items)
    return f'<ul class="runs">{lines}</ul>'


def making_sections(material: Material) -> list[Section]:
    """The command, the settings and the versions of each finished run and of each evaluation."""
    sections = []
    finished = [run for run in material.runs if run.result is not None]
    if finished:
        details = "\n".join(_of_run(run) for run in finished)
        sections.append(Section("making", "How each run was made", html=f"{_versions_of_runs(finished)}\n{details}"))
    if material.evaluations:
        evaluated = "\n".join(_of_evaluation(evaluation) for evaluation in material.evaluations)
        sections.append(Section("evaluating", "How each evaluation was made", html=evaluated))
    return sections


def _versions_of_runs(runs: Sequence[Run]) -> str:
    used: dict[str, dict[str, None]] = {}
    for run in runs:
        assert run.result is not None
        for package, version in {**run.result.versions, "device": run.result.device}.items():
            used.setdefault(package, {})[version] = None
    return _versions({package: " and ".join(versions) for package, versions in used.items()})


def _versions(used: Mapping[str, str]) -> str:
    listed = "; ".join(f"{package} {version}" for package, version in used.items())
    return f'<p class="meta">{html.escape(listed)}.</p>' if listed else ""


def _of_run(run: Run) -> str:
    result = run.result
    assert result is not None
    settings = yaml.safe_dump(run.settings, sort_keys=False, allow_unicode=True) if run.settings else ""
    about = f"seed {result.seed}, {result.seconds:,.1f} s, finished {result.finished or 'at an unknown time'}"
    block = (
        f'<div class="settings"><p class="meta">Settings (config.yaml)</p><pre>{html.escape(settings)}</pre></div>'
        if settings
        else ""
    )
    return (
        f"<details><summary><b>{html.escape(run.name)}</b>: <code>{html.escape(result.objective)}</code>, "
        f"{html.escape(about)}</summary>\n<pre>{html.escape(result.command)}</pre>{block}</details>"
    )


def _of_evaluation(evaluated: Evaluated) -> str:
    evaluation = evaluated.evaluation
    when = evaluation.when or "at an unknown time"
    about = f"{', '.join(evaluation.networks)} on {evaluation.data}, {evaluation.split}, {when}"
    return (
        f"<details><summary><b>{html.escape(str(evaluated.path))}</b>: {html.escape(about)}</summary>\n"
        f"<pre>{html.escape(evaluation.command)}</pre>{_versions(evaluation.versions)}</details>"
    )
