"""Pure functions on tensors: float32 inside, per sample where the formula allows. Imports torch and nothing else."""

from limbeck.losses.attention import attention
from limbeck.losses.classification import cross_entropy, kl_divergence, standardise
from limbeck.losses.contrast import cosine_similarity_matrix, info_nce, invariance, unit
from limbeck.losses.maps import align
from limbeck.losses.precision import in_float32, project
from limbeck.losses.reduction import mean, squared_error

__all__ = [
    "align",
    "attention",
    "cosine_similarity_matrix",
    "cross_entropy",
    "in_float32",
    "info_nce",
    "invariance",
    "kl_divergence",
    "mean",
    "project",
    "squared_error",
    "standardise",
    "unit",
]
