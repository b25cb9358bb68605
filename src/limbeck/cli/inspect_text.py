"""``limbeck inspect`` of networks on text: layers, tokenizer, widths, what taps may name, and what a token costs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from limbeck.cli.inspect import Module, modules_of, shapes_of, table_of
from limbeck.cli.output import Output
from limbeck.cli.settings import InspectSettings
from limbeck.errors import LimbeckError, SettingError

if TYPE_CHECKING:
    from torch import Tensor

    from limbeck.text_networks import TextNetwork

_ROWS, _TOKENS = 2, 16
_MEBI = 2**20


def inspect_text(settings: InspectSettings, kind: str, output: Output) -> None:
    """Draw a network on text; ``kind`` is "causal", "classification" or "search"."""
    from limbeck.text_networks import open_text

    for name in ("data", "image_size", "classes", "channels"):
        if getattr(settings, name):
            raise SettingError(f"{name} is for networks on images, and {settings.model} is one on text.")
    network = open_text(settings.model or "", kind)
    modules, classifier, embedding = _walk(network)
    taps = _taps(network)
    value: dict[str, Any] = {
        "model": network.name,
        "kind": kind,
        "input": [_ROWS, min(_TOKENS, network.max_length)],
        "parameters": modules[0].parameters,
        "classifier": classifier,
        "embedding": embedding,
        "layers": taps,
        "tokenizer": _tokenizer(network),
        "max_length": network.max_length,
        "context": _context(network),
        "width": network.width,
        "similarity": network.similarity,
        "classes": None if network.classes is None else list(network.classes),
        "cost": _cost(network),
        "modules": [asdict(module) for module in modules],
    }
    output.result(value, lambda: _drawing(value, modules, settings.depth))


def _inputs(network: TextNetwork, rows: int) -> dict[str, Tensor]:
    import torch

    tokens = torch.full((rows, min(_TOKENS, network.max_length)), (network.pad + 1) % network.vocabulary)
    return network.with_types({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})


def _walk(network: TextNetwork) -> tuple[list[Module], str | None, list[int] | None]:
    import torch

    from limbeck.token_taps import language_classifier
    from limbeck.tokens import Tokens

    inputs = _inputs(network, _ROWS)
    shapes, given = shapes_of(network.network, lambda: network.predict(inputs))
    modules = modules_of(network.network, shapes)
    if network.kind == "search":
        return modules, None, [_ROWS, network.width]
    tokens = inputs["input_ids"]
    places = torch.arange(tokens.shape[1]).expand_as(tokens)
    seen = Tokens(tokens, torch.ones_like(tokens, dtype=torch.bool), places)
    try:
        classifier = language_classifier(network.network, seen, causal=network.kind == "causal")
    except LimbeckError:
        return modules, None, None
    return modules, classifier, given.get(classifier)


def _taps(network: TextNetwork) -> list[str]:
    """Paths of the layers, whose outputs objectives may compare; none of encoders, of which embeddings are compared."""
    from limbeck.models.language import layers_of

    if network.kind == "search":
        return []
    try:
        layers = layers_of(network.network)
    except LimbeckError:
        return []
    path = next(path for path, module in network.network.named_modules() if module is layers)
    return [f"{path}.{number}" for number in range(len(layers))]


def _tokenizer(network: TextNetwork) -> dict[str, Any]:
    tokenizer = network.tokenizer
    return {
        "kind": network.told or type(tokenizer).__name__,
        "tokens": network.vocabulary,
        "pad": tokenizer.pad_token_id,
        "end": tokenizer.eos_token_id,
    }


def _context(network: TextNetwork) -> int | None:
    from limbeck.models.language import context_of

    return network.max_length if network.kind == "search" else context_of(network.network)


def _cost(network: TextNetwork) -> dict[str, Any]:
    """Multiply-accumulates of a token in a text of so many, bytes of the weights, and of a token in a cache for writing."""
    from limbeck.evaluate.cost import macs, weight_bytes
    from limbeck.text_networks import Predicting

    inputs = _inputs(network, 1)
    tokens = inputs["input_ids"]
    counted = macs(Predicting(network), tokens)
    return {
        "tokens": tokens.shape[1],
        "macs_per_token": counted // tokens.shape[1],
        "bytes": weight_bytes(network.network),
        "cache_bytes_per_token": _cache_bytes(network) if network.kind == "causal" else None,
    }


def _cache_bytes(network: TextNetwork) -> int | None:
    """Keys and values of all layers, as the configuration tells; None where it does not."""
    config: Any = network.network.config.get_text_config()  # type: ignore[union-attr, operator]  # transformers'
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None)
    if not heads:
        return None
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    number = next(network.network.parameters()).element_size()
    return int(2 * config.num_hidden_layers * heads * size * number)


def _drawing(value: dict[str, Any], modules: list[Module], depth: int) -> Group:
    named = {path: f"layer {number}" for number, path in enumerate(value["layers"])}
    title = "path" if value["kind"] == "search" else "path (for taps)"
    table, hidden = table_of(modules, depth, value["classifier"], named, title=title)
    rows = "×".join(map(str, value["input"]))
    head = Text.assemble((value["model"], "bold"), f": {value['parameters']:,} parameters; input {rows} tokens")
    notes = [Text(line, style="dim") for line in _notes(value, hidden, depth)]
    return Group(head, _facts(value), table, *notes)


def _facts(value: dict[str, Any]) -> Table:
    tokenizer, cost = value["tokenizer"], value["cost"]
    ends = ", ".join(f"{name} {tokenizer[name]}" for name in ("pad", "end") if tokenizer[name] is not None)
    given = {"search": "numbers of an embedding", "causal": "logits a token", "classification": "logits a text"}
    context = "" if value["context"] is None else f" of a context of {value['context']:,}"
    rows = [
        ("tokenizer", f"{tokenizer['tokens']:,} tokens ({tokenizer['kind']}){f'; {ends}' if ends else ''}"),
        (
            "longest text",
            f"{value['max_length']:,} tokens{context}",
        ),
        ("gives", f"{value['width']:,} {given[value['kind']]}"),
        ("weights", f"{cost['bytes'] / _MEBI:.3f} MiB"),
        ("a token costs", f"{cost['macs_per_token']:,} multiply-accumulates in a text of {cost['tokens']}"),
    ]
    if cost["cache_bytes_per_token"] is not None:
        rows.append(("in a cache", f"{cost['cache_bytes_per_token']:,} bytes a token"))
    if value["similarity"] is not None:
        rows.append(("scored by", value["similarity"]))
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table


def _notes(value: dict[str, Any], hidden: int, depth: int) -> list[str]:
    lines = []
    if value["kind"] == "search":
        lines.append("Objectives compare scores and embeddings of encoders; nothing inside is tapped.")
    elif value["layers"]:
        lines.append("Feature maps are named by --taps; the pooled input of the output layer is the embedding.")
    if hidden:
        lines.append(f"{hidden} modules lie deeper; --depth {depth + 1} shows more.")
    return lines
