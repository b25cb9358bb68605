"""Encoders of texts: opened from folders, with a projection, saved for sentence-transformers."""

from limbeck.models.encoders.encoder import Encoder, fit_projection, project
from limbeck.models.encoders.open import open_encoder

__all__ = ["Encoder", "fit_projection", "open_encoder", "project"]
