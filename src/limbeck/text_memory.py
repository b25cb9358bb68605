"""What a frozen encoder says of a collection: each text read once, kept in memory and, where asked for, in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    compared when a file is found."""

    path: Path
    dtype: str
    check: int


def identity(known: KnownTexts, data: SearchData, reading: Reading, *, precision: str, dtype: str) -> dict[str, str]:
    """What the embeddings of a collection depend on, in words and digits."""
    facts = {
        "teacher": of_module(known.encoder),
        **_collection(data),
    }
    for kind, tokenising in (("query", reading.queries), ("document", reading.documents)):
        facts |= {f"{kind} {name}": value for name, value in tokenising.facts().items()}
    return {**facts, "precision": precision, "dtype": dtype}


def _collection(data: SearchData) -> dict[str, str]:
    return {
        "queries": f"{len(data.queries):,} texts {_digest(data.queries.texts)}",
        "documents": f"{len(data.documents):,} texts {_digest(data.documents.texts)}",
    }


def _digest(texts: tuple[str, ...]) -> str:
    # With their lengths, so that no two lists of texts give the same bytes.
    joined = "".join(f"{len(text)}:{text}" for text in texts).encode()
    return of_tensors(texts=torch.frombuffer(bytearray(joined), dtype=torch.uint8))[:16]


def read_all(
    known: KnownTexts,
    *,
    batch_size: int,
    device: torch.device,
    kept: Kept | None = None,
    facts: Mapping[str, str] | None = None,
    say: Say,
) -> None:
    """Have every text of the collection read, once, or take what a file holds; from then on they are looked up.

    Several processes read a part each. On a GPU the embeddings lie there where they take at most half of what is free. What is
    kept in half precision is rounded in the run that writes it too, so that later runs do the same.

    kept: a file that is read where it exists and written otherwise, with the ``facts`` of :func:`identity`.

    Raises:
        CacheError: the file is of something else, which is named, or damaged, or embeddings do not fit into its numbers.
    """
    found = None
    if kept is not None:
        with together():
            found = _found(kept.path, facts or {})
    if found is None:
        count = len(known.texts.queries) + len(known.texts.documents)
        say(f"            {known.name} reads {count:,} texts, once")
        found = TextEmbeddings(
            *(_embedded(known, rows, batch_size, device) for rows in (known.texts.queries, known.texts.documents))
        )
        if kept is not None:
            found = _written(kept, facts or {}, found, say)
    elif kept is not None:
        size = _bytes(found) / 4 * _DTYPES[kept.dtype].itemsize / 1e6
        say(f"cache       {kept.path}: {size:,.1f} MB, read instead of asking {known.name}")
        _check(known, kept, found, batch_size, device)
    if fits(device, _bytes(found)):
        found = TextEmbeddings(found.queries.to(device), found.documents.to(device))
    known.embedded = found


def read_texts(
    known: KnownTexts,
    data: SearchData,
    reading: Reading,
    settings: RunSettings,
    device: torch.device,
    say: Say,
    *,
    number: int = 1,
) -> None:
    """:func:`read_all` by the settings of a run, for the ``number``-th of its teachers."""
    if known.embedded is not None:
        return
    kept, facts = None, None
    if isinstance(settings, TeacherSettings) and settings.teacher_cache is not None:
        name = f"{EMBEDDINGS}{'' if number == 1 else f'-{number}'}.safetensors"
        kept = Kept(settings.teacher_cache / name, settings.cache_dtype, settings.cache_check)
        facts = identity(known, data, reading, precision=settings.precision, dtype=kept.dtype)
    read_all(known, batch_size=settings.batch_size, device=device, kept=kept, facts=facts, say=say)


def read_pairs(tapped: CrossTapped, corpus: SearchCorpus, settings: TeacherSettings, say: Say) -> None:
    """Have a cross-encoder score every training pair, once, or take what a file holds.

    Raises:
        CacheError: the file is of something else, which is named, or damaged; or a score is not finite.
    """
    if settings.teacher_cache is not None:
        facts = {"teacher": of_module(tapped.cross), **_collection(corpus.data), **tapped.joint.facts()}
        path = settings.teacher_cache / f"{SCORES}.safetensors"
        # Each process scores the same pairs, and the first one's are kept.
        tapped.scores = ScoreCache(path, {**facts, "precision": settings.precision}, write=rank() == 0)
    tapped.read_all(corpus.pairs["train"], say)


def _bytes(found: TextEmbeddings) -> int:
    return found.queries.nbytes + found.documents.nbytes


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


def _written(kept: Kept, facts: Mapping[str, str], found: TextEmbeddings, say: Say) -> TextEmbeddings:
    from safetensors.torch import save_file

    stored = {name: value.to(_DTYPES[kept.dtype]).contiguous() for name, value in vars(found).items()}
    for name, value in stored.items():
        if not value.isfinite().all():
            raise CacheError(
                f"the teacher's embeddings of {name} are not finite in {kept.dtype}, so they cannot be kept; take "
                "--cache-dtype fp32, or precision fp32."
            )
    with together():
        if rank() == 0:
            with atomic_path(kept.path) as temporary:
                save_file(stored, temporary, metadata=dict(facts))
    say(f"cache       {kept.path}: written, {sum(value.nbytes for value in stored.values()) / 1e6:,.1f} MB")
    return TextEmbeddings(stored["queries"].float(), stored["documents"].float())


def _found(path: Path, facts: Mapping[str, str]) -> TextEmbeddings | None:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            stored = dict(file.metadata() or {})
            queries, documents = (file.get_tensor(name).float() for name in ("queries", "documents"))
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
    return TextEmbeddings(queries, documents)


def _check(known: KnownTexts, kept: Kept, found: TextEmbeddings, batch_size: int, device: torch.device) -> None:
    """Raise CacheError where some texts, read again, are not what the file holds."""
    for rows, stored in ((known.texts.queries, found.queries), (known.texts.documents, found.documents)):
        if stored.ndim != 2 or len(stored) != len(rows):
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
