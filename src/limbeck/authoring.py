"""The texts of a step: a text policy asks student and teacher to write, and a batch comes of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor, nn

from limbeck.data.text import SpecialTokens, only_prompts
from limbeck.engine.checkpoint import every_process
from limbeck.errors import SettingError
from limbeck.policies import Draw, Engine, Policy, Prompts, Response, Sampling, Statistics, Writer
from limbeck.signals import IGNORED, Batch
from limbeck.text_engine import Vllm
from limbeck.tokens import Tokens


@dataclass
class Author:
    """Writes what a student and its teacher are to see.

    Args:
        policy: whose text it is.
        student, teacher: the networks that write, with their samplings; None for one that the policy does not ask.
        special: the tokenizer's special tokens. max_new_tokens: of the longest answer.
        seed: of the run.

    What is written depends on the seed, the step, the samples and the networks' weights alone, so a run that is resumed
    writes what it would have written.
    """

    policy: Policy
    student: Writer | None
    teacher: Writer | None
    special: SpecialTokens
    max_new_tokens: int
    seed: int
    counted: Statistics = field(default_factory=Statistics)

    def write(self, batch: Batch, step: int, progress: float) -> Batch:
        """The batch with answers that the policy gives to its prompts; the loss is meant for every token of an answer.

        ``progress``: how much of the training is over, in [0, 1].
        """
        prompts = prompts_of(batch, self.special, self.max_new_tokens, completions="completions" in self.policy.needs)
        response = self.policy.respond(prompts, self.student, self.teacher, Draw(self.seed, step, progress))
        self.counted = self.counted + response.statistics
        return answered(prompts, response, batch.index)

    def open(self) -> None:
        """Make ready what writes, where it must be started.

        Raises:
            SettingError: it cannot run one of the networks.
        """
        try:
            for engine in self._engines:
                engine.open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Nothing is written any more."""
        for engine in self._engines:
            engine.close()

    @property
    def _engines(self) -> list[Engine]:
        writers = (self.student, self.teacher)
        return [writer.engine for writer in writers if writer is not None and writer.engine is not None]

    def take(self) -> dict[str, float]:
        """Figures of what all processes wrote since the last call, for the metrics; none where nothing was.

        Every process must call it at the same step.
        """
        counted, self.counted = _of_all_processes(self.counted), Statistics()
        if not counted.tokens:
            return {}
        found = {
            "written_tokens": float(counted.tokens),
            "written_per_second": counted.tokens_per_second,
            "cut_off": counted.cut_off / counted.rows,
        }
        if counted.proposed or counted.corrections:
            found |= {"correction_rate": counted.correction_rate, "acceptance": counted.acceptance}
        return found


def _of_all_processes(own: Statistics) -> Statistics:
    """The counts of all, and the seconds of the slowest: they write at the same time."""
    counts = [Statistics(**each) for each in every_process(asdict(own))]
    return replace(sum(counts, Statistics()), seconds=max(each.seconds for each in counts))


def author_of(
    policy: Policy,
    student: nn.Module,
    teacher: nn.Module | None,
    samplings: tuple[Sampling, Sampling],
    special: SpecialTokens,
    vocabulary: int,
    max_new_tokens: int,
    seed: int,
    engine: Vllm | None = None,
    longest: int | None = None,
) -> Author:
    """An author whose networks are those that the policy asks; ``samplings`` are the student's and the teacher's.

    ``engine`` writes texts of at most ``longest`` tokens, prompts included.

    Raises:
        SettingError: the policy asks a teacher and there is none, or a network is no causal language model.
    """
    if "teacher" in policy.needs and teacher is None:
        raise SettingError(f"policy: {policy} writes with the teacher, and there is none.")

    def writer(model: nn.Module, sampling: Sampling) -> Writer:
        return Writer(model, sampling, vocabulary, None if engine is None else engine.of(model, longest))

    ours = writer(student, samplings[0]) if "student" in policy.needs else None
    theirs = writer(teacher, samplings[1]) if teacher is not None and "teacher" in policy.needs else None
    return Author(policy, ours, theirs, special, max_new_tokens, seed)


def prompts_of(batch: Batch, special: SpecialTokens, max_new_tokens: int, *, completions: bool) -> Prompts:
    """The prompts of a batch, with its own answers where they are asked for.

    Raises ValueError on packed rows, whose prompts are several.
    """
    alone = only_prompts(batch, special.pad)
    tokens, mask = (None, None) if not completions else _learnt_alone(batch, special.pad)
    return Prompts(
        tokens=alone.inputs.tokens,
        mask=alone.inputs.attention,
        pad=special.pad,
        end=special.end,
        max_new_tokens=max_new_tokens,
        rows=batch.index,
        completions=tokens,
        completion_mask=mask,
    )


def _learnt_alone(batch: Batch, pad: int) -> tuple[Tensor, Tensor]:
    """(B, L) the tokens that are learnt, moved to the left, and where they are."""
    learnt = batch.learnt
    width = max(1, int(learnt.sum(dim=1).max()))
    order = (~learnt).long().argsort(dim=1, stable=True)[:, :width]
    mask = learnt.gather(1, order)
    return batch.labels.gather(1, order).masked_fill(~mask, pad), mask


def answered(prompts: Prompts, response: Response, index: Tensor | None) -> Batch:
    """The batch of prompts and their answers, of which every token is learnt."""
    tokens = torch.cat([prompts.tokens, response.tokens], dim=1)
    attention = torch.cat([prompts.mask, response.mask], dim=1)
    positions = (attention.cumsum(dim=1) - 1).clamp(min=0).masked_fill(~attention, 0)
    labels = torch.full_like(tokens, IGNORED)
    first = prompts.tokens.shape[1] - 1
    # The last token of a prompt predicts the first of its answer.
    labels[:, first:-1] = response.tokens.masked_fill(~response.mask, IGNORED)
    return Batch(Tokens(tokens, attention, positions), labels, index)
