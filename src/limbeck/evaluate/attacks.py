"""Images changed within a budget so that a network gets them wrong, with the network's own gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from limbeck import losses

Logits = Callable[[Tensor], Tensor]
"""From float images (B, C, H, W) in [0, 1] to logits (B, C), differentiable; normalisation is inside."""

# Of a step of projected gradient descent, in budgets over the number of steps.
_REACH = 2.5


def fgsm(logits: Logits, images: Tensor, labels: Tensor, budget: float) -> Tensor:
    """One step of the gradient's sign (arXiv 1412.6572): images in [0, 1], each value changed by ``budget`` at most."""
    return (images + budget * _ascent(logits, images, labels)).clamp(0, 1)


def pgd(logits: Logits, images: Tensor, labels: Tensor, budget: float, *, steps: int = 10, seed: int = 0) -> Tensor:
    """Projected gradient ascent (arXiv 1706.06083) from a random start, in steps of 2.5 · budget / steps."""
    generator = torch.Generator(images.device).manual_seed(seed)
    start = torch.rand(images.shape, generator=generator, device=images.device) * 2 - 1
    changed = (images + budget * start).clamp(0, 1)
    for _ in range(steps):
        moved = changed + _REACH * budget / steps * _ascent(logits, changed, labels)
        changed = (images + (moved - images).clamp(-budget, budget)).clamp(0, 1)
    return changed


def _ascent(logits: Logits, images: Tensor, labels: Tensor) -> Tensor:
    with torch.enable_grad():
        given = images.detach().requires_grad_()
        loss = losses.cross_entropy(logits(given), labels).sum()
        (gradient,) = torch.autograd.grad(loss, given)
    return gradient.sign()
