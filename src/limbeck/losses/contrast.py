"""Losses on the matrix of similarities between N student and N teacher embeddings, one scalar each.

``similarity`` is (N, N): row i is student i, column j is teacher j, the pairs are the diagonal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.losses.precision import in_float32


@in_float32
def cosine_similarity_matrix(student: Tensor, teacher: Tensor) -> Tensor:
    """(N, M) cosines of (N, D) student rows and (M, D) teacher rows."""
    return torch.nn.functional.normalize(student, dim=-1) @ torch.nn.functional.normalize(teacher, dim=-1).T


@in_float32
def info_nce(similarity: Tensor) -> Tensor:
    """-(1/N) Σ_i log softmax(row i)[i]: each student picks its teacher among the N of the batch (arXiv 1807.03748)."""
    return -torch.log_softmax(similarity, dim=1).diagonal().mean()


@in_float32
def invariance(similarity: Tensor, *, detach_target: bool = False) -> Tensor:
    """(1/N) Σ_i KL(q_i ‖ p_i), p the row softmax and q the softmax over the transposed matrix's rows.

    p_i is student i over the teachers, q_i is teacher i over the students. Zero if and only if the matrix is symmetric.
    The gradient flows through both unless ``detach_target`` holds q fixed. Entries of -inf (excluded pairs, at the same
    places in the transposed matrix) do not count.
    """
    log_p = torch.log_softmax(similarity, dim=1)
    log_q = torch.log_softmax(similarity.T, dim=1)
    if detach_target:
        log_q = log_q.detach()
    excluded = similarity.detach().isneginf()
    difference = (log_q - log_p).masked_fill(excluded, 0.0)
    return (log_q.exp() * difference).sum(dim=1).mean()


@in_float32
def unit(rows: Tensor) -> Tensor:
    """(N, D) rows scaled to length 1; a row of zeros stays."""
    return torch.nn.functional.normalize(rows, dim=-1)
