"""Python's, NumPy's and PyTorch's global random generators as one thing that is put aside and brought back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomState:
    """A state of the global generators; ``cuda`` is the current device's, None while none is in use."""

    torch: Tensor
    numpy: tuple[Any, ...]
    python: tuple[Any, ...]
    cuda: Tensor | None = None

    @classmethod
    def now(cls) -> RandomState:
        """The present state."""
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        numpy_state = cast(tuple[Any, ...], np.random.get_state(legacy=True))
        return cls(torch.get_rng_state(), numpy_state, random.getstate(), cuda)

    @classmethod
    def seeded(cls, seed: int) -> RandomState:
        """The CPU generators' state after seeding; a GPU's generator is left out."""
        numpy_state = cast(tuple[Any, ...], np.random.RandomState(seed % 2**32).get_state(legacy=True))
        return cls(torch.Generator().manual_seed(seed).get_state(), numpy_state, random.Random(seed).getstate())

    def restore(self) -> None:
        """Make it the present state."""
        torch.set_rng_state(self.torch)
        np.random.set_state(self.numpy)
        random.setstate(self.python)
        if self.cuda is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.cuda)

    def as_plain(self) -> dict[str, Any]:
        """Tensors, numbers, strings and lists only, so that it can be read again without unpickling anything else."""
        name, key, *rest = self.numpy
        numpy_state = [name, torch.from_numpy(key.astype(np.int64)), *rest]
        return {"torch": self.torch, "numpy": numpy_state, "python": self.python, "cuda": self.cuda}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> RandomState:
        """The reverse of :meth:`as_plain`."""
        name, key, *rest = plain["numpy"]
        return cls(plain["torch"], (name, key.numpy().astype(np.uint32), *rest), plain["python"], plain["cuda"])


class RandomStream:
    """A stream of random numbers of its own: inside :meth:`active` the global generators go on from where it was left."""

    def __init__(self, state: RandomState) -> None:
        self._state = state
        self._active = False

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside the block the global generators are this stream's; afterwards they are as before. Blocks may be nested."""
        if self._active:
            yield
            return
        before = RandomState.now()
        self._state.restore()
        self._active = True
        try:
            yield
        finally:
            self._state = RandomState.now()
            self._active = False
            before.restore()

    @property
    def state(self) -> RandomState:
        """Where it is."""
        return RandomState.now() if self._active else self._state

    @state.setter
    def state(self, state: RandomState) -> None:
        self._state = state
        if self._active:
            state.restore()
