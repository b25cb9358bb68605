"""What a frozen encoder says of a collection: each text read once, kept in memory and, where asked for, in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from limbeck.config import RunSettings, TeacherSettings
from limbeck.cross_taps import CrossTapped
from limbeck.data.search import KnownTexts, Reading, ScoreCache, SearchCorpus, SearchData, TextEmbeddings, TokenRows
from limbeck.distributed import gather_rows, rank, world_size
from limbeck.errors import CacheError
from limbeck.evaluate.search import embed
from limbeck.files import atomic_path
from limbeck.fingerprint import of_module, of_tensors
from limbeck.teachers.cached import fits
from limbeck.teachers.together import together

Say = Callable[[str], None]

EMBEDDINGS, SCORES = "embeddings", "scores"
"""Files of a teacher cache, without their suffix; the embeddings of a second teacher have a number behind it."""

_DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
# Relative to the largest number: batches of other lengths round otherwise, and halves have 10 bits.
_TOLERANCE = {"fp16": 2**-7, "fp32": 2e-3}


@dataclass(frozen=True)
class Kept:
    """How embeddings are kept on the disk. path: the file. dtype: "fp16" or "fp32". check: texts that are read again and
    compared when a file is found. facts: what they depend on, in words and digits."""

    path: Path
    dtype: str
    check: int
    facts: Mapping[str, str]


@dataclass(frozen=True)
class _Texts:
    """Texts that lie in one file together, by what they are called there: as they are written, and as tokens."""

    words: Mapping[str, Sequence[str]]
    rows: Mapping[str, TokenRows]

    def facts(self) -> dict[str, str]:
        return {name: f"{len(texts):,} texts {_digest(texts)}" for name, texts in self.words.items()}


def _of_collection(data: SearchData, extra: Tensor | None) -> dict[str, Sequence[str]]:
    """Its own texts: the queries without those that a run adds at their end."""
    own = len(data.queries) - (0 if extra is None else len(extra))
    return {"queries": data.queries.texts[:own], "documents": data.documents.texts}


def _digest(texts: Sequence[str]) -> str:
    # With their lengths, so that no two lists of texts give the same bytes.
    joined = "".join(f"{len(text)}:{text}" for text in texts).encode()
    return of_tensors(texts=torch.frombuffer(bytearray(joined), dtype=torch.uint8))[:16]


def read_texts(
    known: KnownTexts,
    data: SearchData,
    reading: Reading,
    settings: RunSettings,
    device: torch.device,
    say: Say,
    *,
    number: int = 1,
    extra: Tensor | None = None,
) -> None:
    """Have every text of a run read, once, or take what files hold; from then on they are looked up.

    Several processes read a part each. On a GPU the embeddings lie there where they take at most half of what is free. What is
    kept in half precision is rounded in the run that writes it too, so that later runs do the same.

    Args:
        known: an encoder's texts; nothing is done where they were read already.
        number: of the teacher, where there are several.
        extra: places of the queries that are none of the collection's, which are its last ones. They have a file of their own,
            so that the collection's serves runs with others and without.

    Raises:
        CacheError: a file is of something else, which is named, or damaged, or embeddings do not fit into its numbers.
    """
    if known.embedded is not None:
        return
    words, rows = _of_collection(data, extra), known.texts
    own = torch.arange(len(words["queries"]))
    files = {"": _Texts(words, {"queries": rows.queries.some(own), "documents": rows.documents})}
    if extra is not None:
        files["-extra"] = _Texts({"extra": data.queries.texts[len(own) :]}, {"extra": rows.queries.some(extra)})
    found: dict[str, Tensor] = {}
    for ending, texts in files.items():
        kept = None
        if isinstance(settings, TeacherSettings) and settings.teacher_cache is not None:
            name = f"{EMBEDDINGS}{'' if number == 1 else f'-{number}'}{ending}.safetensors"
            facts = {"teacher": of_module(known.encoder), **texts.facts(), **_facts_of(reading)}
            facts |= {"precision": settings.precision, "dtype": settings.cache_dtype}
            kept = Kept(settings.teacher_cache / name, settings.cache_dtype, settings.cache_check, facts)
        found |= _read(known, texts.rows, batch_size=settings.batch_size, device=device, kept=kept, say=say)
    queries = torch.cat([found["queries"], *([found["extra"]] if extra is not None else [])])
    embedded = TextEmbeddings(queries, found["documents"])
    if fits(device, embedded.queries.nbytes + embedded.documents.nbytes):
        embedded = TextEmbeddings(embedded.queries.to(device), embedded.documents.to(device))
    known.embedded = embedded


def _facts_of(reading: Reading) -> dict[str, str]:
    kinds = {"query": reading.queries, "document": reading.documents}
    return {f"{kind} {name}": value for kind, tokenising in kinds.items() for name, value in tokenising.facts().items()}


def _read(
    known: KnownTexts,
    texts: Mapping[str, TokenRows],
    *,
    batch_size: int,
    device: torch.device,
    kept: Kept | None,
    say: Say,
) -> dict[str, Tensor]:
    """Embeddings (N, D) float32 on the CPU, from a file where it exists, which is written otherwise."""
    found = None
    if kept is not None:
        with together():
            found = _found(kept, list(texts))
    if found is None:
        say(f"            {known.name} reads {sum(map(len, texts.values())):,} texts, once")
        found = {name: _embedded(known, rows, batch_size, device) for name, rows in texts.items()}
        return found if kept is None else _written(kept, found, say)
    assert kept is not None
    size = sum(value.nbytes for value in found.values()) / 4 * _DTYPES[kept.dtype].itemsize / 1e6
    say(f"cache       {kept.path}: {size:,.1f} MB, read instead of asking {known.name}")
    _check(known, texts, kept, found, batch_size, device)
    return found


def read_pairs(tapped: CrossTapped, corpus: SearchCorpus, settings: TeacherSettings, say: Say) -> None:
    """Have a cross-encoder score every training pair, once, or take what a file holds.

    Raises:
        CacheError: the file is of something else, which is named, or damaged; or a score is not finite.
    """
    if settings.teacher_cache is not None:
        texts = _Texts(_of_collection(corpus.data, corpus.extra), {})
        facts = {"teacher": of_module(tapped.cross), **texts.facts(), **tapped.joint.facts()}
        path = settings.teacher_cache / f"{SCORES}.safetensors"
        # Each process scores the same pairs, and the first one's are kept.
        tapped.scores = ScoreCache(path, {**facts, "precision": settings.precision}, write=rank() == 0)
    tapped.read_all(corpus.pairs["train"], say)


def _embedded(known: KnownTexts, rows: TokenRows, batch_size: int, device: torch.device) -> Tensor:
    """(N, D) float32 on the CPU. Of several processes each reads every so-manieth text, and all get all."""
    processes = world_size()
    share = -(-len(rows) // processes)
    # As many for each; where the division leaves a rest, the last text is read by several.
    mine = (torch.arange(share) * processes + rank()).clamp(max=len(rows) - 1)
    own = embed(known.encoder, rows.some(mine), batch_size=batch_size, device=device)
    if processes == 1:
        return own
    by_process: Tensor = gather_rows(own.to(device)).unflatten(0, (processes, share))
    return by_process.transpose(0, 1).flatten(0, 1)[: len(rows)].cpu()


def _written(kept: Kept, found: Mapping[str, Tensor], say: Say) -> dict[str, Tensor]:
    from safetensors.torch import save_file

    stored = {name: value.to(_DTYPES[kept.dtype]).contiguous() for name, value in found.items()}
    for name, value in stored.items():
        if not value.isfinite().all():
            raise CacheError(
                f"the teacher's embeddings of {name} are not finite in {kept.dtype}, so they cannot be kept; take "
                "--cache-dtype fp32, or precision fp32."
            )
    with together():
        if rank() == 0:
            with atomic_path(kept.path) as temporary:
                save_file(stored, temporary, metadata=dict(kept.facts))
    say(f"cache       {kept.path}: written, {sum(value.nbytes for value in stored.values()) / 1e6:,.1f} MB")
    return {name: value.float() for name, value in stored.items()}


def _found(kept: Kept, names: Sequence[str]) -> dict[str, Tensor] | None:
    from safetensors import SafetensorError, safe_open

    path, facts = kept.path, kept.facts
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            stored = dict(file.metadata() or {})
            found = {name: file.get_tensor(name).float() for name in names if name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CacheError(
            f"'{path}' is no file of embeddings, or damaged ({error}); remove it, or name another folder."
        ) from error
    differing = [name for name in {**stored, **facts} if stored.get(name) != facts.get(name)]
    if differing:
        told = "; ".join(f"{name} was {stored.get(name)!r} and is {facts.get(name)!r}" for name in differing)
        raise CacheError(
            f"'{path}' holds the embeddings of something else: {told}. Name another folder, or remove the file."
        )
    return found


def _check(
    known: KnownTexts,
    texts: Mapping[str, TokenRows],
    kept: Kept,
    found: Mapping[str, Tensor],
    batch_size: int,
    device: torch.device,
) -> None:
    """Raise CacheError where some texts, read again, are not what the file holds."""
    for name, rows in texts.items():
        stored = found.get(name)
        if stored is None or stored.ndim != 2 or len(stored) != len(rows):
            raise CacheError(f"'{kept.path}' is damaged: it does not hold a row for each text; remove it.")
        places = torch.linspace(0, len(rows) - 1, min(kept.check, len(rows))).long()
        if not len(places):
            continue
        again = embed(known.encoder, rows.some(places), batch_size=batch_size, device=device)
        apart = float((again - stored[places]).abs().max() / again.abs().max())
        if apart > _TOLERANCE[kept.dtype]:
            raise CacheError(
                f"'{kept.path}' differs from what {known.name} says now by {apart:.1e} of the largest number, more than "
                f"{_TOLERANCE[kept.dtype]:.1e}; remove it, or name another folder."
            )
