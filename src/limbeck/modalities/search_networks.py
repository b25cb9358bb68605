"""Networks of search from their text: encoders, and teachers that are none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from limbeck.data.search import Reading, Tokenising, tokenizer_of
from limbeck.errors import SettingError, check_choice, unknown_name
from limbeck.models.encoders import Encoder, create_encoder, encoder_of
from limbeck.models.spec import ModelSpec, parse_spec
from limbeck.networks import read_card, resolve

SCORES = "scores"
"""A teacher that is the scores of the examples' file."""
DOCUMENTS_OF = "documents"
"""Under this name a card says whose documents a student of queries alone searches."""
_CROSS = "cross:"
_PAIRS = ("own", "batch")
_SIMILARITIES = ("cosine", "dot")


@dataclass(frozen=True)
class Cross:
    """A cross-encoder as a teacher's text names it: ``cross:FOLDER``, or ``cross:FOLDER(pairs='batch')``.

    own: whether it scores each query's own documents alone, or all documents of the batch.
    """

    name: str
    folder: str
    own: bool


def cross_of(model: object) -> Cross | None:
    """The cross-encoder that a teacher's text names; None for another teacher.

    Raises:
        SettingError: an argument that there is not.
    """
    if not isinstance(model, str) or not model.startswith(_CROSS):
        return None
    parsed = parse_spec(f"hf:{model.removeprefix(_CROSS)}")
    for name in parsed.arguments:
        if name != "pairs":
            raise SettingError(f"{model}: {unknown_name('argument', name, ('pairs',))}")
    pairs = parsed.arguments.get("pairs", "own")
    check_choice("pairs", pairs, _PAIRS)
    return Cross(model, parsed.name, pairs == "own")


def scores_its_own(model: object) -> bool:
    """Whether a teacher scores each query's own documents alone."""
    cross = cross_of(model)
    return model == SCORES if cross is None else cross.own


def is_encoder(model: object) -> bool:
    """Whether a network embeds texts, as all do but teachers that score pairs."""
    return model != SCORES and cross_of(model) is None


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
        facts = read_card(spec_of(model).weights or "")
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


def spec_of(model: str) -> ModelSpec:
    """What an encoder's text names, also where that is the folder of a run or of an encoder."""
    return parse_spec(_resolved(model), unprefixed="language")


def documents_of(model: object) -> str | None:
    """Whose documents an encoder searches that learnt to encode queries alone; None for others."""
    if not isinstance(model, str):
        return None
    lent = read_card(spec_of(model).weights or "").get(DOCUMENTS_OF)
    return None if lent is None else str(lent)


def check_encodes_documents(model: str | nn.Module) -> None:
    """Raise SettingError for a student of queries alone, which cannot teach where documents lie."""
    lent = documents_of(model)
    if lent is not None:
        raise SettingError(
            f"teacher: {model} learnt to encode queries alone, for the documents of {lent}; name that one as the teacher."
        )


def has_tokenizer(model: str | nn.Module) -> bool:
    """Whether an encoder brings its own tokenizer, as those do that are modules, from folders or from files of weights."""
    if not isinstance(model, str):
        return True
    parsed = spec_of(model)
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
