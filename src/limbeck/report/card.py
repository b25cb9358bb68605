"""The model card that lies beside a student's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.models.sources import sources
from limbeck.networks import card_side
from limbeck.runs import ENCODER, SEARCH_FIGURES, STUDENT, Result

_ANSWERS = {"exact_match": "exact match", "rouge_l": "ROUGE-L"}
_TEXT = {"causal": "text-generation", "classification": "text-classification"}
_KNOWN = {"text-generation": "tokens", "sentence-similarity": "tokenizer and of what embeddings are scored by"}
"""What a weights file tells of, where that is not its input and classes."""
_CLASSES = {"causal": "AutoModelForCausalLM", "classification": "AutoModelForSequenceClassification"}


def model_card(result: Result, classes: Sequence[str] | None, facts: Mapping[str, Any] | None = None) -> str:
    """Markdown with front matter, in the form model hubs read: what it is, what it kept, how to load and remake it.

    ``facts`` is what the weights file says of itself (:func:`limbeck.networks.read_card`); with it the lines that load the
    network are complete.
    """
    about = _about(facts or {})
    tags = [about, "knowledge-distillation", "limbeck"]
    lines = ["---", "library_name: limbeck", f"tags: [{', '.join(tags)}]", f"datasets: [{result.data}]", "---", ""]
    lines += [f"# {result.student} on {result.data}", ""]
    lines += [_story(result), "", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _figures(result, (facts or {}).get("documents"))]
    lines += ["", "## Load it", "", "```python", *_loading(result, classes, facts), "```", ""]
    known = _KNOWN.get(about, "input and of the classes")
    lines += [f"What is known of the {known} is in the file's metadata under `limbeck`.", ""]
    lines += ["## Make it again", "", "```", result.command, "```", ""]
    lines += [f"Seed {result.seed}; {', '.join(f'{k} {v}' for k, v in result.versions.items())}; {result.device}.", ""]
    return "\n".join(lines)


def _about(facts: Mapping[str, Any]) -> str:
    if facts.get("modality") == "text":
        return _TEXT[facts["task"]]
    return "sentence-similarity" if facts.get("modality") == "search" else "image-classification"


def load_lines(
    model: str,
    file: str,
    create: Mapping[str, int],
    images: Sequence[str],
    preprocess: tuple[Any, ...] | None,
) -> list[str]:
    """Python that opens a weights file of a network with a name and runs it.

    create: arguments of ``create_model``. images: lines that make ``images``. preprocess: the ``settings`` of the
    Preprocess between the images and the network, None for none.
    """
    arguments = "".join(f", {key}={value}" for key, value in create.items())
    lines = ["import torch", "from limbeck.models import create_model"]
    lines += ["from limbeck.data import Preprocess"] if preprocess is not None else []
    lines += ["", f"network = create_model({f'{model}@{file}'!r}{arguments}).network.eval()", *images]
    if preprocess is not None:
        mean, std, size, interpolation, channels = preprocess
        lines.append(f"images = Preprocess({mean}, {std}, {size}, {interpolation!r}, {channels})(images)")
    return [*lines, "with torch.no_grad():", "    logits = network(images)"]


def _loading(result: Result, classes: Sequence[str] | None, facts: Mapping[str, Any] | None) -> list[str]:
    facts = facts or {}
    if facts.get("modality") == "search":
        loading = f'encoder = SentenceTransformer("{ENCODER}")  # the folder beside this file'
        return ["from sentence_transformers import SentenceTransformer", "", loading, 'encoder.encode_query("…")']
    if facts.get("modality") == "text":
        auto = _CLASSES[facts["task"]]
        lines = [
            "# First, in a shell in this folder: limbeck export . --output deploy",
            f"from transformers import {auto}",
        ]
        return [*lines, "", f'network = {auto}.from_pretrained("deploy/model")']
    model = facts.get("model", result.student)
    if not _has_a_name(model):
        lines = ["from safetensors.torch import load_file", "", f"# network: the {model} of the training, made anew"]
        return [*lines, f'network.load_state_dict(load_file("{STUDENT}"))', "network.eval()"]
    names = classes or facts.get("classes")
    known = {
        "num_classes": len(names) if names else None,
        "in_channels": facts.get("in_channels"),
        "image_size": card_side(facts),
    }
    create = {key: value for key, value in known.items() if value is not None}
    if "input" not in facts:
        arguments = "".join(f", {key}={value}" for key, value in create.items())
        lines = ["from limbeck.models import create_model", ""]
        return [*lines, f"network = create_model({f'{model}@{STUDENT}'!r}{arguments}).network.eval()"]
    spec, channels = facts["input"], facts["in_channels"]
    mean, std = tuple(spec["mean"]), tuple(spec["std"])
    size = None if spec["size"] is None else tuple(spec["size"])
    images = f"images = torch.randint(0, 256, {(1, channels, *facts['image_size'])}, dtype=torch.uint8)"
    preprocess = (mean, std, size, spec["interpolation"], max(len(mean), channels))
    return load_lines(model, STUDENT, create, [images], preprocess)


def _has_a_name(model: str) -> bool:
    """Whether the text makes the network; for a module it is its class, which has no source before a colon."""
    return ":" in model or model.partition("(")[0].strip() in sources()["zoo"].names()


def _story(result: Result) -> str:
    if result.teacher is None:
        return f"Trained for {result.epochs} epochs on labels with `{result.objective}`."
    return f"Distilled from {result.teacher} for {result.epochs} epochs with `{result.objective}`."


def _figures(result: Result, documents_of: str | None = None) -> list[tuple[str, str]]:
    def share(value: float | None) -> str:
        return "–" if value is None else f"{value:.2%}"

    figures = [("parameters", f"{result.student_parameters:,}")]
    if documents_of is not None:
        figures.append(("documents", f"those of {documents_of}; this encoder is of queries alone"))
    if result.teacher_parameters:
        figures.append(("teacher's parameters", f"{result.teacher_parameters:,}"))
    test, theirs = result.test or {}, result.teacher_test or {}
    accuracy = result.accuracy_words
    for name, words in _ANSWERS.items():
        if name in test:
            figures.append((f"test {words}", share(test[name])))
        if name in theirs:
            figures.append((f"teacher's test {words}", share(theirs[name])))
    if result.test:
        figures.append((f"test {accuracy}", share(result.test["accuracy"])))
    for name, words in SEARCH_FIGURES.items():
        if result.test and name in result.test:
            figures.append((f"test {words}", f"{result.test[name]:.4f}"))
        if result.teacher_test and name in result.teacher_test:
            figures.append((f"teacher's test {words}", f"{result.teacher_test[name]:.4f}"))
    if result.teacher_test:
        figures.append((f"teacher's test {accuracy}", share(result.teacher_test["accuracy"])))
    if "perplexity" in test:
        figures.append(("test perplexity", f"{test['perplexity']:.4g}"))
    if "perplexity" in theirs:
        figures.append(("teacher's test perplexity", f"{theirs['perplexity']:.4g}"))
    if result.test and "agreement" in result.test:
        figures.append(("agreement with the teacher", share(result.test["agreement"])))
    if result.teacher_calls is not None:
        figures.append(("images the teacher was asked about, once each", f"{result.teacher_calls:,}"))
    figures += [
        (f"validation {accuracy}, last", share(result.validation_last)),
        (f"validation {accuracy}, {'of the best epoch' if result.judged else 'best'}", share(result.validation_best)),
        *(
            (f"validation {SEARCH_FIGURES[name]}, best", f"{value:.4f}")
            for name, value in (result.judged or {}).items()
        ),
    ]
    return [*figures, ("weights kept", f"{result.select} epoch"), ("training time", f"{result.seconds:.1f} s")]
