"""Collections of documents that queries are put to."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from limbeck.config import RunSettings
from limbeck.data.search import Reading, SearchCorpus, Tokenising, tokenizer_facts, tokenizer_of
from limbeck.errors import LimbeckError, SettingError
from limbeck.evaluate import Score
from limbeck.evaluate.judge import Judge
from limbeck.evaluate.search import check_same_similarity
from limbeck.modalities.base import Examined
from limbeck.models.encoders import Encoder, create_encoder, encoder_of
from limbeck.models.language import Adapters
from limbeck.models.spec import ModelSpec, parse_spec
from limbeck.networks import CARD, Network, read_card, resolve
from limbeck.pair_taps import PairTapped
from limbeck.runs import ENCODER, SEARCHED, RunFolder
from limbeck.searching import Searched, ndcg_of, searched, told_beside
from limbeck.signals import Batch
from limbeck.taps import evaluating
from limbeck.tasks.search import SearchTask

_SIMILARITIES = ("cosine", "dot")


@dataclass(frozen=True)
class Search:
    """See :class:`~limbeck.modalities.Modality`. max_length: tokens of the longest text."""

    corpus: SearchCorpus
    max_length: int

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
        if cut:
            lines.append(
                f"            {cut:,} documents are cut at {corpus.student.documents.max_length} of the student's tokens"
            )
        return "\n".join(lines)

    def labels_by_index(self) -> Tensor | None:
        return None

    @staticmethod
    def spec(model: str) -> ModelSpec:
        return parse_spec(_resolved(model), unprefixed="language")

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
        corpus = self.corpus
        try:
            if classifier:
                raise SettingError("an encoder has no classifier that could be named.")
            name, encoder = opened(model, corpus.tokenizer, self.max_length, corpus.similarity)
            check_same_similarity(encoder.similarity, corpus.similarity)
        except LimbeckError as error:
            raise type(error)(f"{who}: {error}") from None
        reading = corpus.teacher if who == "teacher" else corpus.student
        if reading_of(encoder, self.max_length).key != reading.key:
            raise SettingError(
                f"{who}: {name} reads texts otherwise than the others (tokenizer, length or prompts); students that are "
                "compared read the same tokens, and several teachers too."
            )
        encoder.to(device)
        tapped = PairTapped(encoder, similarity=encoder.similarity, of_teacher=who == "teacher")
        with evaluating(tapped), torch.no_grad():
            encoder(SearchTask(tapped.of_teacher).inputs(probe).queries)
        return Network(name, tapped, nn.Identity())

    def task(self, network: Network, *, channels_last: bool) -> SearchTask:
        assert isinstance(network.tapped, PairTapped)
        return SearchTask(network.tapped.of_teacher)

    def examine(self, network: nn.Module, score: Score, settings: RunSettings, device: torch.device) -> Examined:
        if "test" not in self.corpus.pairs:
            return Examined()
        assert isinstance(network, Encoder)
        found = searched(
            network,
            self.corpus.data,
            self.corpus.texts[reading_of(network, self.max_length).key],
            similarity=network.similarity,
            batch_size=settings.batch_size,
            device=device,
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
            encoder = network.network if isinstance(network, PairTapped) else network
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
        return {"format": "pt", CARD: json.dumps(facts)}


def opened(
    model: str | nn.Module, tokenizer: object, max_length: int, similarity: str | None = None
) -> tuple[str, Encoder]:
    """An encoder with its name, from its text or module.

    tokenizer, max_length, similarity: of encoders that are made in place, unless a file of weights tells its own.

    Raises:
        LimbeckError: it cannot be made, or scores neither by cosines nor by products.
    """
    if isinstance(model, str):
        spec = _resolved(model)
        facts = read_card(Search.spec(model).weights or "")
        if "tokenizer" in facts:
            tokenizer = tokenizer_of(facts["tokenizer"])
        created = create_encoder(
            spec,
            tokenizer=tokenizer,
            max_length=int(facts.get("max_length", max_length)),
            similarity=str(facts.get("similarity", similarity or "cosine")),
        )
        name, encoder = created.name, created.encoder
    else:
        name, encoder = type(model).__name__, encoder_of(model)
    if encoder.similarity not in _SIMILARITIES:
        raise SettingError(
            f"{name} scores by '{encoder.similarity}'; encoders that score by cosine or dot are trained."
        )
    return name, encoder


def has_tokenizer(model: str | nn.Module) -> bool:
    """Whether an encoder brings its own tokenizer, as those do that are modules, from folders or from files of weights."""
    if not isinstance(model, str):
        return True
    parsed = Search.spec(model)
    return parsed.source == "hf" or "tokenizer" in read_card(parsed.weights or "")


def reading_of(encoder: Encoder, max_length: int) -> Reading:
    """How an encoder reads texts, of which no more than ``max_length`` tokens are taken."""
    length = min(max_length, encoder.max_length)
    queries, documents = (Tokenising(encoder.tokenizer, length, encoder.prompt(kind)) for kind in ("query", "document"))
    return Reading(queries, documents)


def _resolved(model: str) -> str:
    folder = Path(model).expanduser()
    if any((folder / name).is_file() for name in ("modules.json", "config.json")):
        return f"hf:{model}"  # the folder of an encoder, which is no run
    return resolve(model)
