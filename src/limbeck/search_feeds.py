"""A collection to the streams of batches of a run, in the tokens of its networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from limbeck.combination import Combination, parse_combination
from limbeck.config import RunSettings
from limbeck.data.search import (
    EvalPairBatches,
    Limits,
    PairBatch,
    PairBatches,
    Reading,
    SearchCorpus,
    SearchData,
    corpus_of,
    divided,
    load_search,
    search_of,
    word_tokenizer,
)
from limbeck.data.search.report import SearchReport
from limbeck.distributed import rank, world_size
from limbeck.errors import DataError, SettingError
from limbeck.feeds import EvalBatches, Feeds, Few
from limbeck.modalities import Search
from limbeck.modalities.search import has_tokenizer, opened, reading_of
from limbeck.models.language import load_tokenizer
from limbeck.signals import Batch

_CHECKED = 256  # training queries on which a teacher is scored where there is no validation split
_NEEDS = frozenset({"labels", "logits", "embedding", "documents"})
_NOT_FOR_SEARCH = (
    *("label_noise", "imbalance", "image_size", "views", "channels_last", "teacher_size", "teacher_budget"),
    *("teacher_cache", "too_long", "chat", "columns", "separator", "packing", "token_budget", "student_lora"),
)

Model = str | nn.Module


def read_search(settings: RunSettings) -> tuple[SearchData, SearchReport] | None:
    """The collection that the settings name, as its files divide it; None where they name something else.

    Raises:
        LimbeckError: what is wrong with it.
    """
    spec = search_of(settings.data)
    return None if spec is None else load_search(spec)


def check_search_settings(settings: RunSettings, needs: Iterable[str]) -> None:
    """Raise SettingError for a setting that is for other data, or an objective that needs what encoders do not give."""
    for name in _NOT_FOR_SEARCH:
        if getattr(settings, name, None):
            raise SettingError(f"{name} is for other data, and {settings.data} is a collection for search.")
    if settings.augment not in ("auto", "none"):
        raise SettingError(f"augment is for images, and {settings.data} is a collection for search.")
    if getattr(settings, "policy", "fixed") != "fixed":
        raise SettingError("policy says which text is written, and in search none is.")
    if settings.accumulation > 1:
        raise SettingError(
            "accumulation: the queries of a batch have its documents for negatives, so that micro-batches would change what is "
            "learnt. Use a smaller batch_size with more negatives, bf16, gradient_checkpointing, or more processes."
        )
    beyond = sorted(set(needs) - _NEEDS)
    if beyond:
        raise SettingError(
            f"the objective needs {', '.join(beyond)}, and of encoders there are {', '.join(sorted(_NEEDS))}: take "
            "contrastive, listwise_kl, margin_mse, embed_match, documents(…), or others that compare scores or embeddings."
        )


def search_corpus(
    data: SearchData,
    report: SearchReport,
    settings: RunSettings,
    teacher: Model | Combination | None,
    students: Sequence[Model | Callable[[], nn.Module]],
) -> SearchCorpus:
    """The collection as these networks read it. The networks are opened for that, and let go again.

    Raises:
        LimbeckError: a network cannot be opened, or students read differently; too few queries, or too few documents.
    """
    limits = Limits(settings.train_limit, settings.test_limit)
    split = divided(data, settings.split_seed, val=settings.val_fraction, test=settings.test_fraction, limits=limits)
    teachers, made = _members(teacher), [each if isinstance(each, Model) else each() for each in students]
    tokenizer = _tokenizer(split, settings, [*teachers, *made])
    similarity: str | None = None
    readings: dict[str, list[Reading]] = {"teacher": [], "student": []}
    for who, models in (("teacher", teachers), ("student", made)):
        # Seeds of one student are one text.
        for model in dict.fromkeys(models):
            encoder = opened(model, tokenizer, settings.max_length, similarity)[1]
            similarity = similarity or encoder.similarity
            readings[who].append(reading_of(encoder, settings.max_length))
        if len({reading.key for reading in readings[who]}) > 1:
            raise SettingError(
                f"{who}s read texts differently (tokenizer, length or prompts), and those of one pass must read the same "
                "tokens; train them one by one."
            )
    assert similarity is not None
    return corpus_of(
        split,
        report,
        readings["student"][0],
        readings["teacher"][0] if teachers else None,
        tokenizer=tokenizer,
        similarity=similarity,
        negatives=settings.negatives,
        mining=settings.mining,
        seed=settings.split_seed,
    )


def _members(teacher: Model | Combination | None) -> list[Model]:
    combination = parse_combination(teacher) if isinstance(teacher, str) else teacher
    if isinstance(combination, Combination):
        return list(combination.members)
    assert not isinstance(teacher, Combination)
    return [] if teacher is None else [teacher]


def _tokenizer(data: SearchData, settings: RunSettings, networks: Sequence[Model]) -> Any:
    """For encoders that are made in place: the one named, the first network's own, or the collection's words."""
    if all(map(has_tokenizer, networks)):
        return None
    if settings.tokenizer in ("bytes", "characters"):
        raise SettingError(
            f"tokenizer: {settings.tokenizer} are for language models; encoders learn words, or name hf:FOLDER."
        )
    if settings.tokenizer is not None:
        return load_tokenizer(settings.tokenizer)
    own = next((network for network in networks if has_tokenizer(network)), None)
    if own is not None:
        return opened(own, None, settings.max_length)[1].tokenizer
    asked = data.training() if data.examples or "train" in data.judgements else ()
    queries = dict.fromkeys(data.queries.texts[example.query] for example in asked)
    return word_tokenizer([*data.documents.texts, *queries])


def search_feeds(corpus: SearchCorpus, settings: RunSettings, device: torch.device) -> Feeds:
    """Feeds of pairs: for training drawn anew in every epoch, else in order.

    Raises:
        SettingError: the settings do not fit the collection.
    """
    pairs = PairBatches(
        corpus.data,
        corpus.pairs["train"],
        corpus.student_texts,
        settings.data_seed,
        batch_size=settings.batch_size,
        teacher=corpus.teacher_texts,
        rank=rank(),
        world_size=world_size(),
    )
    if settings.batch_size < 2 and not settings.negatives:
        raise DataError("batch_size=1 without negatives: a query needs other documents than its own.")
    train = _Training(pairs)
    validation = _in_order(corpus, "val", settings, device)
    return Feeds(
        name=corpus.name,
        train=train,
        validation=validation,
        test=_in_order(corpus, "test", settings, device),
        check=validation or Few(train, _CHECKED),
        modality=Search(corpus, settings.max_length),
    )


def _in_order(corpus: SearchCorpus, part: str, settings: RunSettings, device: torch.device) -> EvalBatches | None:
    if part not in corpus.pairs:
        return None
    batches = EvalPairBatches(
        corpus.data,
        corpus.pairs[part],
        corpus.student_texts,
        batch_size=settings.batch_size,
        teacher=corpus.teacher_texts,
        device=device,
        rank=rank(),
        world_size=world_size(),
    )
    return lambda: map(_as_batch, batches)


def _as_batch(pairs: PairBatch) -> Batch:
    return Batch(inputs=pairs, labels=pairs.labels, excluded=pairs.excluded)


@dataclass(frozen=True)
class _Training:
    """Batches of pairs by the protocol of ``signals.Batches``."""

    pairs: PairBatches

    @property
    def batch_size(self) -> int:
        return self.pairs.batch_size

    def __len__(self) -> int:
        return len(self.pairs)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        return map(_as_batch, self.pairs.epoch(number, start))
