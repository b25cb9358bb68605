"""The model card that lies beside exported files."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from limbeck.export.formats import NAMES
from limbeck.export.subject import Subject
from limbeck.report.card import load_lines

if TYPE_CHECKING:
    from limbeck.export.images import ImageExport

_LISTED = 200


def export_card(result: ImageExport, subject: Subject) -> str:
    """Markdown with front matter: what the files take and give, how exact they are, and how to load each."""
    tags = ["image-classification", "limbeck", *(file.format for file in result.files)]
    lines = ["---", "library_name: limbeck", f"tags: [{', '.join(tags)}]"]
    lines += [f"datasets: [{subject.data}]"] if subject.data else []
    lines += ["---", "", f"# {result.model}{f' on {subject.data}' if subject.data else ''}", ""]
    lines += [f"A classifier with {result.parameters:,} parameters, exported by limbeck {version('limbeck')}.", ""]
    lines += ["| file | bytes | largest difference |", "|---|---:|---:|"]
    lines += [f"| `{file.path.name}` | {file.size:,} | {file.difference:.1e} |" for file in result.files]
    batches = "batches of 1, 2 and 7" if result.dynamic_batch else "a batch of 1"
    lines += [
        "",
        f"The difference is that of the logits to the network in PyTorch on random images in {batches}, as a share of",
    ]
    lines += [f"the largest logit; at most {result.tolerance:g} was accepted.", "", "## Input and output", ""]
    lines += [*_interface(result, subject), "", "## Load it", ""]
    lines += ["Run these lines in the folder of the files.", ""]
    for file in result.files:
        lines += [f"### {file.path.name}", "", "```python", *_SNIPPETS[file.format](result, subject), "```", ""]
    return "\n".join(lines)


def _interface(result: ImageExport, subject: Subject) -> list[str]:
    batch = "batch" if result.dynamic_batch else "1"
    channels, height, width = result.shape
    kind = "pixels from 0 to 255" if subject.preprocess is not None else "normalised pixels"
    lines = [f"- `images`: {result.dtype} ({batch}, {channels}, {height}, {width}), {kind}"]
    spec = subject.input
    if spec is None:
        lines.append("- normalisation: not known; use that of the training")
    else:
        where = "inside the files" if subject.preprocess is not None else "before the files"
        formula = f"(pixels / 255 - mean) / std, mean {_numbers(spec.mean)}, std {_numbers(spec.std)}"
        lines.append(f"- normalisation, {where}: {formula}")
        if spec.size is not None and spec.size != subject.image[1:]:
            lines.append(f"- resized to {spec.size[0]} × {spec.size[1]} ({spec.interpolation}, antialias), {where}")
        if len(spec.mean) > subject.image[0]:
            lines.append(f"- grey images are repeated over {len(spec.mean)} channels, {where}")
    if subject.preprocess is not None and any(file.format == "safetensors" for file in result.files):
        lines.append(f"- `{NAMES['safetensors']}` holds the weights alone; its preprocessing is in the lines below")
    lines.append(f"- `logits`: float32 ({batch}, {result.num_classes}), before the softmax")
    lines.append(f"- classes: {_classes(subject.classes, result.num_classes)}")
    return [*lines, f"- ONNX opset: {result.opset}"] if result.opset is not None else lines


def _classes(names: Sequence[str] | None, count: int) -> str:
    if names is None:
        return f"{count}, names not known"
    listed = ", ".join(f"{number} = {name}" for number, name in enumerate(names[:_LISTED]))
    return listed if len(names) <= _LISTED else f"{listed}, … ({count}; all are in the files' metadata under `limbeck`)"


def _numbers(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)})"


def _torch_input(result: ImageExport, subject: Subject) -> list[str]:
    if subject.preprocess is not None:
        return [f"images = torch.randint(0, 256, {(1, *result.shape)}, dtype=torch.uint8)"]
    return [f"images = torch.rand{(1, *result.shape)}  # pixels from 0 to 1", *_normalise(subject, "torch.tensor")]


def _normalise(subject: Subject, make: str) -> list[str]:
    if subject.input is None:
        return []
    mean, std = ([round(value, 6) for value in values] for values in (subject.input.mean, subject.input.std))
    mean_text, std_text = (f"{make}({values}).reshape(-1, 1, 1)" for values in (mean, std))
    return [f"images = (images - {mean_text}) / {std_text}"]


def _safetensors(result: ImageExport, subject: Subject) -> list[str]:
    preprocess = None if subject.preprocess is None else subject.preprocess.settings
    images = _torch_input(result, subject)
    return load_lines(result.model, NAMES["safetensors"], subject.create, images, preprocess)


def _torch(result: ImageExport, subject: Subject) -> list[str]:
    lines = ["import torch", "", f'network = torch.export.load("{NAMES["torch"]}").module()']
    return [*lines, *_torch_input(result, subject), "with torch.no_grad():", "    logits = network(images)"]


def _onnx(result: ImageExport, subject: Subject) -> list[str]:
    shape = (1, *result.shape)
    lines = ["import numpy as np", "import onnxruntime", ""]
    lines.append(f'session = onnxruntime.InferenceSession("{NAMES["onnx"]}", providers=["CPUExecutionProvider"])')
    if subject.preprocess is not None:
        lines.append(f"images = np.random.default_rng(0).integers(0, 256, {shape}, dtype=np.uint8)")
    else:
        lines.append(f"images = np.random.default_rng(0).random({shape})  # pixels from 0 to 1")
        lines += _normalise(subject, "np.array")
    feed = "images" if subject.preprocess is not None else "images.astype(np.float32)"
    return [*lines, f'(logits,) = session.run(["logits"], {{"images": {feed}}})']


_SNIPPETS = {"safetensors": _safetensors, "torch": _torch, "onnx": _onnx}
