"""What the tables of an evaluation tell of language models and encoders, a row a figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from limbeck.cli.figure_rows import SCORES, Row
from limbeck.evaluate.record import Scored
from limbeck.evaluate.search.figures import Followed, IndexCost, IndexCosts, IndexRatios, SearchFigures
from limbeck.evaluate.tasks import TaskFigure
from limbeck.evaluate.text.figures import AnswerFigures, TokenFigures, Writing, WritingCosts

_MEBI = 2**20

TOKEN_SCORES: list[Row[Scored]] = [("token accuracy", lambda score: score.accuracy, ".2%"), *SCORES[1:]]

TOKENS: list[Row[TokenFigures]] = [
    ("perplexity", lambda each: each.perplexity, ".4g"),
    ("KL(student ‖ teacher) (nats)", lambda each: each.reverse_kl, ".4f"),
]

ANSWERS: list[Row[AnswerFigures]] = [
    ("exact match", lambda each: each.exact_match, ".2%"),
    ("ROUGE-L (F1)", lambda each: each.rouge_l, ".4f"),
    ("cut off before an end", lambda each: each.cut_off, ".2%"),
]

SEARCH_SCORES: list[Row[Scored]] = [
    ("first document is relevant", lambda score: score.accuracy, ".2%"),
    ("one of the first five is", lambda score: score.top5, ".2%"),
    ("first document is the teacher's", lambda score: score.agreement, ".2%"),
]

SEARCH: list[Row[SearchFigures]] = [
    ("nDCG@10", lambda each: each.ndcg_10, ".4f"),
    ("MRR@10", lambda each: each.mrr_10, ".4f"),
    ("recall@10", lambda each: each.recall_10, ".4f"),
    ("recall@100", lambda each: each.recall_100, ".4f"),
    ("MAP", lambda each: each.map, ".4f"),
]

FOLLOWED: list[Row[Followed]] = [
    ("nDCG@10 kept", lambda each: each.ndcg_kept, ".2%"),
    ("relevant documents of the teacher's kept", lambda each: each.kept, ".2%"),
    ("relevant documents gained", lambda each: each.gained, ",d"),
    ("same documents", lambda each: each.overlap, ".2%"),
    ("linear CKA of queries", lambda each: each.cka_queries, ".4f"),
    ("linear CKA of documents", lambda each: each.cka_documents, ".4f"),
    ("cosine of queries' embeddings", lambda each: each.cosine_queries, ".4f"),
    ("cosine of documents' embeddings", lambda each: each.cosine_documents, ".4f"),
]


def task_rows(found: Mapping[str, Sequence[TaskFigure]]) -> list[Row[Sequence[TaskFigure]]]:
    """A row for each figure of each task."""
    named = dict.fromkeys((each.task, each.metric) for figures in found.values() for each in figures)
    return [(f"{task}, {metric}", _of_task(task, metric), ".4f") for task, metric in named]


def _of_task(task: str, metric: str) -> Callable[[Sequence[TaskFigure]], float | None]:
    return lambda figures: next((each.value for each in figures if (each.task, each.metric) == (task, metric)), None)


@dataclass(frozen=True)
class _Beside:
    """What a network costs, and the teacher's over it or the other way round."""

    writing: Sequence[Writing] = ()
    faster: Sequence[float] = ()
    index: IndexCost | None = None
    ratios: IndexRatios | None = None


def writing_rows(found: WritingCosts, first: Sequence[Writing]) -> tuple[Mapping[str, _Beside], list[Row[_Beside]]]:
    """Tokens a second in batches of each size, and how many times the teacher's that is."""
    ratios = found.ratios or {}
    told = {who: _Beside(each, ratios.get(who, ())) for who, each in found.networks.items()}
    rows: list[Row[_Beside]] = []
    for place, each in enumerate(first):
        answers = "1 answer" if each.batch == 1 else f"{each.batch} answers"
        rows.append((f"tokens/s, {answers} of {each.new_tokens} at a time", _written(place), ",.1f"))
        rows.append(("  over the teacher's", _faster(place), ".2f"))
    return told, rows


def _written(place: int) -> Callable[[_Beside], float]:
    return lambda each: each.writing[place].tokens_per_second


def _faster(place: int) -> Callable[[_Beside], float | None]:
    return lambda each: each.faster[place] if each.faster else None


def index_rows(found: IndexCosts) -> tuple[Mapping[str, _Beside], list[Row[_Beside]]]:
    """The index, encoding and a query, each with the teacher's over it."""
    ratios = found.ratios or {}
    told = {who: _Beside(index=each, ratios=ratios.get(who)) for who, each in found.networks.items()}
    return told, [
        ("numbers of an embedding", _cost(lambda each: each.width), ",d"),
        ("index (MiB)", _cost(lambda each: each.index_bytes / _MEBI), ".3f"),
        ("  teacher ÷ it", _ratio(lambda each: each.index_bytes), ".2f"),
        ("documents encoded/s", _cost(lambda each: each.documents_per_second), ",.1f"),
        ("  over the teacher's", _ratio(lambda each: each.documents_per_second), ".2f"),
        ("ms for a query", _cost(lambda each: each.query_ms), ".3g"),
        ("  teacher ÷ it", _ratio(lambda each: each.query_ms), ".2f"),
        ("ms of the search in it", _cost(lambda each: each.search_ms), ".3g"),
    ]


def _cost(read: Callable[[IndexCost], float]) -> Callable[[_Beside], float | None]:
    return lambda each: None if each.index is None else read(each.index)


def _ratio(read: Callable[[IndexRatios], float]) -> Callable[[_Beside], float | None]:
    return lambda each: None if each.ratios is None else read(each.ratios)
