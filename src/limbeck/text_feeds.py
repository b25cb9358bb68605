"""Text to the streams of batches of a run, and the tokenizer that they are made with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from limbeck.back_translation import parse_back_translation
from limbeck.config import RunSettings, TeacherSettings
from limbeck.data import parse_view_sets
from limbeck.data.text import EvalTokenBatches, TextData, TokenBatches, TokenData, TokenSplit, load_text, tokenised
from limbeck.data.text.corpus import BYTES, CHARACTERS, small_tokenizer, text_of, tokenizer_of_facts
from limbeck.data.text.mixup import TextViews
from limbeck.data.text.tokenizer import Tokenizer
from limbeck.data.views import Views
from limbeck.distributed import rank, world_size
from limbeck.errors import LimbeckError, SettingError
from limbeck.feeds import EvalBatches, Feeds, Few, check_no_search
from limbeck.modalities import Text
from limbeck.models.language import load_tokenizer, parse_lora
from limbeck.models.spec import parse_spec
from limbeck.networks import read_card, resolve
from limbeck.policies import Fixed, parse_policy, parse_sampling
from limbeck.servers import parse_server
from limbeck.text_engine import check_text_engine

_CHECKED = 64  # training texts on which a teacher is scored where there is no validation split
_NOT_FOR_TEXT = (
    "label_noise",
    "imbalance",
    "image_size",
    "views",
    "channels_last",
    "teacher_size",
    "teacher_budget",
)


def read_text(settings: RunSettings) -> TextData | None:
    """The text that the settings name; None where they name something else.

    Raises:
        LimbeckError: what is wrong with it.
    """
    spec = text_of(settings.data)
    if spec is None:
        return None
    return load_text(
        spec,
        columns=settings.columns or None,
        separator=settings.separator,
        val_fraction=settings.val_fraction,
        train_limit=settings.train_limit,
        test_limit=settings.test_limit,
        download=settings.download,
    )


def check_text_settings(settings: RunSettings) -> None:
    """Raise SettingError for a setting that is for images alone."""
    for name in _NOT_FOR_TEXT:
        if getattr(settings, name, None):
            raise SettingError(f"{name} is for images, and {settings.data} is text.")
    if settings.back_translation is not None:
        parse_back_translation(settings.back_translation)
    if settings.student_lora is not None:
        parse_lora(settings.student_lora)
    check_no_search(settings)
    if isinstance(settings, TeacherSettings):
        parse_policy(settings.policy)
        for name in ("student_sampling", "teacher_sampling"):
            try:
                parse_sampling(getattr(settings, name))
            except SettingError as error:
                raise SettingError(f"{name}: {error}") from None
        check_text_engine(settings)
        writes = parse_policy(settings.policy) != Fixed() and parse_server(settings.teacher) is None
        if settings.teacher_cache is not None and writes:
            raise SettingError(
                f"teacher_cache keeps what the teacher says of the data's own answers, and policy: {settings.policy} has "
                "others written in every step, of which it says nothing; train without teacher_cache, or with policy fixed."
            )
    views = _views(settings)
    if getattr(settings, "mixed_targets", False) and (views is None or not views.mixed):
        raise SettingError(
            "mixed_targets is a control of mixup, and no text is mixed; give --augment 'none | mixup=0.4'."
        )


def _views(settings: RunSettings) -> TextViews | None:
    """How often and how each text is in a batch; None for once, as it is."""
    if settings.augment == "auto":
        return None
    views = TextViews(parse_view_sets(settings.augment))
    return None if views == TextViews((Views(),)) else views


def tokens_of(text: TextData, settings: RunSettings, networks: Iterable[object]) -> TokenData:
    """The text as tokens of the tokenizer that the settings name, or else of the first network that has one.

    networks: the teacher and the students as they were given, text or modules; modules have no tokenizer.

    Raises:
        LimbeckError: there is no such tokenizer, or the text cannot be made tokens.
    """
    tokenizer, facts = _tokenizer(text, settings, [each for each in networks if isinstance(each, str)])
    return tokenised(
        text, tokenizer, facts, max_length=settings.max_length, too_long=settings.too_long, chat=settings.chat
    )


def _tokenizer(text: TextData, settings: RunSettings, networks: list[str]) -> tuple[Tokenizer, Mapping[str, Any]]:
    if settings.tokenizer in (BYTES, CHARACTERS):
        return small_tokenizer(settings.tokenizer, _examples(text))
    if settings.tokenizer is not None:
        return load_tokenizer(settings.tokenizer), {"kind": "network", "spec": settings.tokenizer}
    for network in networks:
        found = _of_network(network)
        if found is not None:
            return found
    # Few kinds of characters are learnt faster one by one; all of Unicode are too many.
    kind = CHARACTERS if text.name == "arithmetic" else BYTES
    return small_tokenizer(kind, _examples(text))


def check_same_tokens(data: TokenData, networks: Iterable[str]) -> None:
    """Raise SettingError for a network whose own tokenizer makes other tokens than the data's: nothing it says compares."""
    for network in networks:
        found = _of_network(network)
        if found is not None and _kinds_of(found[0]) != _kinds_of(data.tokenizer):
            raise SettingError(
                f"{network} has a tokenizer of its own, with {len(found[0]):,} tokens, and the text is in {data.vocabulary:,} "
                "tokens of another: per token, networks with different tokenizers cannot be compared. Evaluate it alone, with "
                "--teacher none."
            )


