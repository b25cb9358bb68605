"""Where networks come from, one file a source. To add one, add a file with a ``Source`` under ``@register_source``."""

from limbeck.models.sources.base import Built, BuiltLanguage, InputSpec, LanguageRequest, Request, Source, Task
from limbeck.models.sources.registry import register_source, sources

__all__ = [
    "Built",
    "BuiltLanguage",
    "InputSpec",
    "LanguageRequest",
    "Request",
    "Source",
    "Task",
    "register_source",
    "sources",
]
