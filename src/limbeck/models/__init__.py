"""Networks by name, their weights, and what both were made for."""

from limbeck.models.create import CreatedModel, ModelEntry, create_model, list_models
from limbeck.models.sources import InputSpec, Source, register_source
from limbeck.models.sources.projected import projected_name
from limbeck.models.weights import load_state, load_weights, save_weights
from limbeck.models.zoo import register_model

__all__ = [
    "CreatedModel",
    "InputSpec",
    "ModelEntry",
    "Source",
    "create_model",
    "list_models",
    "load_state",
    "load_weights",
    "projected_name",
    "register_model",
    "register_source",
    "save_weights",
]
