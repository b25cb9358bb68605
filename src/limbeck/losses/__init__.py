"""Pure functions on tensors: float32 inside, per sample where the formula allows. Imports torch and nothing else."""

from limbeck.losses.classification import cross_entropy, kl_divergence
from limbeck.losses.contrast import cosine_similarity_matrix, info_nce, invariance
from limbeck.losses.reduction import mean

__all__ = ["cosine_similarity_matrix", "cross_entropy", "info_nce", "invariance", "kl_divergence", "mean"]
