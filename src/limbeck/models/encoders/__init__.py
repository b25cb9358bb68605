"""Encoders of texts from their text, made here or opened from folders, with a projection, and saved; cross-encoders."""

from limbeck.models.encoders.create import CreatedEncoder, create_encoder, encoder_of, keep_encoder_layers
from limbeck.models.encoders.cross import CrossEncoder, open_cross_encoder
from limbeck.models.encoders.encoder import Encoder, fit_projection, project
from limbeck.models.encoders.open import is_pipeline, open_encoder
from limbeck.models.encoders.prune import prune_encoder

__all__ = [
    "CreatedEncoder",
    "CrossEncoder",
    "Encoder",
    "create_encoder",
    "encoder_of",
    "fit_projection",
    "is_pipeline",
    "keep_encoder_layers",
    "open_cross_encoder",
    "open_encoder",
    "project",
    "prune_encoder",
]
