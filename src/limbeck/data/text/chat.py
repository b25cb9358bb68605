"""Chats through a tokenizer's template, as prompt and completion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from limbeck.data.text import report
from limbeck.data.text.examples import ASSISTANT, USER, Example, Message
from limbeck.data.text.tokenizer import Tokenizer
from limbeck.errors import DataError, SettingError

_SHOWN = 60


Chat = tuple[int, tuple[Message, ...]]
"""Index and messages of an example."""


def chat_halves(
    tokenizer: Tokenizer, chats: Iterable[Chat], prompts_only: bool = False
) -> tuple[list[tuple[int, str, str]], list[tuple[str, int]]]:
    """(index, prompt, completion) of each chat as the template writes them, and (reason, index) of those left out.

    The prompt is what the template makes of all messages but the last, with what it puts before an answer. The completion
    is what follows in the template's text of the whole chat.

    Raises:
        SettingError: the tokenizer has no chat template.
        DataError: the template fails on an example, or its text of the whole chat does not begin with the prompt.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise SettingError(
            "messages need a tokenizer with a chat template, and this one has none. Use the tokenizer of an instruction-tuned "
            "network, set tokenizer.chat_template, or give prompts and completions instead (chat=False)."
        )
    halves: list[tuple[int, str, str]] = []
    skipped: list[tuple[str, int]] = []
    for index, messages in chats:
        if prompts_only and messages and messages[-1].role == ASSISTANT:
            messages = messages[:-1]
        reason = _reason(messages, prompts_only)
        if reason is not None:
            skipped.append((reason, index))
        elif prompts_only:
            halves.append((index, _render(tokenizer, index, messages, True), ""))
        else:
            prompt = _render(tokenizer, index, messages[:-1], True)
            whole = _render(tokenizer, index, messages, False)
            halves.append((index, prompt, _after(prompt, whole, index)))
    return halves, skipped


def as_chat(example: Example) -> Chat:
    """The messages of an example; those of a prompt and its completion are a question of the user and the answer."""
    if example.messages or not (example.prompt or example.completion):
        return example.index, example.messages
    asked = (Message(USER, example.prompt),) if example.prompt.strip() else ()
    return example.index, (*asked, Message(ASSISTANT, example.completion))


def _reason(messages: Sequence[Message], prompts_only: bool) -> str | None:
    if prompts_only:
        return None if messages else report.NO_PROMPT
    if not messages or messages[-1].role != ASSISTANT:
        return report.NO_ANSWER
    if not messages[-1].content.strip():
        return report.EMPTY
    return report.NO_PROMPT if len(messages) == 1 else None


def _render(tokenizer: Any, index: int, messages: Sequence[Message], answer_next: bool) -> str:
    turns = [{"role": turn.role, "content": turn.content} for turn in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer_next))
    except Exception as error:  # a template is a program of the tokenizer's maker, and refuses in its own ways
        raise DataError(f"the chat template refuses example {index}: {error}") from error


def _after(prompt: str, whole: str, index: int) -> str:
    if whole.startswith(prompt):
        return whole[len(prompt) :]
    same = next((place for place, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(whole))
    raise DataError(
        f"the chat template does not put the prompt first in the whole chat (example {index}), so that what is learnt would "
        f"not be what follows the prompt: after {prompt[max(0, same - _SHOWN) : same]!r} the prompt goes on with "
        f"{prompt[same : same + _SHOWN]!r} and the chat with {whole[same : same + _SHOWN]!r}. Set another "
        "tokenizer.chat_template, or give prompts and completions (chat=False)."
    )
