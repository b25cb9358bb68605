"""What an evaluation holds of language models, and what each figure may be when it is read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from limbeck.evaluate.kinds import Count, Number, Positive, Share


@dataclass(frozen=True)
class TokenFigures:
    """Figures of the next token beside the scores that every evaluation has.

    perplexity: exp of the mean negative log likelihood over all tokens; None above 10¹⁵. reverse_kl: of students, the mean of
    KL(student ‖ teacher) in nats; None without a teacher.
    """

    perplexity: Number | None
    reverse_kl: Number | None = None


@dataclass(frozen=True)
class AnswerFigures:
    """Shares over the greedy answers to ``count`` prompts: with the right answer, ROUGE-L (F1), and cut off before an end."""

    count: Count
    exact_match: Share
    rouge_l: Share
    cut_off: Share


@dataclass(frozen=True)
class AnswerSample:
    """A prompt with the answer that was wanted, each network's by its name, and whose are right. index: of the example."""

    index: Count
    prompt: str
    wanted: str
    given: Mapping[str, str]
    right: Mapping[str, bool]


@dataclass(frozen=True)
class Answered:
    """What networks answered. extraction: what of a text is its answer, as :func:`limbeck.evaluate.text.exact_match` has it.

    samples: a few prompts, those first that the teacher answers rightly and most students do not, then in their order.
    """

    extraction: str
    networks: Mapping[str, AnswerFigures]
    samples: tuple[AnswerSample, ...]


@dataclass(frozen=True)
class Writing:
    """Greedy writing of ``batch`` answers of ``new_tokens`` tokens to prompts of ``prompt_tokens``, with a cache.

    tokens_per_second: new tokens of all answers over the seconds, of which the pass over the prompts is a part; the median
    of some repeats.
    """

    batch: Count
    prompt_tokens: Count
    new_tokens: Count
    tokens_per_second: Positive


@dataclass(frozen=True)
class WritingCosts:
    """How fast networks write on one device, and with a teacher how many times faster than it each student does."""

    device: str
    networks: Annotated[Mapping[str, Annotated[tuple[Writing, ...], Field(min_length=1)]], Field(min_length=1)]
    ratios: Mapping[str, tuple[Positive, ...]] | None
