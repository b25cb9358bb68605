"""Collections of documents that queries are put to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from torch import nn

from limbeck.combination import Combination
from limbeck.config import RunSettings
from limbeck.cross_taps import CrossTapped, GivenScores
from limbeck.data.search import KnownTexts, SearchCorpus, SearchData, search_of, tokenizer_facts, told
from limbeck.data.search.joint import JointTexts
from limbeck.errors import LimbeckError, SettingError
from limbeck.evaluate import Score
from limbeck.evaluate.judge import Judge
from limbeck.evaluate.record import Kind
from limbeck.evaluate.search import check_same_similarity
from limbeck.modalities.base import Examined, Modality, check_not_served
from limbeck.modalities.search_networks import DOCUMENTS_OF, SCORES, cross_of, is_encoder, opened, reading_of, spec_of
from limbeck.models.encoders import Encoder, encoder_of, open_cross_encoder
from limbeck.models.language import Adapters
from limbeck.models.spec import ModelSpec
from limbeck.networks import CARD, Network
from limbeck.objectives import Contrastive, Objective
from limbeck.pair_taps import PairTapped
from limbeck.runs import ENCODER, SEARCHED, RunFolder
from limbeck.searching import Searched, ndcg_of, searched, told_beside
from limbeck.signals import Batch
from limbeck.taps import evaluating
from limbeck.tasks.search import SearchTask

if TYPE_CHECKING:
    from limbeck.feeds import Feeds
    from limbeck.job import Job
    from limbeck.surroundings import Surroundings
    from limbeck.teaching import Teaching


@dataclass(frozen=True)
class Search(Modality):
    """See :class:`~limbeck.modalities.Modality`.

    max_length: tokens of the longest text. batch_size: pairs that a cross-encoder reads at a time. embed_chunk: texts that
    students encode at a time; None for all of a batch.
    """

    same_samples = ("data", "max_length", "split_seed", "test_fraction")
    # Scores of cosines are too close together for the temperature of kd.
    usual_objectives = ("contrastive + embed_match", "embed_distill")
    baseline = "contrastive + listwise_kl"
    corpus: SearchCorpus
    max_length: int
    batch_size: int
    embed_chunk: int | None = None

    @staticmethod
    def claims(data: object, setting: str) -> bool:
        return isinstance(data, SearchData | SearchCorpus) or (data is None and search_of(setting) is not None)

    @staticmethod
    def read(jobs: Sequence[Job], accelerator: Accelerator, say: Callable[[str], None]) -> SearchCorpus:
        from limbeck.job import plan_of
        from limbeck.search_feeds import check_search_settings, read_search, search_corpus

        job = jobs[0]
        for each in jobs:
            if not is_encoder(each.student):
                raise SettingError(
                    f"student: {each.student} scores pairs of texts; it can teach, and encoders are trained."
                )
            check_search_settings(each.settings, plan_of(each).needs)
        if job.settings.mining == "teacher" and job.teacher is None:
            raise SettingError(
                "mining=teacher: negatives are what a teacher finds, and there is none; take bm25 or random."
            )
        found = (job.data, told(job.data)) if isinstance(job.data, SearchData) else read_search(job.settings)
        assert found is not None
        return search_corpus(*found, job.settings, job.teacher, [each.student for each in jobs], accelerator, say)

    @staticmethod
    def feeds(data: SearchCorpus, settings: RunSettings, device: torch.device) -> Feeds:
        from limbeck.search_feeds import search_feeds

        return search_feeds(data, settings, device)

    @staticmethod
    def evaluated(settings: RunSettings, students: Sequence[str], teacher: str | None) -> SearchCorpus:
        from limbeck.search_feeds import check_search_settings, read_search, search_corpus

        if teacher is not None and not is_encoder(teacher):
            raise SettingError(
                f"teacher: {teacher} scores pairs of texts, and only encoders can search a collection: name an encoder, or "
                "none with --teacher none."
            )
        check_search_settings(settings, ())
        found = read_search(settings)
        assert found is not None
        # The whole collection is searched: nothing is mined or drawn for a batch.
        plain = {"negatives": 0, "mining": "random", "extra_queries": None}
        return search_corpus(*found, settings.model_copy(update=plain), teacher, list(students))

    @staticmethod
    def evaluated_as(data: SearchCorpus) -> Kind:
        return "search"

    @staticmethod
    def alone() -> Objective:
        return Contrastive()

    @property
    def samples(self) -> str:
        return "queries"

    @property
    def predictions(self) -> str:
        return "queries"

    @property
    def usual_epochs(self) -> int | None:
        return 10

    def facts(self) -> str | None:
        corpus = self.corpus
        names = {"train": "pairs for training", "val": "queries for validation", "test": "for test"}
        sizes = ", ".join(f"{len(corpus.pairs[part]):,} {what}" for part, what in names.items() if part in corpus.pairs)
        cut = self.corpus.student_texts.documents.cut
        lines = [f"{corpus.name}: {len(corpus.data.documents):,} documents; {sizes}"]
        lines += [f"            {line}" for line in corpus.report.lines()[1:]]
        if corpus.mined:
            lines.append(f"            mined: {corpus.mined}")
        if cut:
            lines.append(
                f"            {cut:,} documents are cut at {corpus.student.documents.max_length} of the student's tokens"
            )
        return "\n".join(lines)

    @staticmethod
    def spec(model: str) -> ModelSpec:
        return spec_of(model)

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
        if classifier:
            raise SettingError(f"{who}: an encoder has no classifier that could be named.")
        try:
            if who == "teacher" and not is_encoder(model):
                return self._open_scorer(model, device)
            return self._open_encoder(model, who, probe, device)
        except LimbeckError as error:
            raise type(error)(f"{who}: {error}") from None

    def _open_encoder(self, model: str | nn.Module, who: str, probe: Batch, device: torch.device) -> Network:
        corpus, teaches = self.corpus, who == "teacher"
        known = corpus.known.get(model) if teaches else None
        if known is None:
            name, encoder = opened(model, corpus.tokenizer, self.max_length, corpus.similarity)
        else:
            name, encoder = known.name, encoder_of(known.encoder)
        check_same_similarity(encoder.similarity, corpus.similarity)
        reading = corpus.teacher if teaches else corpus.student
        if reading_of(encoder, self.max_length).key != reading.key:
            raise SettingError(
                f"{name} reads texts otherwise than the others (tokenizer, length or prompts); students that are compared read "
                "the same tokens, and several teachers too."
            )
        encoder.to(device)
        if teaches and known is None:
            known = KnownTexts(name, encoder, corpus.texts[reading.key], encoder.similarity)
        with evaluating(encoder), torch.no_grad():
            if known is None:
                encoder(SearchTask(False).inputs(probe).queries)
            else:
                known.queries(probe.inputs.query)
        chunk = None if teaches else self.embed_chunk
        tapped = PairTapped(encoder, similarity=encoder.similarity, of_teacher=teaches, known=known, chunk=chunk)
        return Network(name, tapped, nn.Identity())

    def _open_scorer(self, model: str | nn.Module, device: torch.device) -> Network:
        cross = cross_of(model)
        if cross is None:
            return Network(SCORES, GivenScores(), nn.Identity())
        network = open_cross_encoder(cross.folder).to(device)
        joint = JointTexts(self.corpus.data, network.tokenizer, min(network.max_length, self.max_length))
        tapped = CrossTapped(network, joint, own=cross.own, batch_size=self.batch_size)
        return Network(cross.name, tapped, nn.Identity())

    def task(self, network: Network, *, channels_last: bool) -> SearchTask:
        tapped = network.tapped
        return SearchTask(isinstance(tapped, PairTapped) and tapped.of_teacher)

    def teaching(self, teacher: str | nn.Module | Combination, needs: frozenset[str], around: Surroundings) -> Teaching:
        from limbeck.search_teaching import SearchTeaching

        check_not_served(teacher, around.feeds.name)
        return SearchTeaching(self.corpus, teacher, needs, around)

    def examine(
        self, opened: Network, network: nn.Module, score: Score, settings: RunSettings, device: torch.device
    ) -> Examined:
        if "test" not in self.corpus.pairs:
            return Examined()
        assert isinstance(network, Encoder)
        assert isinstance(opened.tapped, PairTapped)
        found = searched(
            network,
            self.corpus.data,
            self.corpus.texts[reading_of(network, self.max_length).key],
            similarity=network.similarity,
            batch_size=settings.batch_size,
            device=device,
            documents=opened.tapped.known or opened.tapped.documents_of,
        )
        return Examined(found.figures, found)

    def judge(self, settings: RunSettings, device: torch.device) -> Judge | None:
        if settings.validate_by == "accuracy":
            return None
        if "val" not in self.corpus.pairs:
            raise SettingError(
                f"validate_by: {self.corpus.name} has no queries for validation; set val_fraction above 0."
            )

        def ndcg(network: nn.Module) -> float:
            assert isinstance(network, PairTapped)
            encoder = network.network
            assert isinstance(encoder, Encoder)
            texts = self.corpus.texts[reading_of(encoder, self.max_length).key]
            return ndcg_of(
                encoder,
                self.corpus.data,
                texts,
                similarity=encoder.similarity,
                batch_size=settings.batch_size,
                device=device,
                part="val",
                documents=network.documents_of,
            )

        return Judge("ndcg_10", ndcg)

    def write(
        self,
        folder: RunFolder,
        network: nn.Module,
        student: Examined | None,
        teacher: Examined | None,
        adapters: Adapters | None = None,
    ) -> None:
        assert isinstance(network, Encoder)
        target = folder.path / ENCODER
        if target.exists():  # of a run that was cut off while it wrote
            shutil.rmtree(target)
        network.save(target)
        if student is not None and isinstance(student.details, Searched):
            theirs = None if teacher is None else teacher.details
            told = told_beside(self.corpus.data, student.details, theirs)
            folder.write_text(SEARCHED, json.dumps(told, indent=1, ensure_ascii=False) + "\n")

    def card(self, name: str, network: Network) -> dict[str, str]:
        encoder = network.tapped.network
        assert isinstance(encoder, Encoder)
        facts = {
            "model": name,
            "data": self.corpus.name,
            "modality": "search",
            "tokenizer": tokenizer_facts(encoder.tokenizer),
            "max_length": encoder.max_length,
            "similarity": encoder.similarity,
        }
        assert isinstance(network.tapped, PairTapped)
        if network.tapped.documents_of is not None:
            facts[DOCUMENTS_OF] = network.tapped.documents_of.name
        return {"format": "pt", CARD: json.dumps(facts)}
