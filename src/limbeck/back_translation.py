"""Texts with labels once more, as two models translate them there and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from limbeck.data.text import TextData
from limbeck.errors import CacheError, SettingError, WeightsError, unknown_name
from limbeck.expression import parse_call
from limbeck.files import atomic_path
from limbeck.fingerprint import of_words
from limbeck.models.sources.transformers_config import folder_of, import_transformers

SETTING = "back_translation"
_ROWS = 32


@dataclass(frozen=True)
class BackTranslation:
    """Which models translate, and where what they said is kept.

    Args:
        there, back: folders or names of translation models of Hugging Face (an encoder with a decoder), with their tokenizers.
        keep: a file of JSON lines that translations are read from, or written to; None to translate in every run.
        before: what stands before every text, where a model wants to be told what to do.

    Raises:
        SettingError: a value that is no text.
    """

    there: str
    back: str
    keep: str | None = None
    before: str = ""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, str) and (item.name != "keep" or value is not None):
                raise SettingError(f"{SETTING}: {item.name} must be a text, got {value!r}.")


def parse_back_translation(text: str) -> BackTranslation:
    """What ``there='FOLDER', back='FOLDER', keep='FILE.jsonl'`` asks for; no code is run.

    Raises:
        SettingError: it cannot be read, or an argument is missing or does not exist.
    """
    try:
        given, accepted = (
            parse_call(f"translation({text})", SETTING).arguments,
            [f.name for f in fields(BackTranslation)],
        )
    except SettingError as error:
        raise SettingError(f"{SETTING}: {error} Expected there='FOLDER', back='FOLDER'.") from None
    for name in given:
        if name not in accepted:
            raise SettingError(f"{SETTING}: {unknown_name('argument', name, accepted)}")
    if not {"there", "back"} <= given.keys():
        raise SettingError(f"{SETTING}: name both models, as in there='FOLDER', back='FOLDER', got {text!r}.")
    return BackTranslation(**given)


def back_translated(
    data: TextData, asked: BackTranslation, max_length: int, device: Any, say: Callable[[str], None]
) -> TextData:
    """The data with every training text once more, translated there and back, under the same label.

    The other texts follow the data's own and have indices of their own. One that comes back empty, too long or as it was is
    left out, and counted. Translations are the models' most likely ones, greedily, of at most ``max_length`` tokens.

    Raises:
        SettingError: the texts have no labels, or a pair of sentences.
        WeightsError: a model cannot be read.
        CacheError: the file is of other texts or other models.
    """
    if data.kind != "classification":
        raise SettingError(f"{SETTING} is for texts that are classified, and {data.name} is none of these.")
    if any(example.pair is not None for example in data.train):
        raise SettingError(f"{SETTING} translates single texts, and {data.name} has pairs.")
    texts = [example.prompt for example in data.train]
    path = None if asked.keep is None else Path(asked.keep).expanduser()
    mark = of_words(asked.there, asked.back, asked.before, str(max_length), *(_encodable(text) for text in texts))
    found = None if path is None else _read(path, mark)
    if found is None:
        say(f"texts       {len(texts):,} are translated by {asked.there} and back by {asked.back}")
        there = _Translator(asked.there, max_length, device)([asked.before + text for text in texts])
        again = [place for place, text in enumerate(there) if text.strip()]
        back = _Translator(asked.back, max_length, device)([asked.before + there[place] for place in again])
        found = [""] * len(texts)
        for place, text in zip(again, back, strict=True):
            found[place] = text
        if path is not None:
            _write(path, mark, found)
    first = 1 + max(example.index for example in data.train)
    others = [
        replace(example, index=first + example.index, prompt=text.strip())
        for example, text in zip(data.train, found, strict=True)
        if text.strip() and text.strip() != example.prompt.strip()
    ]
    same = len(texts) - len(others)
    say(
        f"            {len(others):,} texts more, translated there and back; {same:,} came back empty, too long or unchanged"
    )
    return replace(data, train=[*data.train, *others])


class _Translator:
    def __init__(self, folder: str, max_length: int, device: Any) -> None:
        transformers = import_transformers(f"the translation model {folder}")
        name = folder_of(folder.removeprefix("hf:"))
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            model = transformers.AutoModelForSeq2SeqLM.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise WeightsError(
                f"{SETTING}: {folder} is no translation model (an encoder with a decoder, in safetensors) that transformers "
                f"can read ({reason})."
            ) from error
        self._model, self._max_length, self._device = model.eval().to(device), max_length, device

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """The translations; empty where a text or its translation is too long: none is cut."""
        found: list[str] = [""] * len(texts)
        # Those of similar length together.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(order), _ROWS):
            places = order[start : start + _ROWS]
            inputs = self._tokenizer([texts[place] for place in places], return_tensors="pt", padding=True)
            fits = inputs["attention_mask"].sum(dim=1) <= self._max_length
            if not bool(fits.any()):
                continue
            inputs = {name: value[fits].to(self._device) for name, value in inputs.items()}
            with torch.no_grad():
                told = self._model.generate(**inputs, max_new_tokens=self._max_length, do_sample=False, num_beams=1)
            # Some begin with the token that ends.
            ended = (told[:, 1:] == self._tokenizer.eos_token_id).any(dim=1).tolist()
            said = self._tokenizer.batch_decode(told, skip_special_tokens=True)
            chosen = [place for place, fit in zip(places, fits.tolist(), strict=True) if fit]
            for place, text, whole in zip(chosen, said, ended, strict=True):
                found[place] = str(text) if whole else ""
        return found


def _encodable(text: str) -> str:
    # A surrogate that JSON let through has no encoding of its own.
    return text.encode("utf-8", "replace").decode()


def _read(path: Path, mark: str) -> list[str] | None:
    if not path.exists():
        return None
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        if json.loads(head) == {"texts": mark}:
            return [str(json.loads(line)) for line in lines]
    except (OSError, ValueError) as error:
        raise CacheError(f"{path} cannot be read as translations ({error}); name another file.") from error
    raise CacheError(
        f"{path} has translations of other texts, or by other models; name another file, or delete this one."
    )


def _write(path: Path, mark: str, texts: Sequence[str]) -> None:
    with atomic_path(path) as temporary:
        lines = [json.dumps({"texts": mark}), *(json.dumps(text) for text in texts)]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
