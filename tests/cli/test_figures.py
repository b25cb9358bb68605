"""The tables of an evaluation: many networks, names that look like markup, and what classes are taken for."""

from __future__ import annotations

import io

import torch
from rich.console import Console
from torch import nn

from limbeck.cli.figures import tables
from limbeck.data import ImageData, ImageSplit
from limbeck.evaluate.bench import Options
from limbeck.evaluate.record import Evaluation
from limbeck.evaluate.suite import evaluate_networks

CLASSES = 60  # of which the record keeps the counts that are not 0


def shown(evaluation: Evaluation) -> str:
    console = Console(file=io.StringIO(), width=160)
    for table in tables(evaluation):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def network(shift: int, classes: int) -> nn.Module:
    """Tells the class from the image's first pixel, and takes each for the one ``shift`` after it."""
    layer = nn.Linear(classes, classes, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(classes).roll(shift, dims=0))
    return nn.Sequential(nn.Flatten(), layer)


def data(names: tuple[str, ...]) -> ImageData:
    count = len(names)
    labels = torch.arange(2 * count) % count
    images = 255 * torch.eye(count, dtype=torch.uint8)[labels].view(-1, 1, 1, count)
    split = ImageSplit(images, labels, torch.arange(len(labels)))
    return ImageData("eye", split, None, split, names, 1, (1, count), (0.0,), (1.0,))


def test_many_networks_are_shown_in_several_tables_with_the_teacher_in_each() -> None:
    few = data(("one", "two", "three"))
    models = {f"student{number}": network(number % 2, 3) for number in range(12)}
    options = Options(("accuracy", "calibration", "fidelity", "cost"))
    found = evaluate_networks(models, few, teacher=network(0, 3), options=options, batch_size=2)
    made = tables(found)
    assert max(len(table.columns) for table in made) <= 8
    text = shown(found)
    lines = [line for line in text.splitlines() if "student" in line and "hardest" not in line]
    for number in range(12):
        assert sum(f"student{number} " in f"{line} " for line in lines) == 5
    scores = [table for table in made if "images of" in str(table.columns[0].header)]
    assert [len(table.columns) for table in scores] == [7, 7, 4]
    assert all("teacher" in str(table.columns[-1].header) for table in scores)


def test_names_are_shown_as_they_are() -> None:
    names = ("[bold]", "[/close]", "[red]x[/red]")
    options = Options(("accuracy", "cost", "calibration"))
    text = shown(evaluate_networks({"[/kd]": network(1, 3)}, data(names), options=options, batch_size=2))
    assert all(name in text for name in names)
    assert text.count("[/kd]") >= 4


def test_what_the_hardest_classes_are_taken_for_is_always_told() -> None:
    for count in (8, CLASSES):
        found = evaluate_networks(
            network(1, count), data(tuple(f"c{n}" for n in range(count))), options=Options(("accuracy",))
        )
        text = shown(found)
        assert all(f"c{n + 1} (2)" in text for n in range(5))
