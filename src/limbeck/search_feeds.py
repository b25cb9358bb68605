"""A collection to the streams of batches of a run, in the tokens of its networks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from limbeck.combination import Combination, parse_combination
from limbeck.config import RunSettings
from limbeck.data.search import (
    BM25,
    EvalPairBatches,
    ExtraQueries,
    KnownTexts,
    Limits,
    PairBatch,
    PairBatches,
    Reading,
    SearchCorpus,
    SearchData,
    corpus_of,
    divided,
    load_search,
    read_queries,
    search_of,
    with_extra,
    word_tokenizer,
)
from limbeck.data.search.report import SearchReport
from limbeck.distributed import rank, world_size
from limbeck.errors import DataError, SettingError
from limbeck.feeds import EvalBatches, Feeds, Few, check_no_writing
from limbeck.modalities import Search
from limbeck.modalities.search_networks import (
    SCORES,
    check_encodes_documents,
    has_tokenizer,
    is_encoder,
    opened,
    reading_of,
    scores_its_own,
)
from limbeck.models.language import load_tokenizer
from limbeck.search_mining import check_mining, check_scorers, teacher_miner
from limbeck.signals import Batch
from limbeck.text_memory import Say, read_texts

_CHECKED = 256  # training queries on which a teacher is scored where there is no validation split
_NEEDS = frozenset({"labels", "logits", "embedding", "documents", "extra"})
_NOT_FOR_SEARCH = (
    *("label_noise", "imbalance", "image_size", "views", "channels_last", "teacher_size", "teacher_budget"),
    *("too_long", "chat", "columns", "separator", "packing", "token_budget", "student_lora", "back_translation"),
)

Model = str | nn.Module


def read_search(settings: RunSettings) -> tuple[SearchData, SearchReport] | None:
    """The collection that the settings name, as its files divide it; None where they name something else.

    Raises:
        LimbeckError: what is wrong with it.
    """
    spec = search_of(settings.data)
    return None if spec is None else load_search(spec)


def check_search_settings(settings: RunSettings, needs: Collection[str]) -> None:
    """Raise SettingError for a setting that is for other data, or an objective that needs what encoders do not give."""
    for name in _NOT_FOR_SEARCH:
        if getattr(settings, name, None):
            raise SettingError(f"{name} is for other data, and {settings.data} is a collection for search.")
    if settings.augment not in ("auto", "none"):
        raise SettingError(f"augment is for images, and {settings.data} is a collection for search.")
    check_no_writing(settings)
    if settings.accumulation > 1:
        raise SettingError(
            "accumulation: the queries of a batch have its documents for negatives, so that micro-batches would change what is "
            "learnt. With embed_chunk=N texts at a time a batch takes the memory of a chunk, and is learnt from as a whole."
        )
    check_mining(settings)
    if "extra" in needs and settings.extra_queries is None:
        raise SettingError("the objective compares queries without judgements: give a file of them with extra_queries.")
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
    accelerator: Accelerator | None = None,
    say: Say = lambda line: None,
) -> SearchCorpus:
    """The collection as these networks read it. The networks are opened for that, and let go again, but a teacher that mines.

    accelerator: on which a teacher mines; may be left out where none does.

    Raises:
        LimbeckError: a network cannot be opened, or students read differently; too few queries, or too few documents.
    """
    limits = Limits(settings.train_limit, settings.test_limit)
    split = divided(data, settings.split_seed, val=settings.val_fraction, test=settings.test_fraction, limits=limits)
    extra = None
    if settings.extra_queries is not None:
        split, extra = with_extra(split, read_queries(settings.extra_queries))
    teachers, made = _members(teacher), [each if isinstance(each, Model) else each() for each in students]
    check_scorers(teachers, split, settings)
    encoders = [each for each in teachers if is_encoder(each)]
    tokenizer = _tokenizer(split, settings, [*encoders, *made])
    readings, similarity = _readings(encoders, made, tokenizer, settings)
    own = readings["teacher"][0] if encoders else None
    miner, known = BM25 if settings.mining == "bm25" else None, dict[object, KnownTexts]()
    if settings.mining == "teacher":
        assert own is not None
        assert accelerator is not None
        name, encoder = opened(encoders[0], tokenizer, settings.max_length, similarity)
        say(f"data        {split.name}: {len(split.documents):,} documents, in which {name} looks for negatives")
        found = KnownTexts(name, encoder.to(accelerator.device), own.of(split), encoder.similarity)
        with accelerator.autocast():
            read_texts(found, split, own, settings, accelerator.device, say, extra=extra)
        known, miner = {encoders[0]: found}, teacher_miner(found, settings.mining_margin, settings.mining_share)
    corpus = corpus_of(
        split,
        report,
        readings["student"][0],
        own,
        tokenizer=tokenizer,
        similarity=similarity,
        negatives=settings.negatives,
        mining=None if SCORES in teachers else miner,
        seed=settings.split_seed,
        known=known,
        own_scores=any(map(scores_its_own, teachers)),
        extra=extra,
    )
    if SCORES in teachers and corpus.pairs["train"].scores is None:
        raise DataError(
            f"teacher=scores: examples of {split.name} have fewer than {settings.negatives} negatives with scores; give "
            "fewer negatives."
        )
    return corpus


def _readings(
    teachers: Sequence[Model], students: Sequence[Model], tokenizer: Any, settings: RunSettings
) -> tuple[dict[str, list[Reading]], str]:
    """How teachers and students read texts, all of one kind the same, and how the first of them scores."""
    similarity: str | None = None
    readings: dict[str, list[Reading]] = {"teacher": [], "student": []}
    for who, models in (("teacher", teachers), ("student", students)):
        # Seeds of one student are one text.
        for model in dict.fromkeys(models):
            if who == "teacher":
                check_encodes_documents(model)
            encoder = opened(model, tokenizer, settings.max_length, similarity)[1]
            similarity = similarity or encoder.similarity
            readings[who].append(reading_of(encoder, settings.max_length))
        if len({reading.key for reading in readings[who]}) > 1:
            raise SettingError(
                f"{who}s read texts differently (tokenizer, length or prompts), and those of one pass must read the same "
                "tokens; take them one by one."
            )
    assert similarity is not None
    return readings, similarity


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
        extra=None if corpus.extra is None else ExtraQueries(corpus.extra, settings.data_seed),
        rank=rank(),
        world_size=world_size(),
    )
    if settings.batch_size < 2 and not settings.negatives:
        raise DataError("batch_size=1 without negatives: a query needs other documents than its own.")
    train = _Training(pairs, corpus.own_scores)
    validation = _in_order(corpus, "val", settings, device)
    return Feeds(
        name=corpus.name,
        train=train,
        validation=validation,
        test=_in_order(corpus, "test", settings, device),
        check=validation or Few(train, _CHECKED),
        modality=Search(corpus, settings.max_length, settings.batch_size, settings.embed_chunk),
    )


def _in_order(corpus: SearchCorpus, part: str, settings: RunSettings, device: torch.device) -> EvalBatches | None:
    if part not in corpus.pairs:
        return None
    batches = EvalPairBatches(
        corpus.data,
        corpus.pairs[part],
        corpus.student_texts,
        batch_size=settings.batch_size,
        device=device,
        rank=rank(),
        world_size=world_size(),
    )
    return lambda: map(_as_batch, batches)


def _as_batch(pairs: PairBatch) -> Batch:
    return Batch(inputs=pairs, labels=pairs.labels, excluded=pairs.excluded)


@dataclass(frozen=True)
class _Training:
    """Batches of pairs by the protocol of ``signals.Batches``.

    own_scores: whether the teacher scores each query's own documents alone.
    """

    pairs: PairBatches
    own_scores: bool

    @property
    def batch_size(self) -> int:
        return self.pairs.batch_size

    def __len__(self) -> int:
        return len(self.pairs)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        batches = map(_as_batch, self.pairs.epoch(number, start))
        return map(_own_alone, batches) if self.own_scores else batches


def _own_alone(batch: Batch) -> Batch:
    return replace(batch, unscored=batch.inputs.others)
