"""The teacher of students that search: it reads each text, or each pair, of the collection once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from limbeck.caching import check_search_cache
from limbeck.combination import Combination
from limbeck.cross_taps import CrossTapped
from limbeck.data.search import SearchCorpus
from limbeck.errors import SettingError
from limbeck.evaluate import Score, score
from limbeck.feeds import Few
from limbeck.job import Plan
from limbeck.matching import Names
from limbeck.networks import Network
from limbeck.pair_taps import PairTapped
from limbeck.signals import Signals
from limbeck.surroundings import Surroundings
from limbeck.tasks.base import Seen
from limbeck.teachers import NoTeacher, Teacher
from limbeck.teaching import Teaching
from limbeck.text_memory import read_pairs, read_texts

_CHECKED = 256  # training queries on which a teacher is scored that scores pairs


class SearchTeaching(Teaching):
    """Texts never change, so an encoder reads each once, when everything else is checked, and then it is looked up.

    A cross-encoder scores each query's own documents in the same way, once. With ``teacher_cache`` both are kept in files
    there, for later runs. Teachers that score pairs cannot search a collection, and answer to training batches alone.

    Args:
        corpus: the run's collection.
    """

    def __init__(
        self,
        corpus: SearchCorpus,
        teacher: str | nn.Module | Combination,
        needs: frozenset[str],
        around: Surroundings,
    ) -> None:
        self._corpus = corpus
        super().__init__(teacher, needs, around)
        self._has_read = False
        tapped = self.network.tapped
        self.on_test = isinstance(tapped, PairTapped)
        if isinstance(tapped, CrossTapped):
            self._prepare_cross(tapped, needs)

    def score(self) -> Score | None:
        self._read()
        return super().score()

    def ready(self, plans: Sequence[Plan], names: Sequence[Names]) -> Teacher:
        self._read()
        return self._live_teacher() if any(plan.needs_teacher for plan in plans) else NoTeacher()

    def of_probe(self, seen: Seen) -> Signals:
        told = super().of_probe(seen)
        if self._corpus.own_scores:
            self.classes = seen.batch.inputs.document.shape[1]  # among which chance chooses
        return told

    def lend_documents(self, student: Network) -> None:
        """See :meth:`Teaching.lend_documents`.

        Raises:
            SettingError: the teacher is none that embeds, or several, or the widths differ.
        """
        tapped, teacher = student.tapped, self.network.tapped
        assert isinstance(tapped, PairTapped)
        if not isinstance(teacher, PairTapped) or teacher.known is None:
            raise SettingError(
                f"documents=teacher: {self.network.name} scores pairs, and has no documents to be searched."
            )
        theirs = teacher.known
        if self.network.rule is not None:
            raise SettingError("documents=teacher: a student searches one teacher's documents, and several are given.")
        ours, wanted = tapped.network.width, theirs.encoder.width
        if ours != wanted:
            raise SettingError(
                f"documents=teacher: embeddings of {student.name} have {ours} numbers and the documents of {theirs.name} "
                f"{wanted}. Give the student a linear layer to as many, which stays part of it: project={wanted}, as in "
                f"'hf:FOLDER(project={wanted})' or 'bert(layers=1, width=32, heads=2, project={wanted})'."
            )
        tapped.documents_of = theirs

    def _prepare_cross(self, tapped: CrossTapped, needs: frozenset[str]) -> None:
        tapped.pooled = bool(needs & {"embedding", "documents"})
        around = self._around
        count, each = around.probe.inputs.document.shape
        if not tapped.own:
            wide = around.probe.inputs.excluded.shape[1]
            pairs = f"{count} · {wide} = {count * wide:,} pairs"
            around.say(f"            it reads {pairs} of a query and a document in each step")
        if tapped.pooled:
            if around.distill.teacher_cache is not None:
                raise SettingError(
                    "teacher_cache keeps a cross-encoder's scores, and the objective compares its embeddings, which are of "
                    "pairs: leave teacher_cache out."
                )
            around.say(
                f"            it reads {count} · {each} = {count * each:,} pairs for their embeddings in every step"
            )

    def _check_cache(self) -> None:
        check_search_cache(self._around.distill)

    def _known_logits(self, split: str) -> None:
        """What is kept is of texts, and makes the logits of every split."""
        return

    @property
    def _checked_on(self) -> str:
        return super()._checked_on if self.on_test else "training"

    def _scored(self, split: str) -> Score:
        if self.on_test:
            return super()._scored(split)
        return score(self.logits(split), Few(self._around.feeds.train, _CHECKED)())

    def _read(self) -> None:
        if self._has_read:
            return
        self._has_read = True
        around, corpus = self._around, self._corpus
        with around.accelerator.autocast():
            for number, network in enumerate(self.network.all, 1):
                tapped = network.tapped
                if isinstance(tapped, PairTapped) and tapped.known is not None:
                    read_texts(
                        tapped.known,
                        corpus.data,
                        corpus.teacher,
                        around.distill,
                        around.device,
                        around.say,
                        number=number,
                        extra=corpus.extra,
                    )
                elif isinstance(tapped, CrossTapped) and tapped.own and not tapped.pooled:
                    read_pairs(tapped, corpus, around.distill, around.say)
