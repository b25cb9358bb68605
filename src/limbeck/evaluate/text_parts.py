"""The parts of an evaluation that language models have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from limbeck.answering import Answer, Part, answers_of, figures_of
from limbeck.evaluate.bench import SPLITS, TEACHER, Figures
from limbeck.evaluate.tasks import run_tasks
from limbeck.evaluate.text import exact_match
from limbeck.evaluate.text.figures import Answered, AnswerFigures, AnswerSample
from limbeck.evaluate.text_bench import LanguageBench

_SHOWN = 12
_PARTS: Mapping[str, Part] = {"train": "train", "val": "val", "test": "test"}


def answers_part(bench: LanguageBench) -> Figures:
    """Exact match and ROUGE-L of greedy answers, and a few of them side by side."""
    if bench.data.text.kind not in ("prompt", "chat"):
        bench.say(f"answers are left out: {bench.name} is plain text, which has no prompts to answer.")
        return {}
    if not bench.settings.answers:
        bench.say("answers are left out: answers=0 asks for none.")
        return {}
    part = _PARTS[SPLITS[bench.split]]
    found = {
        who: answers_of(network.tapped.network, bench.data, bench.settings, bench.device, part)
        for who, network in bench.networks.items()
    }
    right = {who: _right(answers, bench) for who, answers in found.items()}
    return {
        "answers": Answered(
            bench.settings.answer,
            {who: _figures(answers, bench) for who, answers in found.items()},
            tuple(_samples(found, right)),
        )
    }


def _right(answers: Sequence[Answer], bench: LanguageBench) -> tuple[bool, ...]:
    given, wanted = [each.given for each in answers], [each.wanted for each in answers]
    return exact_match(given, wanted, bench.settings.answer).right


def _figures(answers: Sequence[Answer], bench: LanguageBench) -> AnswerFigures:
    found = figures_of(answers, bench.settings)
    return AnswerFigures(len(answers), found["exact_match"], found["rouge_l"], found["cut_off"])


def _samples(found: Mapping[str, Sequence[Answer]], right: Mapping[str, Sequence[bool]]) -> list[AnswerSample]:
    first = next(iter(found.values()))
    students = [who for who in found if who != TEACHER]

    def lost(place: int) -> int:
        """Students that are wrong where the teacher is right."""
        return sum(not right[who][place] for who in students) if TEACHER in found and right[TEACHER][place] else 0

    order = sorted(range(len(first)), key=lambda place: (-lost(place), place))
    return [
        AnswerSample(
            first[place].index,
            first[place].prompt,
            first[place].wanted,
            {who: answers[place].given for who, answers in found.items()},
            {who: answers[place] for who, answers in right.items()},
        )
        for place in order[:_SHOWN]
    ]


def tasks_part(bench: LanguageBench) -> Figures:
    """Tasks of lm-eval."""
    found = {
        who: run_tasks(
            network.tapped.network,
            bench.data.tokenizer,
            bench.options.tasks,
            limit=bench.options.tasks_limit,
            batch_size=bench.batch_size,
            device=bench.device,
        )
        for who, network in bench.networks.items()
    }
    return {"tasks": found}
