"""Text as tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from torch import nn

from limbeck.answering import answers_of, figures_of, side_by_side
from limbeck.authoring import Author, author_of
from limbeck.back_translation import back_translated, parse_back_translation
from limbeck.combination import Combination
from limbeck.config import DistillSettings, RunSettings
from limbeck.data.text import TextData, TokenData, text_of
from limbeck.errors import LimbeckError, SettingError
from limbeck.evaluate import Score
from limbeck.evaluate.record import Kind
from limbeck.modalities.base import Examined, Modality, check_not_served
from limbeck.modalities.language_networks import check_context, check_vocabulary, created
from limbeck.models.language import (
    Adapters,
    Lora,
    context_of,
    parse_lora,
    published_name,
    write_folder,
)
from limbeck.models.spec import ModelSpec, parse_spec
from limbeck.networks import CARD, Network, resolve
from limbeck.policies import Fixed, Policy, parse_sampling
from limbeck.runs import ADAPTER, MERGED, TEST_ANSWERS, RunFolder
from limbeck.servers import parse_server
from limbeck.signals import Batch
from limbeck.taps import evaluating
from limbeck.tasks.text import TextTask
from limbeck.text_engine import parse_text_engine
from limbeck.token_taps import TokenTapped, language_classifier

if TYPE_CHECKING:
    from limbeck.feeds import Feeds
    from limbeck.job import Job
    from limbeck.surroundings import Surroundings
    from limbeck.teaching import Teaching

_LARGEST = 700.0  # nats of which a float holds the exponential


@dataclass(frozen=True)
class Text(Modality):
    """See :class:`~limbeck.modalities.Modality`.

    max_new_tokens: what is written after the longest prompt; 0 where nothing is. views: how training texts are seen, where
    not once as they are.
    """

    same_samples = ("data", "max_length", "too_long", "chat", "columns", "separator")
    data: TokenData
    max_new_tokens: int = 0
    views: str = ""

    @staticmethod
    def claims(data: object, setting: str) -> bool:
        return isinstance(data, TextData | TokenData) or (data is None and text_of(setting) is not None)

    @staticmethod
    def read(jobs: Sequence[Job], accelerator: Accelerator, say: Callable[[str], None]) -> TokenData:
        from limbeck.served import check_served, with_answers
        from limbeck.text_feeds import check_text_settings, read_text, tokens_of

        job = jobs[0]
        for each in jobs:
            check_text_settings(each.settings)
        check_served(jobs)
        with accelerator.main_process_first():
            text = job.data if isinstance(job.data, TextData) else read_text(job.settings)
        assert text is not None
        text = with_answers(job, text, say)
        if job.settings.back_translation is not None:
            asked = parse_back_translation(job.settings.back_translation)
            with accelerator.main_process_first():
                text = back_translated(text, asked, job.settings.max_length, accelerator.device, say)
        teachers = [] if parse_server(job.teacher) is not None else [job.teacher]
        return tokens_of(text, job.settings, [*teachers, *(each.student for each in jobs)])

    @staticmethod
    def feeds(data: TokenData, settings: RunSettings, device: torch.device) -> Feeds:
        from limbeck.text_feeds import text_feeds

        return text_feeds(data, settings, device)

    @staticmethod
    def evaluated(settings: RunSettings, students: Sequence[str], teacher: str | None) -> TokenData:
        from limbeck.text_feeds import check_same_tokens, check_text_settings, read_text, tokens_of

        check_text_settings(settings)
        text = read_text(settings)
        assert text is not None
        networks = [*([teacher] if teacher else []), *students]
        data = tokens_of(text, settings, networks)
        check_same_tokens(data, networks)
        return data

    @staticmethod
    def evaluated_as(data: TokenData) -> Kind:
        return "language" if data.task == "causal" else "classification"

    @property
    def samples(self) -> str:
        return "texts"

    @property
    def predictions(self) -> str:
        return "tokens" if self._causal else "texts"

    @property
    def _causal(self) -> bool:
        return self.data.task == "causal"

    @property
    def usual_epochs(self) -> int | None:
        return 3

    def facts(self) -> str | None:
        data = self.data
        kind = f"{len(data.text.classes)} classes" if not self._causal else f"{data.vocabulary:,} kinds of tokens"
        names = {"train": "train", "val": "validation", "test": "test"}
        sizes = ", ".join(f"{report.rows:,} {names[name]}" for name, report in data.reports.items())
        lines = [f"{data.name}: {sizes} texts; {kind}; at most {data.max_length} tokens"]
        for name, report in data.reports.items():
            lines += [f"            {names[name]}: {line}" for line in report.lines()[1:]]
        lines += [f"            views {self.views}"] * bool(self.views)
        return "\n".join(lines)

    @staticmethod
    def spec(model: str) -> ModelSpec:
        return parse_spec(resolve(model), unprefixed="language")

    def open(
        self,
        model: str | nn.Module,
        *,
        who: str,
        probe: Batch,
        device: torch.device,
        classifier: str | None,
        image_size: int | None = None,
        embedding: bool = True,
        lora: str | None = None,
    ) -> Network:
        name = model if isinstance(model, str) else type(model).__name__
        network = model
        if isinstance(network, str):
            name, network = created(network, self.data, self.max_new_tokens, who)
        check_vocabulary(network, self.data, who)
        check_context(network, self.data, self.max_new_tokens, who)
        # Before the taps, which then are in the layers that will run.
        adapters = None if lora is None else self._adapted(network, parse_lora(lora), model)
        network.to(device)
        inputs = probe.inputs[:2]
        if embedding and not classifier:
            try:
                classifier = language_classifier(network, inputs, causal=self._causal)
            except LimbeckError as error:
                raise type(error)(f"{who}: {error}") from None
        vocabulary = self.data.vocabulary if self._causal else None
        tapped = TokenTapped(network, causal=self._causal, classifier=classifier or None, vocabulary=vocabulary)
        try:
            with evaluating(tapped), torch.no_grad():
                tapped(inputs)
        except LimbeckError as error:
            raise type(error)(f"{who}: {error}") from None
        except Exception as error:  # the network's own code raises what it likes
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise SettingError(
                f"{who}: {name} cannot take tokens of shape {tuple(inputs.shape)} ({reason})."
            ) from error
        return Network(name, tapped, nn.Identity(), adapters=adapters)

    def _adapted(self, network: nn.Module, lora: Lora, model: str | nn.Module) -> Adapters:
        base = published_name(resolve(model)) if isinstance(model, str) else None
        # The classifier of other classes is new, and would stay as it was drawn.
        return Adapters(network, lora, train_classifier=not self._causal, base=base)

    def task(self, network: Network, *, channels_last: bool) -> TextTask:
        return TextTask()

    def teaching(self, teacher: str | nn.Module | Combination, needs: frozenset[str], around: Surroundings) -> Teaching:
        server = parse_server(teacher)
        if server is not None and self._causal:
            from limbeck.served import ServedTeaching

            return ServedTeaching(self.data, server, needs, around)
        from limbeck.text_teaching import TextTeaching

        check_not_served(teacher, around.feeds.name)
        return TextTeaching(self.data, self.views, teacher, needs, around)

    def check_adapted_teacher(self) -> None:
        """A language model can, and a classifier of text too."""

    def author(
        self, policy: Policy, student: Network, teacher: Network | None, settings: DistillSettings
    ) -> Author | None:
        data = self.data
        if policy == Fixed():
            return None
        if not self._causal or data.text.kind == "text":
            raise SettingError(f"policy: {policy} answers prompts, and {data.name} has none.")
        if settings.packing:
            raise SettingError("packing puts several prompts in a row, and with a policy each is answered by itself.")
        if teacher is not None and teacher.beside and "teacher" in policy.needs:
            raise SettingError(f"policy: {policy} writes with the teacher, which must be one network for that.")
        return author_of(
            policy,
            student.tapped.network,
            None if teacher is None else teacher.tapped.network,
            (parse_sampling(settings.student_sampling), parse_sampling(settings.teacher_sampling)),
            data.train.special,
            data.vocabulary,
            settings.max_new_tokens,
            settings.data_seed,
            parse_text_engine(settings.text_engine),
            data.max_length + settings.max_new_tokens,
        )

    def examine(
        self, opened: Network, network: nn.Module, score: Score, settings: RunSettings, device: torch.device
    ) -> Examined:
        if not self._causal:
            return Examined()
        answers = answers_of(network, self.data, settings, device)
        perplexity = math.exp(score.nll) if score.nll < _LARGEST else math.inf
        return Examined({"perplexity": perplexity, **figures_of(answers, settings)}, answers)

    def write(
        self,
        folder: RunFolder,
        network: nn.Module,
        student: Examined | None,
        teacher: Examined | None,
        adapters: Adapters | None = None,
    ) -> None:
        if adapters is not None:
            self._write_merged(folder, network, adapters)
        answers = () if student is None else student.details
        if answers:
            listed = side_by_side(answers, () if teacher is None else teacher.details)
            folder.write_text(TEST_ANSWERS, json.dumps(listed, indent=1, ensure_ascii=False) + "\n")

    def _write_merged(self, folder: RunFolder, network: nn.Module, adapters: Adapters) -> None:
        """The student with its adapters in its weights, for others to read, and the adapters where their base is published."""
        if callable(getattr(network, "save_pretrained", None)):
            tokenizer = self.data.tokenizer
            known = tokenizer if callable(getattr(tokenizer, "save_pretrained", None)) else None
            write_folder(network, known, folder.path / MERGED, overwrite=True)
        if adapters.base is not None:
            adapters.write(folder.path / ADAPTER)

    def card(self, name: str, network: Network) -> dict[str, str]:
        facts = {
            "model": name,
            "data": self.data.name,
            "modality": "text",
            "task": self.data.task,
            "tokenizer": dict(self.data.tokenizer_facts),
            "max_length": self.data.max_length,
            "context": context_of(network.tapped.network),
        }
        if not self._causal:
            facts["classes"] = list(self.data.text.classes)
        return {"format": "pt", CARD: json.dumps(facts)}
