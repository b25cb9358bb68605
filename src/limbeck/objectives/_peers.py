"""What the online methods share: a network that diverges is left out, and how the others do is watched."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.distributed import rank
from limbeck.signals import Batch

logger = logging.getLogger("limbeck")

# Differences and batch means of smaller logits are finite in float32.
_LARGEST = 1e30


@losses.in_float32
def sound(peers: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K, C) logits of K networks with zeros for those that have diverged, and which (K,) have not.

    Diverged is a network of which a logit in the batch is NaN, infinite or larger than 1e30. No gradient reaches it.
    """
    within = peers.detach().isfinite() & (peers.detach().abs() <= _LARGEST)
    alive = within.all(dim=0).all(dim=-1)
    # where, not a product: NaN times zero is NaN.
    return torch.where(alive[:, None], peers, 0.0), alive


class Watch(nn.Module):
    """How the networks beside a student do on the training data, and in how many steps each was left out.

    Counts stay on the device, and are in the checkpoint. Of several processes each counts its own samples, and the first
    one's are told.

    Args:
        objective: its name, for the warning. names: of the networks.
    """

    def __init__(self, objective: str, names: Sequence[str]) -> None:
        super().__init__()
        self.objective, self.names = objective, list(names)
        self._warned = False
        for count in ("correct", "seen", "left_out"):
            self.register_buffer(count, torch.zeros(len(names), dtype=torch.int64))

    correct: Tensor
    seen: Tensor
    left_out: Tensor

    @torch.no_grad()
    def note(self, logits: Sequence[Tensor], alive: Tensor, batch: Batch) -> None:
        """Take in the (B, C) logits of each network in a step, and which (K,) of them take part in it."""
        if not self.training:
            return
        right = torch.stack([(each.argmax(dim=-1) == batch.labels).sum() for each in logits])
        self.correct += right
        self.seen += len(batch)
        self.left_out += ~alive

    def monitors(self) -> dict[str, Tensor]:
        """Accuracies since the last call; and the steps without it for a network that was left out, with a warning once."""
        accuracy = self.correct / self.seen.clamp(min=1)
        left_out = self.left_out.tolist()
        self.correct.zero_()
        self.seen.zero_()
        if any(left_out) and not self._warned and rank() == 0:
            self._warned = True
            gone = ", ".join(f"{name} ({steps})" for name, steps in zip(self.names, left_out, strict=True) if steps)
            logger.warning(
                "%s: some logits of %s were NaN, infinite or beyond %.0e; in brackets is in how many steps so far. The student "
                "goes on without it in such steps. A lower learning rate or clip_norm=1 often helps.",
                self.objective,
                gone,
                _LARGEST,
            )
        found = {f"{name}.accuracy": accuracy[number] for number, name in enumerate(self.names)}
        return found | {
            f"{name}.left_out": self.left_out[number].clone()
            for number, name in enumerate(self.names)
            if left_out[number]
        }
