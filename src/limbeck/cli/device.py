"""The device a setting means, for verbs that do not train."""

from __future__ import annotations

import torch

from limbeck.errors import SettingError, check_choice


def pick_device(name: str) -> torch.device:
    """``auto`` is the best there is. Raises SettingError for a device that is not here."""
    check_choice("device", name, ("auto", "cpu", "cuda", "mps"))
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, present in here.items() if present))
    if not here[name]:
        raise SettingError(f"device is '{name}', and PyTorch sees none here. 'limbeck doctor' tells what it sees.")
    return torch.device(name)
