"""Makes a language model from the text that names it, and finds its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from torch import nn

from limbeck.errors import SettingError, check_choice, check_whole
from limbeck.models.language.sizes import context_of, embedding_of
from limbeck.models.sources import LanguageRequest, Task, sources
from limbeck.models.spec import PRETRAINED, RANDOM, ModelSpec, check_classes, check_positive, check_reserved, parse_spec
from limbeck.models.weights import load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SOURCE = "language"


@dataclass(frozen=True)
class CreatedLanguageModel:
    """A language model and where it comes from.

    name: the text that names it, without the weights.
    weights: ``pretrained``, the path of a file, or None for random ones.
    tokenizer_folder: folder or name with the tokenizer that belongs to it; None where it has none of its own.
    new_classifier: True when its weights had no classifier of this many classes, so that it is random: a student may start
        so, a teacher has nothing to teach.
    """

    network: nn.Module
    name: str
    weights: str | None
    tokenizer_folder: str | None
    new_classifier: bool


def create_language_model(
    spec: str,
    *,
    task: Task,
    vocabulary: int | None = None,
    num_classes: int | None = None,
    context: int | None = None,
    pad: int | None = None,
    end: int | None = None,
    dtype: str = "float32",
) -> CreatedLanguageModel:
    """A language model from ``[SOURCE:]NAME[(keyword=literal, …)][@WEIGHTS]``.

    Sources are the models that are made here (``llama``, ``bert`` and their sizes; no prefix needed), ``hf`` and any
    importable ``module:factory``. Weights are a file, ``pretrained``, the source's own, or ``random``. ``hf`` takes its own
    where none are named, the others start at random, from torch's global seed alone.

    Args:
        spec: such as ``hf:FOLDER(keep_layers=[0, 4, 8])@student.safetensors`` or ``llama(layers=2, width=64, heads=4)``.
        task: ``causal`` for logits (B, L, V) of the next token, ``classification`` for logits (B, C) of classes, ``encoder``
            for hidden states (B, L, W).
        vocabulary: tokens of the data's tokenizer; networks made here get as many, others must have at least as many.
        num_classes: C, 1 for regression; None for the source's own number.
        context: positions that texts need; networks made here get as many, others must have at least as many.
        pad: the token that fills rows up, which a decoder needs to know to classify texts of several lengths.
        end: the token that ends a text, written into the configuration where that has none.
        dtype: of the weights, where the text does not say: ``float32``, ``bfloat16``, ``float16``, or ``auto`` for what the
            published file holds. Training wants float32 (and ``precision`` for speed).

    Raises:
        SettingError: the text, a name, an argument or a number cannot be used, or the network is too small for the tokens.
        WeightsError: the weights cannot be read or fetched, or do not fit.
        MissingExtraError: the source needs a package that is not installed.
    """
    check_choice("task", task, get_args(Task))
    parsed = parse_spec(spec, unprefixed=SOURCE)
    numbers = {"vocabulary": vocabulary, "num_classes": num_classes, "context": context}
    check_positive({name: parsed.arguments.get(name, number) for name, number in numbers.items()})
    source = sources()[parsed.source]
    check_reserved(parsed, source.reserved)
    check_classes(parsed, num_classes)
    _check_counted(parsed, task, num_classes)
    file = parsed.weights if parsed.weights not in (PRETRAINED, RANDOM) else None
    built = source.build_language(
        LanguageRequest(
            name=parsed.name,
            arguments=parsed.arguments,
            task=task,
            vocabulary=vocabulary,
            num_classes=num_classes,
            context=context,
            dtype=dtype,
            published=None if parsed.weights is None else parsed.weights == PRETRAINED,
        )
    )
    if file is not None:
        load_weights(built.network, file, setting=parsed.text)
    _check_tokens(built.network, parsed.text, vocabulary, context)
    _tell_tokens(built.network, pad, end)
    _tell_regression(built.network, task)
    weights = file or (PRETRAINED if built.published else None)
    return CreatedLanguageModel(built.network, parsed.text, weights, built.tokenizer_folder, built.new_classifier)


def usual_task(spec: str) -> Task:
    """What the language model that a text names was made to answer with; its weights are not read.

    Raises:
        SettingError, WeightsError, MissingExtraError: see :func:`create_language_model`.
    """
    parsed = parse_spec(spec, unprefixed=SOURCE)
    source = sources()[parsed.source]
    check_reserved(parsed, source.reserved)
    return source.language_task(parsed.name, parsed.arguments)


def load_tokenizer(spec: str) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to the language model that a text names; weights and other arguments do not matter.

    Raises:
        SettingError: the model has no tokenizer, or it cannot be read.
        MissingExtraError: a package is not installed.
    """
    parsed = parse_spec(spec, unprefixed=SOURCE)
    source = sources()[parsed.source]
    check_reserved(parsed, source.reserved)
    return source.tokenizer(parsed.name, parsed.arguments)


def _check_counted(parsed: ModelSpec, task: Task, num_classes: int | None) -> None:
    if task != "classification" and (num_classes is not None or "num_classes" in parsed.arguments):
        raise SettingError(f"{parsed.text}: num_classes is for the task 'classification', the task is '{task}'.")


def _check_tokens(network: nn.Module, name: str, vocabulary: int | None, context: int | None) -> None:
    rows = embedding_of(network).num_embeddings if vocabulary is not None else 0
    if vocabulary is not None and rows < vocabulary:
        raise SettingError(
            f"{name} has embeddings for {rows} tokens, the tokenizer has {vocabulary}; use the tokenizer that belongs to the "
            "network."
        )
    positions = context_of(network)
    if context is not None and positions is not None and positions < context:
        raise SettingError(f"{name} takes texts of at most {positions} tokens, {context} are asked for.")


def _tell_tokens(network: nn.Module, pad: int | None, end: int | None) -> None:
    """Write the tokens into the configuration, from where transformers' own code and a released folder take them."""
    holders = [getattr(network, name, None) for name in ("config", "generation_config")]
    for holder in (holder for holder in holders if holder is not None):
        if pad is not None:
            check_whole("pad", pad, low=0)
            holder.pad_token_id = pad
        if end is not None and getattr(holder, "eos_token_id", None) is None:
            check_whole("end", end, low=0)
            holder.eos_token_id = end


def _tell_regression(network: nn.Module, task: Task) -> None:
    config = getattr(network, "config", None)
    # One number is a probability for transformers' pipelines unless the configuration says what it is.
    if task == "classification" and config is not None and config.num_labels == 1:
        config.problem_type = "regression"