def _kinds_of(tokenizer: Any) -> object:
    """What tells whether two tokenizers have the same tokens by the same numbers."""
    known = getattr(tokenizer, "get_vocab", None)
    return known() if callable(known) else (type(tokenizer), getattr(tokenizer, "alphabet", None))


def _examples(text: TextData) -> list[Any]:
    return [example for split in (text.train, text.val, text.test) for example in split or ()]


def _of_network(network: str) -> tuple[Tokenizer, Mapping[str, Any]] | None:
    spec = resolve(network)
    facts = read_card(parse_spec(spec, unprefixed="language").weights or "").get("tokenizer")
    if facts is not None:
        known = tokenizer_of_facts(facts)
        return (known, facts) if known is not None else (load_tokenizer(facts["spec"]), facts)
    try:
        return load_tokenizer(spec), {"kind": "network", "spec": spec.partition("@")[0]}
    except LimbeckError:
        return None


def text_feeds(data: TokenData, settings: RunSettings, device: torch.device) -> Feeds:
    """Feeds of rows of tokens, those of similar length together.

    Raises:
        SettingError: the settings do not fit the data.
    """
    validation = _in_order(data.val, settings, device)
    views = _views(settings)
    train = _training(data.train, settings, views)
    return Feeds(
        name=data.name,
        train=train,
        validation=validation,
        test=_in_order(data.test, settings, device),
        check=validation or Few(train if views is None else _training(data.train, settings, None), _CHECKED),
        modality=Text(data, _longest_answer(settings), "" if views is None else settings.augment),
        classes=data.text.classes or None,
    )


def _longest_answer(settings: RunSettings) -> int:
    """Tokens of the longest answer that is written in a run; 0 where none is."""
    writes = settings.answers or getattr(settings, "policy", "fixed") != "fixed"
    return settings.max_new_tokens if writes else 0


def _training(split: TokenSplit, settings: RunSettings, views: TextViews | None) -> TokenBatches:
    return TokenBatches(
        split,
        settings.data_seed,
        batch_size=None if settings.token_budget else settings.batch_size,
        token_budget=settings.token_budget,
        packing=settings.packing,
        views=views,
        rank=rank(),
        world_size=world_size(),
    )


def _in_order(split: TokenSplit | None, settings: RunSettings, device: torch.device) -> EvalBatches | None:
    if split is None:
        return None
    size = min(settings.batch_size, len(split))
    batches = EvalTokenBatches(split, size, device=device, rank=rank(), world_size=world_size())
    return lambda: batches
