"""The model card that lies beside a student's weights."""

from __future__ import annotations

from collections.abc import Sequence

from limbeck.runs import STUDENT, Result


def model_card(result: Result, classes: Sequence[str] | None) -> str:
    """Markdown with front matter, in the form model hubs read: what it is, what it kept, how to load and remake it."""
    tags = ["image-classification", "knowledge-distillation", "limbeck"]
    lines = ["---", "library_name: limbeck", f"tags: [{', '.join(tags)}]", f"datasets: [{result.data}]", "---", ""]
    lines += [f"# {result.student} on {result.data}", ""]
    lines += [_story(result), "", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _figures(result)]
    lines += ["", "## Load it", "", "```python", "from limbeck.models import create_model"]
    many = f"num_classes={len(classes)}" if classes else "num_classes=…"
    lines += [f'network = create_model("{result.student}@{STUDENT}", {many}).network.eval()', "```", ""]
    lines += ["The input's normalisation and the names of the classes are in the file's metadata under `limbeck`.", ""]
    lines += ["## Make it again", "", "```", result.command, "```", ""]
    lines += [f"Seed {result.seed}; {', '.join(f'{k} {v}' for k, v in result.versions.items())}; {result.device}.", ""]
    return "\n".join(lines)


def _story(result: Result) -> str:
    if result.teacher is None:
        return f"Trained for {result.epochs} epochs on labels with `{result.objective}`."
    return f"Distilled from {result.teacher} for {result.epochs} epochs with `{result.objective}`."


def _figures(result: Result) -> list[tuple[str, str]]:
    def share(value: float | None) -> str:
        return "–" if value is None else f"{value:.2%}"

    figures = [("parameters", f"{result.student_parameters:,}")]
    if result.teacher_parameters:
        figures.append(("teacher's parameters", f"{result.teacher_parameters:,}"))
    if result.test:
        figures.append(("test accuracy", share(result.test["accuracy"])))
    if result.teacher_test:
        figures.append(("teacher's test accuracy", share(result.teacher_test["accuracy"])))
    if result.test and "agreement" in result.test:
        figures.append(("agreement with the teacher", share(result.test["agreement"])))
    figures += [
        ("validation accuracy, last", share(result.validation_last)),
        ("validation accuracy, best", share(result.validation_best)),
    ]
    return [*figures, ("weights kept", f"{result.select} epoch"), ("training time", f"{result.seconds:.1f} s")]
