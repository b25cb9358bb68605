"""Small networks for small images. To add a family, add a file whose functions carry ``@register_model``."""

from limbeck.models.zoo.registry import ModelFunction, register_model, zoo_models

__all__ = ["ModelFunction", "register_model", "zoo_models"]
