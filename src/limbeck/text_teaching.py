"""The teacher of students on text: what it says of fixed texts can be kept."""

from __future__ import annotations

from torch import nn

from limbeck.caching import check_maps
from limbeck.combination import Combination
from limbeck.data.text import TokenData
from limbeck.errors import SettingError
from limbeck.surroundings import Surroundings
from limbeck.teaching import Compute, Teaching
from limbeck.text_caching import TextCaches


class TextTeaching(Teaching):
    """Its cache has an entry for each text, or for each position that is learnt.

    Args:
        data: the run's texts. views: how training texts are seen, where not once as they are.
    """

    def __init__(
        self,
        data: TokenData,
        views: str,
        teacher: str | nn.Module | Combination,
        needs: frozenset[str],
        around: Surroundings,
    ) -> None:
        self._data, self._views = data, views
        super().__init__(teacher, needs, around)

    def _check_cache(self) -> None:
        settings = self._around.distill
        if settings.teacher_cache is not None and self._views:
            raise SettingError(
                f"teacher_cache keeps what the teacher says of each text as it is, and augment is '{self._views}'."
            )
        check_maps(settings, self._needs)

    def _caches_of(self, compute: Compute) -> TextCaches:
        around = self._around
        return TextCaches(around.distill, self._data, self.network, compute, around.device, around.say)
