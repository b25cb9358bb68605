"""What a language model answers to prompts of a split: figures of the answers, and the texts beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from limbeck.authoring import prompts_of
from limbeck.config import RunSettings
from limbeck.data.text import TokenData, TokenSplit
from limbeck.data.text.chat import as_chat
from limbeck.data.text.collate import Collate
from limbeck.data.text.examples import Example
from limbeck.distributed import rank, world_size
from limbeck.engine.checkpoint import every_process
from limbeck.evaluate.text import exact_match, rouge_l
from limbeck.policies import Draw, Sampling, Writer, generate

Part = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Answer:
    """A prompt of a split, the answer that was wanted, and the one that was given. index: of the example.

    cut_off: whether the answer reached the most tokens without an end.
    """

    index: int
    prompt: str
    wanted: str
    given: str
    cut_off: bool


def answers_of(
    network: nn.Module, data: TokenData, settings: RunSettings, device: torch.device, part: Part = "test"
) -> list[Answer]:
    """The greedy answers of a causal model to the first ``settings.answers`` prompts of a split, in order.

    None at all where the data has no such split or no prompts. Each process answers its part, and all of them get all answers.

    Raises:
        DataError: a prompt that with its answer is longer than the model's context.
        NonFiniteError: logits that are NaN or infinite.
    """
    rows: TokenSplit | None = getattr(data, part)
    if rows is None or not settings.answers or data.text.kind not in ("prompt", "chat"):
        return []
    examples = {example.index: example for example in data.text.split(part)}
    mine = torch.arange(min(settings.answers, len(rows))).tensor_split(world_size())[rank()]
    collate = Collate(rows)
    writer = Writer(network, Sampling(temperature=0), data.vocabulary)
    found: list[Answer] = []
    for places in mine.split(settings.batch_size) if len(mine) else ():
        batch = collate([[place] for place in places.tolist()]).to(device)
        prompts = prompts_of(batch, rows.special, settings.max_new_tokens, completions=False)
        response = generate(writer, prompts, Draw(settings.seed))
        for index, tokens, mask in zip(prompts.names.tolist(), response.tokens, response.mask, strict=True):
            found.append(_answer(examples[index], tokens[mask].tolist(), data))
    parts = every_process({"answers": [asdict(answer) for answer in found]})
    return [Answer(**answer) for answered in parts for answer in answered["answers"]]


def _answer(example: Example, tokens: list[int], data: TokenData) -> Answer:
    given = data.tokenizer.decode(tokens, skip_special_tokens=True)
    if data.text.kind == "chat":
        *before, last = as_chat(example)[1]
        prompt, wanted = "\n".join(f"{turn.role}: {turn.content}" for turn in before), last.content
    else:
        prompt, wanted = example.prompt, example.completion
    return Answer(example.index, prompt, wanted, given, not tokens or tokens[-1] != data.train.special.end)


def figures_of(answers: Sequence[Answer], settings: RunSettings) -> dict[str, float]:
    """Shares in [0, 1] over the answers: exact_match, rouge_l (F1) and cut_off; none where there are no answers."""
    if not answers:
        return {}
    given, wanted = [answer.given for answer in answers], [answer.wanted for answer in answers]
    return {
        "answers": float(len(answers)),
        "exact_match": exact_match(given, wanted, settings.answer).share,
        "rouge_l": rouge_l(given, wanted).f1,
        "cut_off": sum(answer.cut_off for answer in answers) / len(answers),
    }


def side_by_side(student: Sequence[Answer], teacher: Sequence[Answer]) -> list[Mapping[str, Any]]:
    """For each prompt what was wanted and what each answered, for a file that people read."""
    theirs = {answer.index: answer.given for answer in teacher}
    return [
        {
            "index": answer.index,
            "prompt": answer.prompt,
            "wanted": answer.wanted,
            "student": answer.given,
            **({"teacher": theirs[answer.index]} if answer.index in theirs else {}),
        }
        for answer in student
    ]
