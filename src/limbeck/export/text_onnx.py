"""Encoders and classifiers of text as ONNX: pooling and scaling inside, any number of rows of any length."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.export.formats import ExportError
from limbeck.taps import logits_of
from limbeck.text_networks import TextNetwork

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_ROWS, _LENGTH = "batch", "length"


class _Servable(nn.Module):
    """From the tensors of a batch to one tensor."""

    def __init__(self, subject: TextNetwork) -> None:
        super().__init__()
        self.network, self._search = subject.network, subject.kind == "search"

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        found: Tensor = self.network(inputs) if self._search else logits_of(self.network(**inputs))
        return found


def output_of(subject: TextNetwork) -> str:
    """The name of what comes out."""
    return "sentence_embedding" if subject.kind == "search" else "logits"


def write_text_onnx(subject: TextNetwork, path: Path) -> int:
    """Write a network to a file, and give its opset.

    Raises:
        ExportError: it cannot be traced or converted.
    """
    names = INPUTS if subject.types else INPUTS[:2]
    # Two rows of several tokens: ones would be taken for constants.
    length = min(6, subject.max_length)
    example = tuple(torch.ones(2, length, dtype=torch.int64) for _ in names)
    dimensions = {0: torch.export.Dim(_ROWS), 1: torch.export.Dim(_LENGTH, max=max(length, subject.max_length))}
    servable = _Servable(subject).eval()
    try:
        with torch.no_grad(), _plain_attention(servable), warnings.catch_warnings():
            # All inputs share their dimensions, whose names are given with each of them all the same.
            warnings.filterwarnings("ignore", "# The axis name: .* will not be used", UserWarning)
            program = torch.export.export(servable, example, dynamic_shapes=(dimensions,) * len(names))
            converted = torch.onnx.export(
                program,
                example,
                input_names=list(names),
                output_names=[output_of(subject)],
                dynamic_shapes={name: {0: _ROWS, 1: _LENGTH} for name in names},
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # many libraries take part, each with errors of its own
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(
            f"onnx: {subject.name} cannot be converted to ONNX ({type(error).__name__}: {reason[:300]})."
        ) from error
    assert converted is not None
    facts = {"model": subject.name, "data": subject.data, "similarity": subject.similarity, "classes": subject.classes}
    known = {key: value for key, value in facts.items() if value is not None}
    converted.model.metadata_props.update({"limbeck": json.dumps(known)})
    converted.save(path, external_data=False)
    return int(converted.model.opset_imports[""])


@contextmanager
def _plain_attention(network: nn.Module) -> Iterator[None]:
    """Within it networks of transformers attend by products of matrices, whose mask does not ask how the batch looks."""
    configs = {id(config): config for module in network.modules() if (config := _config_of(module)) is not None}
    before = {key: config._attn_implementation for key, config in configs.items()}
    for config in configs.values():
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]


def _config_of(module: nn.Module) -> Any:
    config = getattr(module, "config", None)
    return config if hasattr(config, "_attn_implementation") else None


def open_text_onnx(path: Path) -> Callable[[dict[str, Tensor]], Tensor]:
    """What computes from a written file, and from nothing else."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda inputs: torch.from_numpy(session.run(None, {name: each.numpy() for name, each in inputs.items()})[0])
