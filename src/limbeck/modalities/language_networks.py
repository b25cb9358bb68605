"""Networks on text from their text, checked against the data."""

from __future__ import annotations

from torch import nn

from limbeck.data.text import TokenData
from limbeck.errors import DataError, LimbeckError, SettingError, WeightsError
from limbeck.models.language import context_of, create_language_model, vocabulary_of
from limbeck.networks import resolve


def created(model: str, data: TokenData, max_new_tokens: int, who: str) -> tuple[str, nn.Module]:
    """The name of a network that a text names, and the network, made for the data. ``max_new_tokens``: after a prompt.

    Raises:
        LimbeckError: there is no such network, or a teacher whose classifier would be random.
    """
    special, causal = data.train.special, data.task == "causal"
    try:
        made = create_language_model(
            resolve(model),
            task=data.task,
            vocabulary=data.vocabulary,
            num_classes=None if causal else len(data.text.classes),
            context=data.max_length + (max_new_tokens if causal else 0),
            pad=special.pad,
            end=special.end,
        )
    except LimbeckError as error:
        raise type(error)(f"{who}: {error}") from None
    if who == "teacher" and made.new_classifier:
        raise WeightsError(
            f"teacher: {made.name} has no classifier for the {len(data.text.classes)} classes of {data.name}, so its "
            f"answers would be random; fine-tune it first with 'limbeck train --model {model}'."
        )
    return made.name, made.network


def check_vocabulary(network: nn.Module, data: TokenData, who: str) -> None:
    """Raise LimbeckError where a network knows fewer tokens than the data have."""
    try:
        size = vocabulary_of(network)
    except SettingError:
        # A network of a user's own that does not tell; its first batch will.
        return
    for split in (data.train, data.val, data.test):
        if split is not None:
            try:
                split.check_vocabulary(size)
            except LimbeckError as error:
                raise type(error)(
                    f"{who}: {error} Networks with vocabularies of their own are compared by 'uld', on logits of one tokenizer."
                ) from None


def check_context(network: nn.Module, data: TokenData, max_new_tokens: int, who: str) -> None:
    """Raise DataError where a language model has no room for an answer of so many tokens after the longest prompt.

    Answers are written when the training is over, too, which is late to learn it.
    """
    context = context_of(network)
    if context is None or data.task != "causal" or data.text.kind == "text" or not max_new_tokens:
        return
    splits = [split for split in (data.train, data.test) if split is not None]
    longest = max(int(split.prompts.max()) for split in splits)
    if longest + max_new_tokens > context:
        raise DataError(
            f"{who}: its context is {context} tokens; the longest prompt, {longest}, and max_new_tokens="
            f"{max_new_tokens} need {longest + max_new_tokens}. Shorten the prompts or ask for fewer new tokens."
        )
