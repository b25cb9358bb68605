"""The model card that lies beside an exported network on text."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from limbeck.export.text_onnx import output_of
from limbeck.text_networks import TextNetwork

if TYPE_CHECKING:
    from limbeck.export.text import TextExport

_ABOUT = {
    "search": ("sentence-similarity", "An encoder of texts"),
    "classification": ("text-classification", "A classifier of texts"),
    "causal": ("text-generation", "A causal language model"),
}


def text_card(result: TextExport, subject: TextNetwork) -> str:
    """Markdown with front matter: what the files take and give, how exact they are, and how to load each."""
    tag, what = _ABOUT[result.kind]
    lines = ["---", "library_name: limbeck", f"tags: [{tag}, limbeck]"]
    lines += [f"datasets: [{subject.data}]"] if subject.data else []
    lines += ["---", "", f"# {result.model}{f' on {subject.data}' if subject.data else ''}", ""]
    lines += [f"{what} with {result.parameters:,} parameters, exported by limbeck {version('limbeck')}.", ""]
    if subject.documents_of is not None:
        lines += [
            "**It encodes queries alone.** They are searched for among the documents of its teacher, "
            f"`{subject.documents_of}`: encode the documents with that one. This encoder never learnt any.",
            "",
        ]
    lines += ["| what | bytes | largest difference |", "|---|---:|---:|"]
    lines += [f"| `{file.path.name}` | {file.size:,} | {file.difference:.1e} |" for file in result.files]
    given = "embeddings" if result.kind == "search" else "logits"
    lines += [
        "",
        f"The difference is that of the {given} to the network in PyTorch on random tokens, as a share of the",
    ]
    lines += [
        f"largest; at most {result.tolerance:g} was accepted.",
        "",
        "## Input and output",
        "",
        *_interface(result, subject),
    ]
    lines += ["", "## Load it", "", "Run these lines in the folder of this file.", ""]
    for file in result.files:
        name = file.path.name
        folder = file.format == "folder"
        code = _folder(result, name, subject.documents_of) if folder else _onnx(result, subject, name)
        lines += [f"### {file.path.name}", "", "```python", *code, "```", ""]
    return "\n".join(lines)


def _interface(result: TextExport, subject: TextNetwork) -> list[str]:
    lines = ["- `input_ids`, `attention_mask`: int64 (batch, length), 1 in the mask where there is a token"]
    lines += ["- `token_type_ids`: int64 (batch, length), 0 for a first sentence"] if subject.types else []
    lines.append(f"- at most {result.max_length:,} tokens were in a text of the training")
    if not result.tokenizer:
        lines.append(f"- tokens: {subject.told}; the folder has no tokenizer")
    if result.kind == "search":
        scaled = ", pooled and scaled inside" if result.similarity == "cosine" else ", pooled inside"
        lines.append(f"- `sentence_embedding`: float32 (batch, {result.width}){scaled}; scored by {result.similarity}")
    elif result.kind == "causal":
        lines.append(f"- `logits`: float32 (batch, length, {result.width}) or more, of the next token")
    else:
        names = ", ".join(f"{number} = {name}" for number, name in enumerate(result.classes or ()))
        lines.append(f"- `logits`: float32 (batch, {result.width}), before the softmax: {names}")
    return [*lines, f"- ONNX opset: {result.opset}"] if result.opset is not None else lines


def _folder(result: TextExport, name: str, documents_of: str | None) -> list[str]:
    if result.kind == "search":
        lines = ["from sentence_transformers import SentenceTransformer", ""]
        encode = "encode" if documents_of is None else "encode_query"
        return [*lines, f'encoder = SentenceTransformer("{name}")', f'embeddings = encoder.{encode}(["a text"])']
    auto = "AutoModelForCausalLM" if result.kind == "causal" else "AutoModelForSequenceClassification"
    if not result.tokenizer:
        return [f"from transformers import {auto}", "", f'network = {auto}.from_pretrained("{name}")']
    lines = [f"from transformers import {auto}, AutoTokenizer", ""]
    lines += [f'network = {auto}.from_pretrained("{name}")', f'tokenizer = AutoTokenizer.from_pretrained("{name}")']
    return [*lines, 'logits = network(**tokenizer("a text", return_tensors="pt")).logits']


def _onnx(result: TextExport, subject: TextNetwork, name: str) -> list[str]:
    lines = ["import numpy as np", "import onnxruntime", ""]
    lines.append(f'session = onnxruntime.InferenceSession("{name}", providers=["CPUExecutionProvider"])')
    if result.tokenizer and any(file.format == "folder" for file in result.files):
        folder = next(file.path.name for file in result.files if file.format == "folder")
        lines.insert(2, "from transformers import AutoTokenizer")
        lines.append(f'tokenizer = AutoTokenizer.from_pretrained("{folder}")')
        lines.append('inputs = dict(tokenizer(["a text"], return_tensors="np"))')
        lines.append("inputs = {node.name: inputs[node.name].astype(np.int64) for node in session.get_inputs()}")
    else:
        lines.append("tokens = np.full((1, 4), 2, dtype=np.int64)")
        lines.append('inputs = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}')
        lines += ['inputs["token_type_ids"] = np.zeros_like(tokens)'] if subject.types else []
    return [*lines, f'({output_of(subject)},) = session.run(["{output_of(subject)}"], inputs)']
