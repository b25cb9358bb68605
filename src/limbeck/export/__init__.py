"""Writes a student in the formats that others deploy, and checks each file against the network in PyTorch."""

from limbeck.export.exporter import ExportedFile, ExportResult
from limbeck.export.formats import ExportError
from limbeck.export.run import run_export

__all__ = ["ExportError", "ExportResult", "ExportedFile", "run_export"]
