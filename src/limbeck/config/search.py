"""How a collection is divided, and what a batch of queries and documents is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from limbeck.config.base import Settings


class QuerySettings(Settings):
    """How the queries of a collection are divided."""

    test_fraction: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="Share of the queries for the test, in a collection without training queries.",
    )
    split_seed: int = Field(
        default=0, ge=0, description="Seed of the division of the queries, and of random negatives."
    )


class SearchSettings(QuerySettings):
    """The same, what a batch of queries and documents is made of, and what is looked at in between."""

    negatives: int = Field(default=0, ge=0, description="Documents beside its own that each query brings into a batch.")
    mining: Literal["bm25", "teacher", "random"] = Field(
        default="bm25", description="Which, where the examples bring too few: what BM25 or the teacher finds, or any."
    )
    mining_margin: float | None = Field(
        default=None,
        ge=0,
        description="With mining=teacher: leave out what it scores above the positive less this, as unjudged answers.",
    )
    mining_share: float | None = Field(
        default=None, gt=0, le=1, description="The same, above this share of the positive's score; 0.95 is usual."
    )
    extra_queries: Path | None = Field(
        default=None,
        description="File of queries without judgements, for 'embed_match(extra=1)': a .txt, .jsonl or .tsv.",
    )
    embed_chunk: int | None = Field(
        default=None,
        ge=1,
        description="Texts that the student encodes at a time: a large batch in the memory of a small one (GradCache).",
    )
    validate_by: Literal["accuracy", "ndcg"] = Field(
        default="accuracy",
        description="What selects the best epoch: accuracy among a batch's documents, or nDCG@10 of a search of all documents, "
        "which are encoded at each validation.",
    )
