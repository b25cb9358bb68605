"""Encoders of texts: from their text, made here or opened from folders, with a projection, saved for sentence-transformers."""

from limbeck.models.encoders.create import CreatedEncoder, create_encoder, encoder_of
from limbeck.models.encoders.encoder import Encoder, fit_projection, project
from limbeck.models.encoders.open import open_encoder

__all__ = [
    "CreatedEncoder",
    "Encoder",
    "create_encoder",
    "encoder_of",
    "fit_projection",
    "open_encoder",
    "project",
]
