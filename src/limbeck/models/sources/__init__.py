"""Where networks come from, one file a source. To add one, add a file with a ``Source`` under ``@register_source``."""

from limbeck.models.sources.base import Built, InputSpec, Request, Source
from limbeck.models.sources.registry import register_source, sources

__all__ = ["Built", "InputSpec", "Request", "Source", "register_source", "sources"]
