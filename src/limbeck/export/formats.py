"""The formats: how each is written, and how what was written is run again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.errors import LimbeckError, MissingExtraError
from limbeck.export.subject import Servable, Subject
from limbeck.models import create_model, save_weights

Predict = Callable[[Tensor], Tensor]

NAMES = {"safetensors": "student.safetensors", "torch": "student.pt2", "onnx": "student.onnx"}
INPUT, OUTPUT = "images", "logits"

# One protobuf message, which an ONNX file without side files is, ends here.
_ONNX_BYTES = 2**31


class ExportError(LimbeckError):
    """A network that a format cannot hold, or a written file that computes something else."""


def check_packages(formats: Sequence[str]) -> None:
    """Raise MissingExtraError, before any work, when a format needs a package that is not installed."""
    if "onnx" in formats:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            if find_spec(package) is None:
                raise MissingExtraError(package, "export", "exporting to ONNX")


class Writer:
    """Writes and opens the files of one network; it is traced once for all formats that need it.

    Raises:
        ExportError: the network cannot be traced or converted; the message begins with the format.
    """

    def __init__(self, subject: Subject, dynamic_batch: bool) -> None:
        self.subject, self.dynamic_batch = subject, dynamic_batch
        self.opset: int | None = None

    def write(self, kind: str, path: Path) -> None:
        """Write the format ``kind`` to ``path``."""
        {"safetensors": self._write_safetensors, "torch": self._write_torch, "onnx": self._write_onnx}[kind](path)

    def open(self, kind: str, path: Path) -> Predict:
        """What computes the logits from a written file, and from nothing else."""
        return {"safetensors": self._open_safetensors, "torch": _open_torch, "onnx": _open_onnx}[kind](path)

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The traced network."""
        # Traced with two images: a batch of one would be taken for a constant.
        example = self.subject.example(2 if self.dynamic_batch else 1)
        shapes = {INPUT: {0: torch.export.Dim("batch")}} if self.dynamic_batch else None
        try:
            with torch.no_grad():
                return torch.export.export(self.subject.servable, (example,), dynamic_shapes=shapes)
        except Exception as error:  # tracing runs the network's own code, which raises what it likes
            hint = " dynamic_batch=False, which fixes the batch to one image, may help." if self.dynamic_batch else ""
            raise ExportError(f"torch: {self._refusal('traced by torch.export', error)}{hint}") from error

    def _write_safetensors(self, path: Path) -> None:
        save_weights(self.subject.network, path, self.subject.metadata())

    def _open_safetensors(self, path: Path) -> Predict:
        created = create_model(f"{self.subject.name}@{path}", **self.subject.create)
        return Servable(created.network, self.subject.preprocess).eval()

    def _write_torch(self, path: Path) -> None:
        torch.export.save(self.program, path, extra_files=self._facts())

    def _write_onnx(self, path: Path) -> None:
        size = sum(tensor.numel() * tensor.element_size() for tensor in self.subject.network.state_dict().values())
        if size >= _ONNX_BYTES:
            raise ExportError(
                f"onnx: {self.subject.name} has {size / 2**30:.1f} GiB of weights; a file holds at most 2."
            )
        program = self.program
        shapes = {INPUT: {0: "batch"}} if self.dynamic_batch else None
        try:
            # The example is there for the names of the dimensions only; nothing is traced again.
            converted = torch.onnx.export(
                program,
                (self.subject.example(2 if self.dynamic_batch else 1),),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=shapes,
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # many libraries take part, each with errors of its own
            raise ExportError(f"onnx: {self._refusal('converted to ONNX', error)}") from error
        assert converted is not None
        converted.model.metadata_props.update(self._facts())
        converted.save(path, external_data=False)
        self.opset = int(converted.model.opset_imports[""])

    def _facts(self) -> dict[str, Any]:
        facts = json.loads(self.subject.metadata()["limbeck"])
        return {"limbeck": json.dumps(facts | {"preprocessing_inside": self.subject.preprocess is not None})}

    def _refusal(self, done: str, error: Exception) -> str:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return f"{self.subject.name} cannot be {done} ({type(error).__name__}: {reason[:300]})."


def _open_torch(path: Path) -> Predict:
    predict: Predict = torch.export.load(path).module()
    return predict


def _open_onnx(path: Path) -> Predict:
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
