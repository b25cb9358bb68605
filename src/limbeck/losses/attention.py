"""Where in its maps a network is active."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.maps import pool
from limbeck.losses.precision import in_float32


@in_float32
def attention(maps: Tensor) -> Tensor:
    """(B, H·W) mean over the channels of the squares of (B, C, H, W) maps, of unit length for each sample (arXiv 1612.03928).

    It is that of the maps times any number but 0; maps of zeros give zeros.
    """
    return _unit(_energy(maps))


def attention_distances(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """(B, S, T) mean squared differences of the attention of each of S maps from that of each of T maps (arXiv 2102.02973).

    Maps (B, C, H, W) of any channels and sizes. Each pair is compared at the size of the teacher's map: the student's mean
    squares are averaged over regions, or repeated where they are fewer, before they get unit length. What the gradient needs
    of each pair is one plane (B, H·W) and not the maps with their channels.
    """
    energies = [_energy(maps) for maps in student]
    at_size: dict[tuple[int, int], Tensor] = {}
    columns = []
    for maps in teacher:
        size = (maps.shape[-2], maps.shape[-1])
        if size not in at_size:
            at_size[size] = torch.stack([_unit(pool(energy, *size)) for energy in energies], dim=1)
        columns.append(_differences(at_size[size], attention(maps)))
    return torch.stack(columns, dim=2)


@in_float32
def _energy(maps: Tensor) -> Tensor:
    return maps.square().mean(dim=1, keepdim=True)


@in_float32
def _unit(planes: Tensor) -> Tensor:
    return F.normalize(planes.flatten(1), dim=1)


@in_float32
def _differences(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher[:, None]).square().mean(dim=2)
