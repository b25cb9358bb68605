"""The verbs of the command line. To add one, add a line here; nothing heavy is imported by this table."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verb:
    """One verb.

    settings, handler: ``module:name`` of its settings type and of ``handler(settings, output)``.
    help: one line. section: under which heading of the overview it stands.
    positional: settings that are given without their name, in this order.
    recipe: whether ``--config`` reads the settings from a file first.
    needs_torch: whether plugins of the environment are loaded before it.
    examples: lines for its help, each a comment and a command.
    """

    name: str
    section: str
    help: str
    settings: str
    handler: str
    positional: tuple[str, ...] = ()
    recipe: bool = False
    needs_torch: bool = True
    examples: tuple[tuple[str, str], ...] = ()


FOUR_SETTINGS = (
    "limbeck distill --data cifar100 --teacher resnet32x4@teacher.safetensors \\\n"
    "                  --student resnet8x4 --objective icd+kd"
)

FIVE_OBJECTIVES = (
    "limbeck compare --data cifar100 --teacher resnet32x4@teacher.safetensors \\\n"
    "                  --student resnet8x4 --objectives 'kd, icd, icd+kd, crd, at' --seeds 3"
)

_ALL = (
    Verb(
        name="demo",
        section="Begin",
        help="Train a teacher on digits, sums or a search and distil it in several ways, offline.",
        settings="limbeck.config:DemoSettings",
        handler="limbeck.cli.demo:demo",
        examples=(
            ("one seed only, in half a minute", "limbeck demo --seeds 1 --epochs 10"),
            ("a small language model instead of images", "limbeck demo --about text"),
            ("an encoder that finds documents", "limbeck demo --about search"),
        ),
    ),
    Verb(
        name="doctor",
        section="Begin",
        help="Tell what is installed, which devices there are and where files go.",
        settings="limbeck.cli.settings:DoctorSettings",
        handler="limbeck.cli.doctor:doctor",
    ),
    Verb(
        name="train",
        section="Work",
        help="Train one network without a teacher, for example on labels alone to be one.",
        settings="limbeck.config:TrainSettings",
        handler="limbeck.cli.train:train",
        recipe=True,
        examples=(
            ("a teacher for CIFAR-100", "limbeck train --data cifar100 --model resnet32x4 --name teacher"),
            ("the same on your own image folder", "limbeck train --data photos/ --model timm:resnet50@pretrained"),
            ("with a peer, which teach each other", "limbeck train --data cifar100 --model resnet32 --objective dml"),
        ),
    ),
    Verb(
        name="distill",
        section="Work",
        help="Distil a teacher into a student.",
        settings="limbeck.config:DistillSettings",
        handler="limbeck.cli.train:train",
        recipe=True,
        examples=(
            ("four settings are enough", FOUR_SETTINGS),
            ("settings from a file; the command line wins", "limbeck distill --config recipe.yaml --epochs 3"),
            ("go on with a run that was stopped", "limbeck distill --config runs/NAME/config.yaml --resume"),
        ),
    ),
    Verb(
        name="compare",
        section="Work",
        help="Teach many students of one teacher at once, and tell which differences are real.",
        settings="limbeck.config:CompareSettings",
        handler="limbeck.cli.compare:compare",
        recipe=True,
        examples=(
            ("five objectives, three seeds each, beside the student alone", FIVE_OBJECTIVES),
            (
                "a student for each value",
                "limbeck compare --config recipe.yaml --objectives 'icd(alpha=[0.1, 0.5, 1])'",
            ),
            ("go on with one that was stopped", "limbeck compare --config runs/NAME/config.yaml --resume"),
        ),
    ),
    Verb(
        name="evaluate",
        section="Work",
        help="Tell what networks can do, and what they kept of their teacher.",
        settings="limbeck.cli.settings:EvaluateSettings",
        handler="limbeck.cli.evaluate:evaluate",
        positional=("models",),
        examples=(
            ("a finished run, on its data and against its teacher", "limbeck evaluate runs/NAME"),
            (
                "every figure of two students, for the page of 'limbeck report runs'",
                "limbeck evaluate runs/ONE runs/TWO --all --output runs/evaluation.json",
            ),
            (
                "on other data too, against a teacher from elsewhere",
                "limbeck evaluate runs/NAME --teacher resnet32x4@teacher.safetensors --transfer stl10 --ood svhn",
            ),
        ),
    ),
    Verb(
        name="report",
        section="Work",
        help="Compare runs and show evaluations: a table with error bars, and one page with figures.",
        settings="limbeck.cli.settings:ReportSettings",
        handler="limbeck.cli.report:report",
        positional=("runs",),
        examples=(
            ("all runs of a folder", "limbeck report runs --output report.html"),
            (
                "what was evaluated besides, and figures for a paper",
                "limbeck report runs evaluation.json --figures figures",
            ),
            ("differences to one of the methods", "limbeck report runs --baseline icd"),
        ),
    ),
    Verb(
        name="export",
        section="Work",
        help="Write a student in the formats that others deploy.",
        settings="limbeck.config:ExportSettings",
        handler="limbeck.cli.export:export",
        positional=("model",),
        examples=(("all formats of a finished run", "limbeck export runs/NAME --output deploy"),),
    ),
    Verb(
        name="prune-layers",
        section="Work",
        help="Make a student of a language model by keeping some of its layers.",
        settings="limbeck.config:PruneLayersSettings",
        handler="limbeck.cli.prune_layers:prune_layers",
        positional=("model",),
        examples=(
            (
                "every third layer of a decoder of twelve",
                "limbeck prune-layers hf:NAME --keep 0,3,6,9 --output student",
            ),
        ),
    ),
    Verb(
        name="list",
        section="Look",
        help="List objectives, presets, models or data sets.",
        settings="limbeck.cli.settings:ListSettings",
        handler="limbeck.cli.listing:list_names",
        positional=("what", "pattern"),
        examples=(
            ("what can be compared", "limbeck list objectives"),
            ("networks by a pattern", "limbeck list models 'timm:vit_tiny*'"),
        ),
    ),
    Verb(
        name="explain",
        section="Look",
        help="Explain an objective, a preset or a whole expression: formula, arguments, paper.",
        settings="limbeck.cli.settings:ExplainSettings",
        handler="limbeck.cli.explain:explain",
        positional=("name",),
        examples=(("the heart of limbeck", "limbeck explain icd"),),
    ),
    Verb(
        name="inspect",
        section="Look",
        help="Draw a network's modules: what can be tapped, shapes, parameters.",
        settings="limbeck.cli.settings:InspectSettings",
        handler="limbeck.cli.inspect:inspect",
        positional=("model",),
        examples=(
            ("a network as it would be for CIFAR-100", "limbeck inspect resnet8x4 --classes 100 --image-size 32"),
            ("deeper", "limbeck inspect timm:vit_tiny_patch16_224 --depth 4"),
        ),
    ),
    Verb(
        name="reproduce",
        section="Look",
        help="List the published numbers, the command for each, and what runs measured beside them.",
        settings="limbeck.cli.settings:ReproduceSettings",
        handler="limbeck.cli.reproduce:reproduce",
        positional=("table",),
        examples=(
            ("one table, with runs from other folders", "limbeck reproduce dist_cifar100 --runs runs --runs old"),
            (
                "the commands of one cell",
                "limbeck reproduce distillers_v2_cifar100_same --method icd --pair resnet32x4/resnet8x4",
            ),
        ),
    ),
    Verb(
        name="completion",
        section="Look",
        help="Print a script that completes verbs and options in bash, zsh or fish.",
        settings="limbeck.cli.settings:CompletionSettings",
        handler="limbeck.cli.completion:completion",
        positional=("shell",),
        needs_torch=False,
        examples=(
            ("bash", 'eval "$(limbeck completion bash)"                          # in ~/.bashrc'),
            ("zsh", "limbeck completion zsh > ~/.zfunc/_limbeck                # a folder of $fpath"),
            ("fish", "limbeck completion fish > ~/.config/fish/completions/limbeck.fish"),
        ),
    ),
)

VERBS = {verb.name: verb for verb in _ALL}


def load(path: str) -> Any:
    """What ``module:name`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
