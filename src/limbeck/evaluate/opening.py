"""Networks opened for an evaluation, each kind of data in its own way, on the bench of that kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from limbeck.combination import Combination, open_teacher, parse_combination
from limbeck.config import RunSettings
from limbeck.data import ImageData
from limbeck.data.search import SearchCorpus
from limbeck.data.text import EvalTokenBatches, TokenData
from limbeck.errors import SettingError
from limbeck.evaluate.bench import TEACHER, Bench, Options
from limbeck.evaluate.image_bench import ImageBench, check_classes, split_of
from limbeck.evaluate.record import Kind
from limbeck.evaluate.search_bench import SearchBench, check_part
from limbeck.evaluate.text_bench import LanguageBench, TextClassBench, text_split
from limbeck.feeds import every_sample
from limbeck.modalities import Images, Modality, Search, Text, modality_of
from limbeck.modalities.search_networks import documents_of
from limbeck.networks import Network
from limbeck.pair_taps import PairTapped
from limbeck.search_feeds import search_feeds
from limbeck.signals import Batch

# Of these sources a network without weights is random, so its figures would say nothing.
_RANDOM_WITHOUT_WEIGHTS = ("zoo", "timm", "torchvision", "language")
_HERE = ("zoo", "language")

Model = str | nn.Module | Combination
"""Run folder, weights file that limbeck wrote, network by name as in NAME@FILE, or the network itself; a teacher of several."""
Data = ImageData | TokenData | SearchCorpus
"""What is evaluated on, read and, where it is text or a collection, in tokens."""


@dataclass(frozen=True)
class Look:
    """How networks are looked at; settings: what text is written, and the most tokens of a text."""

    split: str
    device: torch.device
    batch_size: int
    workers: int
    options: Options
    settings: RunSettings


def kind_of(data: Data) -> Kind:
    """The kind of data, which says what parts there are."""
    return modality_of(data, "").evaluated_as(data)


def file_of(model: Model, data: Data) -> Path | None:
    """The weights file of a network that is named by one; None for others."""
    if not isinstance(model, str) or parse_combination(model) is not None:
        return None
    weights = modality_of(data, "").spec(model).weights
    return None if weights is None else Path(weights).expanduser()


def open_bench(given: Mapping[str, Model], data: Data, look: Look, sizes: Mapping[str, int]) -> Bench:
    """The networks on the bench of their data, each tried on a batch.

    Raises:
        LimbeckError: a network that does not exist, would be random or does not fit the data; no such split.
    """
    return _OPEN[kind_of(data)](given, data, look, sizes)


def _images(given: Mapping[str, Model], data: ImageData, look: Look, sizes: Mapping[str, int]) -> ImageBench:
    probe = next(iter(every_sample(data, split_of(data, look.split), 2, look.device, 0)))
    networks = {who: _open(each, who, Images(data), probe, look, sizes.get(who)) for who, each in given.items()}
    for who, network in networks.items():
        with torch.no_grad():  # refused now, and not after a pass over the whole split
            for each in network.all:
                name = f"{who}, {each.name}" if network.beside else who
                check_classes(name, each.tapped(each.preprocess(probe.inputs.to(look.device))).logits, data)
    return ImageBench(networks, look.split, look.device, look.batch_size, look.workers, look.options, data=data)


def _classified(given: Mapping[str, Model], data: TokenData, look: Look, sizes: Mapping[str, int]) -> TextClassBench:
    networks = _of_text(given, data, look)
    return TextClassBench(networks, look.split, look.device, look.batch_size, 0, look.options, data=data)


def _language(given: Mapping[str, Model], data: TokenData, look: Look, sizes: Mapping[str, int]) -> LanguageBench:
    networks = _of_text(given, data, look)
    return LanguageBench(
        networks, look.split, look.device, look.batch_size, 0, look.options, data=data, settings=look.settings
    )


def _of_text(given: Mapping[str, Model], data: TokenData, look: Look) -> dict[str, Network]:
    probe = next(iter(EvalTokenBatches(text_split(data, look.split), 2, device=look.device)))
    answers = look.settings.max_new_tokens if "answers" in look.options.parts else 0
    modality = Text(data, answers)
    return {who: _open(each, who, modality, probe, look, None) for who, each in given.items()}


def _search(given: Mapping[str, Model], data: SearchCorpus, look: Look, sizes: Mapping[str, int]) -> SearchBench:
    check_part(data, look.split)
    length = look.settings.max_length
    # No query is learnt, so that a batch may be larger than there are.
    few = look.settings.model_copy(update={"batch_size": min(look.settings.batch_size, len(data.pairs["train"]))})
    probe = next(iter(search_feeds(data, few, look.device).check()))
    modality = Search(data, length, look.batch_size)
    networks = {who: _open(each, who, modality, probe, look, None) for who, each in given.items()}
    for who, network in networks.items():
        _lend_documents(who, network, given[who], networks.get(TEACHER))
    return SearchBench(
        networks, look.split, look.device, look.batch_size, 0, look.options, corpus=data, max_length=length
    )


def _lend_documents(who: str, network: Network, model: Model, teacher: Network | None) -> None:
    """Give a student that encodes queries alone its teacher's documents, without which it cannot search."""
    if not isinstance(network.tapped, PairTapped):
        raise SettingError(f"{who}: {network.name} scores pairs of texts, and only encoders can search a collection.")
    lent = documents_of(model)
    if lent is None or who == TEACHER:
        return
    theirs = teacher.tapped if teacher is not None else None
    if not isinstance(theirs, PairTapped) or theirs.known is None:
        raise SettingError(
            f"{who}: {network.name} encodes queries alone and searches the documents of {lent}; give teacher."
        )
    network.tapped.documents_of = theirs.known


_OPEN: Mapping[Kind, Callable[..., Bench]] = {
    "images": _images,
    "classification": _classified,
    "language": _language,
    "search": _search,
}


def _open(model: Model, who: str, modality: Modality, probe: Batch, look: Look, size: int | None) -> Network:
    def open_one(each: str | nn.Module, principal: bool) -> Network:
        if isinstance(each, str):
            _check_weights(each, who, modality)
        return modality.open(
            each, who=who, probe=probe, device=look.device, classifier=None, image_size=size, embedding=False
        )

    several = isinstance(model, Combination) or (isinstance(model, str) and parse_combination(model) is not None)
    if several and who != TEACHER:
        raise SettingError(f"{who}: {model} are several networks, which a teacher may be and a student cannot.")
    if several and not modality.combines:
        raise SettingError(
            f"{who}: {model} are several networks, which are evaluated on images alone; name one of them."
        )
    network = open_teacher(model, open_one) if who == TEACHER else open_one(_one(model), True)
    for each in network.all:
        each.tapped.eval()
    return network


def _one(model: Model) -> str | nn.Module:
    assert not isinstance(model, Combination)
    return model


def _check_weights(model: str, who: str, modality: Modality) -> None:
    spec = modality.spec(model)
    if spec.source in _HERE and "/" in spec.name:
        raise SettingError(f"{who}: there is no run folder or weights file {model}.")
    if spec.weights is None and spec.source in _RANDOM_WITHOUT_WEIGHTS:
        raise SettingError(f"{who}: {model} names no weights, so the network would be random; write {model}@FILE.")
