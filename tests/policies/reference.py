"""The rules of sampling and of speculation, slowly: one token at a time, in float64, without a cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from limbeck.policies import Draw, Prompts, Sampling, Stream, Writer


def law(logits: list[float], sampling: Sampling) -> list[float]:
    """The probability of each token."""
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if sampling.temperature == 0:
        return [float(token == order[0]) for token in range(len(logits))]
    weights = {token: math.exp((logits[token] - logits[order[0]]) / sampling.temperature) for token in order}
    kept = order[: sampling.top_k] if sampling.top_k else order
    total, mass, nucleus = sum(weights[token] for token in kept), 0.0, []
    for token in kept:
        if mass < sampling.top_p * total:
            nucleus.append(token)
            mass += weights[token]
    return [weights[token] / mass if token in nucleus else 0.0 for token in range(len(logits))]


def drawn(logits: list[float], sampling: Sampling, uniform: float) -> int:
    """The token at which the summed law exceeds u: in falling order where there is a nucleus, else in the order of ids."""
    probabilities = law(logits, sampling)
    tokens = list(range(len(logits)))
    if sampling.top_k or sampling.top_p < 1:
        tokens.sort(key=lambda token: (-logits[token], token))
    reached = 0.0
    for token in tokens:
        reached += probabilities[token]
        if reached > uniform:
            return token
    return max(tokens, key=lambda token: probabilities[token])


def top(logits: list[float], count: int) -> list[int]:
    return sorted(range(len(logits)), key=lambda token: (-logits[token], token))[:count]


def next_logits(model: Any, text: list[int]) -> list[float]:
    with torch.no_grad():
        return model(input_ids=torch.tensor([text])).logits[0, -1].double().tolist()


def all_logits(model: Any, text: list[int]) -> list[list[float]]:
    """The logits after each token of a text."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([text])).logits[0].double().tolist()


def rule(
    student: list[float], teacher: list[float], writers: tuple[Writer, Writer], k: int, draws: tuple[float, float]
) -> tuple[int, str]:
    """A token and whose it is: the student's if it is in the teacher's top K, else the teacher's."""
    proposed = drawn(student, writers[0].sampling, draws[0])
    if proposed in top(teacher, k):
        return proposed, "S"
    return drawn(teacher, writers[1].sampling, draws[1]), "T"


def written(
    writers: tuple[Writer, Writer], prompts: Prompts, draw: Draw, k: Callable[[int], int]
) -> list[list[tuple[int, str]]]:
    """Algorithm 1 as it stands, token by token."""
    tables = [
        draw.uniforms(stream, prompts.names, prompts.max_new_tokens) for stream in (Stream.STUDENT, Stream.TEACHER)
    ]
    found = []
    for row, (tokens, mask) in enumerate(zip(prompts.tokens, prompts.mask, strict=True)):
        text, answer = tokens[mask].tolist(), []
        while len(answer) < prompts.max_new_tokens and (not answer or answer[-1][0] not in prompts.ends):
            logits = [next_logits(writer.model, text) for writer in writers]
            draws = tuple(float(table[row, len(answer)]) for table in tables)
            answer.append(rule(logits[0], logits[1], writers, k(len(answer)), draws))
            text.append(answer[-1][0])
        found.append(answer)
    return found


def checked(
    writers: tuple[Writer, Writer], prompts: Prompts, draw: Draw, k: Callable[[int], int], answers: list[list[int]]
) -> list[list[tuple[int, str]]]:
    """What the rule gives at each place of the given answers: equal to them only if all of them are what ``written`` writes.

    One pass a row and model instead of one a token.
    """
    tables = [
        draw.uniforms(stream, prompts.names, prompts.max_new_tokens) for stream in (Stream.STUDENT, Stream.TEACHER)
    ]
    found = []
    for row, answer in enumerate(answers):
        prompt = prompts.tokens[row][prompts.mask[row]].tolist()
        logits = [all_logits(writer.model, prompt + answer)[len(prompt) - 1 :] for writer in writers]
        found.append(
            [
                rule(
                    logits[0][at], logits[1][at], writers, k(at), (float(tables[0][row, at]), float(tables[1][row, at]))
                )
                for at in range(len(answer))
            ]
        )
    return found
