"""A server's answers to prompts, each asked for once and kept in a file as soon as it is there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from limbeck.data.text import TextData
from limbeck.data.text.examples import ASSISTANT, Example, Message
from limbeck.errors import CacheError, DataError, SettingError, TeacherError
from limbeck.files import atomic_path
from limbeck.fingerprint import of_words
from limbeck.policies import Sampling
from limbeck.servers.client import Client

ANSWERS, ASKED = "answers.jsonl", "asked.json"
_FORMAT = 1


@dataclass(frozen=True)
class Writing:
    """How answers are written. max_new_tokens: of the longest. seed: handed on to the server."""

    sampling: Sampling
    max_new_tokens: int
    seed: int

    def body(self) -> dict[str, Any]:
        """The part of a request that says so; what is at its usual value is left out, since not all servers know it."""
        told: dict[str, Any] = {"max_tokens": self.max_new_tokens, "temperature": self.sampling.temperature}
        told |= {"seed": self.seed}
        told |= {"top_p": self.sampling.top_p} if self.sampling.top_p < 1 else {}
        return told | ({"top_k": self.sampling.top_k} if self.sampling.top_k else {})


def answered_by(
    client: Client,
    data: TextData,
    writing: Writing,
    folder: Path,
    say: Callable[[str], None],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> TextData:
    """The data with the server's answers in the place of the training texts' own; validation and test stay as they are.

    Answers are read from ``folder``, and asked for where they are not there yet, so that a run that is cut off asks for none
    of them again. An answer that reached ``max_new_tokens`` without an end, or is empty, is left out, and counted.
    ``on_progress`` is told after each answer how many are there of how many that are asked for.

    Raises:
        SettingError: the data has no prompts.
        CacheError: the folder holds answers to something else.
        TeacherError: the server gives no answer.
        DataError: no answer is left.
    """
    if data.kind not in ("prompt", "chat"):
        raise SettingError(f"policy: a server answers prompts, and {data.name} has none.")
    _check_same(folder, _identity(client, data, writing))
    known = _read(folder / ANSWERS)
    missing = [example for example in data.train if example.index not in known]
    if missing:
        say(f"answers     {folder}: {len(missing):,} of {len(data.train):,} prompts are asked of {client.server.model}")
        known |= _asked(client, data, missing, writing, folder / ANSWERS, on_progress)
    else:
        say(f"answers     {folder}: {len(known):,}, read instead of asking the server")
    kept = [
        _with_answer(example, found["text"])
        for example in data.train
        if (found := known[example.index])["text"] and found["ended"]
    ]
    cut = sum(not known[example.index]["ended"] for example in data.train)
    if len(kept) < len(data.train):
        say(
            f"            left out: {cut:,} that reached max_new_tokens={writing.max_new_tokens} without an end, "
            f"{len(data.train) - len(kept) - cut:,} empty ones"
        )
    if not kept:
        raise DataError(f"{client.server.model} gave no answer with an end within {writing.max_new_tokens} tokens.")
    return replace(data, train=kept)


def _asked(
    client: Client,
    data: TextData,
    examples: Sequence[Example],
    writing: Writing,
    path: Path,
    on_progress: Callable[[int, int], None],
) -> dict[int, Mapping[str, Any]]:
    found: dict[int, Mapping[str, Any]] = {}
    with path.open("a", encoding="utf-8") as file:
        for example, answer in zip(
            examples, client.each(lambda example: _ask(client, data, example, writing), examples), strict=True
        ):
            line = {"index": example.index, **answer}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            found[example.index] = line
            on_progress(len(found), len(examples))
    return found


def _ask(client: Client, data: TextData, example: Example, writing: Writing) -> dict[str, Any]:
    if data.kind == "chat":
        turns = [{"role": turn.role, "content": turn.content} for turn in example.messages[:-1]]
        choice = client.chat({"messages": turns, **writing.body()})
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else None
    else:
        choice = client.completion({"prompt": example.prompt + data.separator, **writing.body()})
        text = choice.get("text")
    if not isinstance(text, str | None):
        raise TeacherError(f"the server {client.server.url} answered {text!r:.100}, which is no text.")
    return {"text": text or "", "ended": choice.get("finish_reason") != "length"}


def _with_answer(example: Example, text: str) -> Example:
    if example.messages:
        return replace(example, messages=(*example.messages[:-1], Message(ASSISTANT, text)))
    return replace(example, completion=text)


def _identity(client: Client, data: TextData, writing: Writing) -> dict[str, Any]:
    prompts = [f"{example.index} {example.prompt} {example.messages[:-1]!r}" for example in data.train]
    digits = of_words(*(prompt.encode("utf-8", "replace").decode() for prompt in prompts))
    told = {"the model": client.server.model, "the prompts": f"{len(prompts):,} of {data.name} {digits[:12]}"}
    return told | {name.replace("_", " "): value for name, value in writing.body().items()} | {"format": _FORMAT}


def _check_same(folder: Path, wanted: dict[str, Any]) -> None:
    path = folder / ASKED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            if any(folder.iterdir()):
                raise CacheError(f"{folder} exists and holds no answers of a server; name another folder.")
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
            return
        stored = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in {*wanted, *stored} if wanted.get(name) != stored.get(name)]
    except (OSError, ValueError, TypeError) as error:
        raise CacheError(f"the answers in {folder} cannot be used ({error}); name another folder.") from error
    if differing:
        listed = "; ".join(f"{name}: {stored.get(name)} there, {wanted.get(name)} now" for name in sorted(differing))
        raise CacheError(f"the answers in {folder} are to something else ({listed}). Name another folder.")


def _read(path: Path) -> dict[int, Mapping[str, Any]]:
    if not path.is_file():
        return {}
    found: dict[int, Mapping[str, Any]] = {}
    whole = path.read_bytes()
    # A process that was killed leaves at most the beginning of a line, which is taken off so that the next one has its own.
    end = whole.rfind(b"\n") + 1
    if end < len(whole):
        with path.open("r+b") as file:
            file.truncate(end)
    for number, line in enumerate(whole[:end].splitlines(), 1):
        try:
            told = json.loads(line)
            found[int(told["index"])] = {"text": str(told["text"]), "ended": bool(told["ended"])}
        except (ValueError, KeyError, TypeError) as error:
            raise CacheError(f"{path}, line {number}, is no answer that limbeck wrote ({error}).") from error
    return found
