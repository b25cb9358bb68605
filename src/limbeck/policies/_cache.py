"""A key-value cache whose entries are slots: appended in place, forgotten by number, kept by a choice of rows and slots.

Imports transformers, so it is imported where a text is written.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from limbeck.errors import SettingError
from limbeck.policies.writer import Writer


class _Slots(DynamicLayer):
    """A layer's keys and values in a buffer with room to grow.

    Transformers' own layer copies all it holds for each new token; this one writes the new entries behind the others.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.used = room, 0
        self.buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        start, end = self.used, self.used + key_states.shape[-2]
        if self.buffers is None:
            self.lazy_initialization(key_states, value_states)
            self._hold(key_states[:, :, :0], value_states[:, :, :0], max(self.room, end))
        elif end > self.room:
            self._hold(self.keys, self.values, max(end, self.room + self.room // 2))
        assert self.buffers is not None
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self._show(end)
        return self.keys, self.values

    def _hold(self, keys: Tensor, values: Tensor, room: int) -> None:
        """Move what is kept into buffers of ``room`` slots."""
        made = []
        for old in (keys, values):
            rows, heads, used, width = old.shape
            buffer = old.new_empty(rows, heads, room, width)
            buffer[:, :, :used] = old
            made.append(buffer)
        self.buffers, self.room = (made[0], made[1]), room
        self._show(keys.shape[-2])

    def _show(self, used: int) -> None:
        assert self.buffers is not None
        self.used = used
        self.keys, self.values = (buffer[:, :, :used] for buffer in self.buffers)

    def get_seq_length(self) -> int:
        return self.used

    def crop(self, tokens_to_remove: int) -> None:
        """As in transformers, a negative number removes so many from the end."""
        if self.buffers is not None and tokens_to_remove:
            self._show(self.used + tokens_to_remove)

    def keep(self, rows: Tensor | None, slots: Tensor | None) -> None:
        """Keep those ``rows`` (R,), and of each the ``slots`` (R, C), in that order; None keeps all."""
        if self.buffers is None:
            return
        taken = []
        for kept in (self.keys, self.values):
            chosen = kept if rows is None else kept[rows]
            if slots is not None:
                index = slots[:, None, :, None].expand(-1, chosen.shape[1], -1, chosen.shape[3])
                chosen = chosen.gather(2, index)
            taken.append(chosen)
        self._hold(taken[0], taken[1], self.room)


class Context:
    """What a model has read of a batch of texts.

    Raises:
        SettingError: the model keeps a state that cannot be rolled back token by token (Mamba, linear attention).
    """

    def __init__(self, writer: Writer, room: int) -> None:
        self._writer = writer
        kinds = {type(layer) for layer in DynamicCache(config=writer.config).layers} or {DynamicLayer}
        if not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise SettingError(
                f"{type(writer.model).__name__} cannot write here: its cache ({names}) cannot be rolled back token by "
                "token. Models with attention over all tokens, or over a window of them, can."
            )
        # A window is counted in slots, so there must be no masked slots inside of it.
        self.windowed = DynamicSlidingWindowLayer in kinds
        self._cache = DynamicCache()
        self._cache.layer_class_to_replicate = partial(_Slots, room)
        self._trims = writer.accepts("logits_to_keep")
        self.passes = 0

    def feed(self, tokens: Tensor, mask: Tensor | None, positions: Tensor, keep: int) -> Tensor:
        """One pass over ``tokens`` (N, n), which are appended; the logits (N, ``keep``, V) of the last ``keep`` of them.

        Args:
            mask: (N, slots with the new ones) bool, which slots count; None for all.
            positions: (N, n) int64 places of the tokens in their texts.
        """
        self.passes += 1
        extra: dict[str, Any] = {"logits_to_keep": keep} if self._trims else {}
        logits: Tensor = self._writer.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            **extra,
        ).logits
        return logits[:, -keep:, : self._writer.tokens]

    def forget(self, slots: int) -> None:
        """Remove the last slots of every row; no memory is touched."""
        for layer in self._cache.layers:
            layer.crop(-slots)

    def keep(self, rows: Tensor | None, slots: Tensor | None) -> None:
        """Keep those ``rows`` (R,), and of each the ``slots`` (R, C), in that order; None keeps all."""
        for layer in self._cache.layers:
            layer.keep(rows, slots)
