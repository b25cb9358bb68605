"""The kinds of figures that an evaluation holds, and what each may be when it is read from a file."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from pydantic import Field
from pydantic.functional_validators import AfterValidator

_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_IMAGE = 1 << 20
# The square of a larger one may be infinite.
_LARGEST = 1e15


def _png(text: str) -> str:
    """Base64 of a PNG and nothing else, since it is written into the page."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not base64") from None
    if not content.startswith(_PNG):
        raise ValueError("it is no PNG")
    return text


def _clamped(value: float) -> float:
    return min(1.0, max(0.0, value))


Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)]
"""A number that can be drawn."""
Positive = Annotated[float, Field(gt=0, le=_LARGEST, allow_inf_nan=False)]
"""A number above 0."""
Share = Annotated[float, Field(ge=-1e-6, le=1 + 1e-6, allow_inf_nan=False), AfterValidator(_clamped)]
"""A number in [0, 1]. A mean of ones may be a rounding above one, which is one when it is read."""
Budget = Annotated[float, Field(ge=0, le=255, allow_inf_nan=False)]
"""How far the value of a pixel in 0 … 255 may be changed."""
Count = Annotated[int, Field(ge=0, le=2**53)]
"""How many there are."""
Side = Annotated[int, Field(ge=1, le=4096)]
"""Pixels of an image's side."""
Png = Annotated[str, Field(max_length=_LARGEST_IMAGE), AfterValidator(_png)]
"""A PNG file in base64."""
Matrix = tuple[tuple[Number, ...], ...]
"""Rows of numbers."""
