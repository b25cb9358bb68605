"""A causal language model with how it is sampled, and the checks that come before its first token."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import DataError, SettingError, check_whole
from limbeck.policies.engine import Engine
from limbeck.policies.prompts import Prompts, row_list
from limbeck.policies.sampling import Sampling


@dataclass(frozen=True)
class Writer:
    """A causal language model that writes, with sampling settings of its own.

    Args:
        model: of Hugging Face's ``AutoModelForCausalLM``, or anything whose forward takes ``input_ids``, ``attention_mask``,
            ``position_ids``, ``past_key_values`` and ``use_cache`` and returns an object with ``logits`` (N, L, V).
        sampling: how its tokens are drawn.
        vocabulary: so many of its first logits are tokens of the tokenizer; None for all. Needed where a table is padded
            (Qwen2's sizes pad one tokenizer's vocabulary to different widths).
        engine: what writes its answers; None for this library itself, as texts need that two models write in turns.

    Raises:
        SettingError: ``vocabulary`` is more than the model has, or the model is no causal language model of Hugging Face.
    """

    model: nn.Module
    sampling: Sampling = field(default_factory=Sampling)
    vocabulary: int | None = None
    engine: Engine | None = None

    def __post_init__(self) -> None:
        if getattr(self.config, "is_encoder_decoder", False):
            raise SettingError(f"{type(self.model).__name__} is no causal language model: it has an encoder.")
        if self.vocabulary is not None:
            check_whole("vocabulary", self.vocabulary, low=1)
            if self.vocabulary > self.width:
                raise SettingError(f"vocabulary is {self.vocabulary}, but the model has {self.width} logits.")

    @property
    def config(self) -> Any:
        """The configuration of the text model."""
        model: Any = self.model
        while not hasattr(model, "config") and hasattr(model, "module"):
            model = model.module
        if not hasattr(model, "config"):
            raise SettingError(f"{type(model).__name__} is no Hugging Face language model: it has no config.")
        whole = model.config
        return whole.get_text_config(decoder=True) if hasattr(whole, "get_text_config") else whole

    @property
    def width(self) -> int:
        """How many logits the model gives."""
        return int(self.config.vocab_size)

    @property
    def tokens(self) -> int:
        """V: how many of its logits are tokens."""
        return self.width if self.vocabulary is None else self.vocabulary

    @property
    def context(self) -> int | None:
        """The most tokens a text may have; None where the model knows no limit."""
        places = getattr(self.config, "max_position_embeddings", None)
        return int(places) if places and places > 0 else None

    def accepts(self, name: str) -> bool:
        """Whether the model's forward takes an argument of this name."""
        parameters = inspect.signature(self.model.forward).parameters
        return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Without gradient and dropout; afterwards each module trains or does not, as before."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module in training:
                module.training = True


def check_prompts(writer: Writer, prompts: Prompts, who: str, longest: int | None = None) -> None:
    """Refuse prompts that the model cannot read, or cannot answer to the last token that was asked for.

    Args:
        who: "student" or "teacher", for the message.
        longest: how long an answer gets; None for ``prompts.max_new_tokens``.

    Raises:
        DataError: a token id outside of the vocabulary, or a prompt that with its answer is longer than the context.
        SettingError: a special token id outside of the vocabulary.
    """
    size = writer.tokens
    for name, token in (("pad", prompts.pad), *(("end-of-sequence", token) for token in prompts.ends)):
        if token >= size:
            raise SettingError(f"the {name} token id is {token}, but the {who}'s vocabulary ends at {size - 1}.")
    _check_ids(prompts.tokens, prompts.mask, size, f"prompts hold token ids outside of the {who}'s vocabulary")
    new = prompts.max_new_tokens if longest is None else longest
    if writer.context is not None:
        over = prompts.mask.sum(-1) + new > writer.context
        if bool(over.any()):
            length = int(prompts.mask.sum(-1).max())
            raise DataError(
                f"the {who}'s context is {writer.context} tokens; a prompt of {length} and {new} new tokens need "
                f"{length + new}: {row_list(over)} of the batch. Shorten the prompts or ask for fewer new tokens."
            )


def check_completions(prompts: Prompts, size: int) -> None:
    """Refuse completions with token ids that are none (DataError)."""
    if prompts.completions is not None and prompts.completion_mask is not None:
        what = "completions hold token ids outside of the vocabulary"
        _check_ids(prompts.completions, prompts.completion_mask, size, what)


def check_same_vocabulary(student: Writer, teacher: Writer) -> None:
    """Refuse two models that cannot judge each other's tokens.

    Raises:
        SettingError: their vocabularies differ in size.
    """
    if student.tokens != teacher.tokens:
        raise SettingError(
            f"the student's vocabulary has {student.tokens} tokens and the teacher's {teacher.tokens}: the teacher cannot "
            "judge the student's tokens. Take models of one tokenizer; where one tokenizer's vocabulary is padded to "
            "different widths, give both writers its true size as vocabulary=…."
        )


def _check_ids(tokens: Tensor, mask: Tensor, size: int, what: str) -> None:
    wrong = ((tokens < 0) | (tokens >= size)) & mask
    if bool(wrong.any()):
        values = sorted(set(tokens[wrong].tolist()))
        raise DataError(f"{what} of 0 to {size - 1}: {values[0]} in {row_list(wrong.any(-1))} of the batch.")
