"""Pure functions on tensors: float32 inside, per sample where the formula allows. Imports torch and nothing else."""

from limbeck.losses.attention import attention, attention_distances
from limbeck.losses.chunks import Projection, RowLoss
from limbeck.losses.classification import (
    cross_entropy,
    projected_cross_entropy,
    soft_cross_entropy,
    standardise,
    tempered,
)
from limbeck.losses.contrast import cosine_similarity_matrix, info_nce, invariance, unit
from limbeck.losses.correlation import correlation_distance, cosine_distance, scaled_exp, unit_deviations
from limbeck.losses.divergences import (
    FORWARD_KL,
    REVERSE_KL,
    TOTAL_VARIATION,
    divergence,
    jensen_shannon,
    kl_divergence,
    projected_divergence,
    skewed_kl,
    sorted_distance,
)
from limbeck.losses.maps import align
from limbeck.losses.precision import in_float32, project
from limbeck.losses.ranking import hard_ranks, soft_ranks, spearman_distance
from limbeck.losses.reduction import mean, squared_error
from limbeck.losses.relations import cosine_kernel, jeffreys, squared_distances, student_t_kernel
from limbeck.losses.tuples import all_tuples, drawn_tuples, group_differences, mean_squared_difference

__all__ = [
    "FORWARD_KL",
    "REVERSE_KL",
    "TOTAL_VARIATION",
    "Projection",
    "RowLoss",
    "align",
    "all_tuples",
    "attention",
    "attention_distances",
    "correlation_distance",
    "cosine_distance",
    "cosine_kernel",
    "cosine_similarity_matrix",
    "cross_entropy",
    "divergence",
    "drawn_tuples",
    "group_differences",
    "hard_ranks",
    "in_float32",
    "info_nce",
    "invariance",
    "jeffreys",
    "jensen_shannon",
    "kl_divergence",
    "mean",
    "mean_squared_difference",
    "project",
    "projected_cross_entropy",
    "projected_divergence",
    "scaled_exp",
    "skewed_kl",
    "soft_cross_entropy",
    "soft_ranks",
    "sorted_distance",
    "spearman_distance",
    "squared_distances",
    "squared_error",
    "standardise",
    "student_t_kernel",
    "tempered",
    "unit",
    "unit_deviations",
]
