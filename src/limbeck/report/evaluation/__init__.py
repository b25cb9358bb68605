"""The sections of the page that are drawn from an evaluation record."""

from limbeck.report.evaluation.record import Evaluated, read_evaluation
from limbeck.report.evaluation.sections import evaluation_sections

__all__ = ["Evaluated", "evaluation_sections", "read_evaluation"]
