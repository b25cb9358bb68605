"""Images changed so that a network gets them wrong, or nearly so, with the network's own gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from limbeck import losses

Logits = Callable[[Tensor], Tensor]
"""From float images (B, C, H, W) to logits (B, C), differentiable; what stands between them and the network is inside."""

# Of a step of projected gradient descent, in budgets over the number of steps.
_REACH = 2.5
_TINY = 1e-12


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


def boundary(
    logits: Logits,
    images: Tensor,
    labels: Tensor,
    targets: Tensor,
    *,
    steps: int,
    step: float,
    epsilon: float,
    clip: float,
) -> Tensor:
    """Images just beyond the boundary between the classes ``labels`` and ``targets``, both (B,): boundary supporting samples.

    Each step goes down the gradient g of the gap d = z_label - z_target of the logits, by step · (d + epsilon) · g / ‖g‖₂, and
    is cut off at ±clip; an image that is not given its label any more stays where it is (arXiv 1805.05532).
    """
    changed = images
    for _ in range(steps):
        gradient, (gap, told) = _gradient(lambda given: _gap(logits(given), labels, targets), changed)
        going = told == labels
        if images.device.type == "cpu" and not bool(going.any()):  # elsewhere looking means waiting
            break
        norm = gradient.flatten(1).norm(dim=1).clamp(min=_TINY)
        size = step * (gap + epsilon) / norm
        moved = (changed - _as_images(size, images) * gradient).clamp(-clip, clip)
        changed = moved.where(_as_images(going, images), changed)
    return changed


def _as_images(values: Tensor, images: Tensor) -> Tensor:
    """(B, 1, …) from (B,), to go with images."""
    return values.view(-1, *[1] * (images.ndim - 1))


def _gap(logits: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    of_class = (logits.gather(1, which[:, None]).squeeze(1) for which in (labels, targets))
    return next(of_class) - next(of_class), logits.argmax(1)


def _ascent(logits: Logits, images: Tensor, labels: Tensor) -> Tensor:
    gradient, _ = _gradient(lambda given: (losses.cross_entropy(logits(given), labels), given), images)
    return gradient.sign()


def _gradient(
    values: Callable[[Tensor], tuple[Tensor, Tensor]], images: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The gradient of the sum of the first of two tensors by the images, and both without theirs."""
    with torch.enable_grad():
        given = images.detach().requires_grad_()
        value, beside = values(given)
        (gradient,) = torch.autograd.grad(value.sum(), given)
    return gradient, (value.detach(), beside.detach())
