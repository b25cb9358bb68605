"""The sections of the page that are drawn from an evaluation."""

from limbeck.report.evaluation.sections import evaluation_sections

__all__ = ["evaluation_sections"]
