"""A run's teacher cache of fixed texts: what the teacher says at each position that is learnt, or of each text's class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch

from limbeck.caching import beside_of, find_or_write
from limbeck.config import TeacherSettings
from limbeck.data.text import TokenData, TokenSplit
from limbeck.data.text.collate import Collate
from limbeck.errors import CacheError
from limbeck.fingerprint import of_module, of_tensors, of_words
from limbeck.matching import Names
from limbeck.networks import Network
from limbeck.signals import Batch, Signals
from limbeck.teachers import (
    AskedOnceTeacher,
    CachedTeacher,
    CachePlan,
    Identity,
    Teacher,
    parse_codec,
    plan_cache,
    spot_check,
)
from limbeck.teachers.cache import SlotBatches, TeacherCache
from limbeck.teachers.cached_tokens import (
    AS_THEY_ARE,
    Asked,
    CachedTokenTeacher,
    PositionBatches,
    TextBatches,
    TokenPlaces,
)

Say = Callable[[str], None]


class TextCaches:
    """The cache of the training texts in one folder; by the protocol :class:`limbeck.caching.SplitCaches`.

    compute: the teacher's signals for a batch, live. teacher: what tells it from others, in words and digits; found out from
    its weights when not given; one that is told is asked about no more than a batch again after the run was cut off.
    """

    def __init__(
        self,
        settings: TeacherSettings,
        data: TokenData,
        network: Network,
        compute: Callable[[Batch], Signals],
        device: torch.device,
        say: Say,
        *,
        teacher: str | None = None,
    ) -> None:
        assert settings.teacher_cache is not None
        self.folder: Path = settings.teacher_cache / "train"
        self.settings, self.data, self.network, self.compute = settings, data, network, compute
        self.device, self.say, self.teacher = device, say, teacher

    def of_training(self, needs: frozenset[str], names: Sequence[Names]) -> Teacher:
        """See :meth:`limbeck.caching.SplitCaches.of_training`."""
        maps = sorted({path for each in names for paths in each.values() for path in paths.values()})
        if maps:
            raise CacheError(
                f"a teacher cache of text holds no feature maps ({', '.join(maps)}); train without teacher_cache."
            )
        teacher: CachedTeacher | CachedTokenTeacher
        if self._places is not None:
            index = torch.arange(len(self._places))
            teacher = CachedTokenTeacher(self._opened, self._places, self.device)
        else:
            index = self._split.index
            teacher = CachedTeacher(self._opened, AS_THEY_ARE, index, self.device)
        teacher.require(needs)
        if self.settings.cache_check:
            spot_check(self._opened, self._batches, self._said, index=index, count=self.settings.cache_check)
        return AskedOnceTeacher(teacher) if isinstance(teacher, CachedTeacher) else teacher

    def of_evaluation(self, name: str) -> None:
        """Nothing: what scores a student is the teacher itself, whose logits are not cut to the largest there."""

    @property
    def _split(self) -> TokenSplit:
        return self.data.train

    @cached_property
    def _places(self) -> TokenPlaces | None:
        """The positions that are learnt; None where texts are classified."""
        if self.data.task != "causal":
            return None
        return TokenPlaces.of_rows(self._split.lengths, self._split.prompts, self._split.index)

    @cached_property
    def _batches(self) -> SlotBatches:
        collate = Collate(self._split)
        if self._places is None:
            return TextBatches(collate, self.device)
        return PositionBatches(self._places, collate, self.device)

    def _said(self, batch: Batch) -> Signals:
        if isinstance(batch.inputs, Asked):
            return batch.inputs.to_signals(self.compute(batch.inputs.texts))
        return self.compute(batch)

    @cached_property
    def _opened(self) -> TeacherCache:
        entries, what = (len(self._split), "texts") if self._places is None else (len(self._places), "positions")
        keep = ["logits", *(["embedding"] if self._places is None and self.network.tapped.classifier else [])]
        identity = self._identity(entries)
        # As many at once as a batch of training has.
        size = max(1, self.settings.batch_size * entries // len(self._split))

        def plan() -> CachePlan:
            few = torch.arange(min(2, entries))
            (batch,) = self._batches.at([(few, torch.zeros_like(few))])
            most = None if self.teacher is None else size
            return plan_cache(identity, entries, 1, self._said(batch), keep=keep, file_samples=most)

        return find_or_write(self.folder, identity, plan, self._batches, self._said, what, size, self.say)

    def _identity(self, entries: int) -> Identity:
        split, settings, data = self._split, self.settings, self.data
        parts = {"tokens": split.tokens, "ends": split.ends, "prompts": split.prompts, "index": split.index}
        parts |= {name: value for name in ("labels", "types") if (value := getattr(split, name)) is not None}
        # By what it knows and not by its name: a folder that was moved holds the same tokenizer.
        facts = {name: value for name, value in data.tokenizer_facts.items() if name != "spec"}
        names: dict[str, int] = getattr(data.tokenizer, "get_vocab", dict)()
        words = (f"{number} {name}" for name, number in sorted(names.items(), key=lambda item: item[1]))
        tokenizer = f"of {data.vocabulary:,} tokens {of_words(str(facts), *words)}"
        network = self.network.tapped.network
        return Identity(
            teacher=self.teacher or f"{type(network).__name__} {of_module(network)}",
            data=f"{len(split):,} texts, {entries:,} answers {of_tensors(**parts)}",
            views=AS_THEY_ARE.text,
            table=of_tensors(ids=AS_THEY_ARE.ids),
            preprocess=f"tokenizer {tokenizer}, at most {data.max_length} tokens",
            precision=settings.precision,
            dtype=settings.cache_dtype,
            logits=parse_codec(settings.cache_logits).text,
            beside=beside_of(self.network),
        )
