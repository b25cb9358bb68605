"""A teacher that others serve: it is asked once about each text, and what it said is kept in the teacher cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.config import TeacherSettings
from limbeck.data.text import TextData, TokenData
from limbeck.distributed import rank
from limbeck.errors import SettingError, TeacherError
from limbeck.evaluate import Score
from limbeck.job import Job, Plan, plan_of
from limbeck.matching import Names
from limbeck.networks import Network
from limbeck.policies import Fixed, TeacherText, parse_policy, parse_sampling
from limbeck.progress import Progress
from limbeck.servers import Client, Server, parse_server
from limbeck.servers.answers import Writing, answered_by
from limbeck.servers.logprobs import Scorer
from limbeck.signals import Batch, Signals
from limbeck.surroundings import Surroundings
from limbeck.taps import Tapped
from limbeck.tasks.base import Seen
from limbeck.teachers import NoTeacher, Teacher
from limbeck.teachers._codecs import TopK
from limbeck.teachers.together import together
from limbeck.teaching import Teaching
from limbeck.text_caching import TextCaches

Say = Callable[[str], None]

_OF_A_NETWORK = frozenset(
    {"embedding", "classifier", "embedding_map", "features", "stages", "preactivations", "stem", "attack", "peers"}
)


def check_served(jobs: Sequence[Job]) -> None:
    """Check the settings that a server as teacher must go with, where there is one.

    Raises:
        SettingError: one that it does not go with.
    """
    taught = [job for job in jobs if parse_server(job.teacher) is not None]
    if not taught:
        return
    for job in taught:
        settings, policy = job.distill, parse_policy(job.distill.policy)
        if settings.teacher_cache is None:
            raise SettingError(
                "teacher: what a server says is kept, so that it is never asked twice; name a folder for it with "
                "--teacher-cache."
            )
        if policy not in (Fixed(), TeacherText()):
            raise SettingError(
                f"policy: {policy} has a text written in every step, and a server is asked once about each; policies for it "
                "are 'fixed' and 'teacher'."
            )
        needs = plan_of(job).needs & _OF_A_NETWORK
        if needs:
            raise SettingError(
                f"objective: '{job.objective}' needs the teacher's {' and '.join(sorted(needs))}, and a server tells "
                "log-probabilities of tokens alone; objectives for it are ce, kl, jsd, skewed and the like."
            )
    if len(jobs) > 2 and any(parse_policy(job.distill.policy) == TeacherText() for job in taught):
        # A session's jobs are its first one and then all of them.
        raise SettingError(
            "policy: a server's answers take the place of the training texts, which the students of a comparison share; "
            "distil them one by one, from the same --teacher-cache."
        )


def with_answers(job: Job, text: TextData, say: Say) -> TextData:
    """The texts of a run; with a server's answers where it is a server that writes them.

    Of several processes the first asks, and the others read what it wrote.

    Raises:
        LimbeckError: see :func:`limbeck.servers.answers.answered_by`.
    """
    server, settings = parse_server(job.teacher), job.distill
    if server is None or parse_policy(settings.policy) != TeacherText():
        return text
    assert settings.teacher_cache is not None
    writing = Writing(parse_sampling(settings.teacher_sampling), settings.max_new_tokens, settings.data_seed)
    client, folder = Client(server, settings.teacher_key), settings.teacher_cache / "answers"
    with together():
        if rank() == 0:
            answered_by(client, text, writing, folder, say, Progress(say, "prompts"))
    return answered_by(client, text, writing, folder, lambda line: None)  # The first process has told.


class ServedTeaching(Teaching):
    """A server that tells log-probabilities of texts that exist. It never sees validation and test.

    Args:
        data: the run's texts, for language models.

    Raises:
        LimbeckError: the server does not answer, or does not tell log-probabilities of prompts.
    """

    on_test = False
    writes_first = True

    def __init__(self, data: TokenData, teacher: Server, needs: frozenset[str], around: Surroundings) -> None:
        self._around, self._needs, self._data = around, needs, data
        self._scorer = Scorer(Client(teacher, around.distill.teacher_key), data.tokenizer, data.vocabulary)
        name = f"server:{teacher.model}"
        self.network = Network(name, Tapped(_Elsewhere(name)), nn.Identity())
        self.classes = data.vocabulary
        around.say(f"teacher     {teacher.model} at {teacher.url}")

    @property
    def calls(self) -> int | None:
        return None

    def of_probe(self, seen: Seen) -> Signals:
        """Logits of the right shape, which ask nothing."""
        shape = seen.batch.labels.shape
        return Signals(logits=torch.zeros(*shape, self._data.vocabulary, device=self._around.device))

    def forget_probe(self) -> None:
        """Nothing is kept of it."""

    def score(self) -> Score | None:
        """None: it is asked about training texts alone."""
        return None

    def logits(self, split: str) -> Callable[[Batch], Tensor]:
        raise AssertionError("a server is not asked about validation and test")

    def ready(self, plans: Sequence[Plan], names: Sequence[Names]) -> Teacher:
        """Where its answers come from in training: the cache, for which it is asked first where there is none.

        Raises:
            TeacherError: the server gives no answer, or one that cannot be used.
            CacheError: the teacher cache is of something else or damaged.
        """
        if not any(plan.needs_teacher for plan in plans):
            return NoTeacher()
        around, scorer = self._around, self._scorer
        # The largest log-probabilities and the mass of the rest are all that it tells; asked anew, it costs anew. Logits of
        # as many texts are made at once as are asked about.
        told = {"cache_logits": TopK(self._server.logprobs).text, "cache_check": 0, "batch_size": self._server.parallel}
        kept: TeacherSettings = around.distill.model_copy(update=told)
        caches = TextCaches(
            kept, self._data, self.network, self._said, around.device, around.say, teacher=self._identity
        )
        teacher = caches.of_training(frozenset[str]().union(*(plan.needs for plan in plans)), names)
        if scorer.fewer or scorer.unknown:
            around.say(
                f"            {scorer.fewer:,} of {scorer.positions:,} positions got fewer than {self._server.logprobs} "
                f"log-probabilities; {scorer.unknown:,} tokens are not in the tokenizer, and count among the rest"
            )
        return teacher

    def channels_last(self) -> None:
        """It has no weights here."""

    @property
    def _server(self) -> Server:
        return self._scorer.server

    @property
    def _identity(self) -> str:
        return f"{self._server.model}, {self._server.logprobs} log-probabilities"

    def _said(self, batch: Batch) -> Signals:
        """Logits (B, L, V) of texts, which are asked for side by side."""
        tokens = batch.inputs
        texts: list[Any] = [row[mask].tolist() for row, mask in zip(tokens.tokens, tokens.attention, strict=True)]
        logits = torch.zeros(*tokens.shape, self._data.vocabulary)
        for number, told in enumerate(self._scorer.each(texts)):
            if not bool(told.isfinite().all()):
                raise TeacherError(f"{self.network.name} tells log-probabilities that are not finite.")
            logits[number, : len(told)] = told
        return Signals(logits=logits.to(batch.labels.device))


class _Elsewhere(nn.Module):
    """Stands in the place of a network that is not here."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def forward(self, *inputs: Any, **keywords: Any) -> Tensor:
        raise TeacherError(f"{self._name} is on a server and cannot be run here.")
