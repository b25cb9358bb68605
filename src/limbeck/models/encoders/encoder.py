"""A text encoder as a network: from token tensors to embeddings, as its folder's own configuration says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from limbeck.errors import SettingError, check_choice
from limbeck.files import atomic_folder
from limbeck.models.encoders.quiet import quiet

Kind = Literal["query", "document"]
KINDS: tuple[Kind, ...] = ("query", "document")

_PROMPTS: Mapping[str, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}


class Encoder(nn.Module):
    """A pipeline of sentence-transformers: a transformer, pooling, and perhaps layers and a scaling to length 1.

    model: a ``SentenceTransformer``. Make one with :func:`open_encoder`, which checks its folder.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(B, D) embeddings from ``input_ids`` and ``attention_mask``, (B, L) int64, and ``token_type_ids`` where used."""
        found: Tensor = self.model(dict(inputs))["sentence_embedding"]
        return found[:, : self.model.truncate_dim]

    @property
    def width(self) -> int:
        """D, numbers of an embedding."""
        return int(self.model.truncate_dim or self.model.get_embedding_dimension())

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer, of Hugging Face."""
        return self.model.tokenizer

    @property
    def max_length(self) -> int:
        """Tokens after which a text is cut, special ones counted."""
        return int(self.model.max_seq_length)

    @property
    def similarity(self) -> str:
        """The function that scores two embeddings: ``cosine`` where the folder names none, as sentence-transformers has it."""
        return str(self.model.similarity_fn_name)

    def prompt(self, kind: Kind) -> str:
        """What the folder puts before every query or document; nothing where it names nothing.

        Raises SettingError on another kind.
        """
        check_choice("kind", kind, KINDS)
        prompts: Mapping[str, str] = self.model.prompts
        names = (*_PROMPTS[kind], self.model.default_prompt_name)
        return next((prompts[name] for name in names if name is not None and name in prompts), "")

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """A folder that ``SentenceTransformer(folder)`` loads, with the same vectors; written whole or not at all.

        Raises SettingError where the folder is there already, unless ``overwrite`` says to replace it.
        """
        target = Path(folder).resolve()
        if target.exists() and not overwrite:
            raise SettingError(f"'{target}' exists already; give a folder that does not, so that nothing is lost.")
        with atomic_folder(target) as temporary, quiet():
            self.model.save(str(temporary), create_model_card=False, safe_serialization=True)
        return target


def project(encoder: Encoder, width: int, weight: Tensor | None = None) -> Encoder:
    """The encoder with a linear layer to ``width`` numbers at its end, before the scaling to length 1 where it has one.

    The layer is part of the encoder and of its folder: a student that is to search a teacher's documents needs the teacher's
    width for good. It has no bias. The networks are shared with the encoder that was given.

    weight: (width, D) to begin with, as :func:`fit_projection` finds it; random without.

    Raises:
        SettingError: a weight of another shape.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    inside = encoder.model.get_embedding_dimension()
    if encoder.model.truncate_dim is not None:
        raise SettingError("the encoder cuts its embeddings (truncate_dim), behind which no layer can stand.")
    if weight is not None and tuple(weight.shape) != (width, inside):
        raise SettingError(f"weight must be of shape ({width}, {inside}), got {tuple(weight.shape)}.")
    dense = Dense(inside, width, bias=False, activation_function=nn.Identity(), init_weight=weight)
    modules = list(encoder.model.children())
    place = len(modules) - isinstance(modules[-1], Normalize)
    modules.insert(place, dense)
    made = SentenceTransformer(
        modules=modules,
        device=str(encoder.model.device),
        prompts=dict(encoder.model.prompts),
        default_prompt_name=encoder.model.default_prompt_name,
        similarity_fn_name=encoder.similarity,
        local_files_only=True,
    )
    return Encoder(made)


def fit_projection(student: Tensor, teacher: Tensor, *, ridge: float = 1e-3) -> Tensor:
    """(D_T, D_S) the linear map W for which W·s is nearest to t, over embeddings (N, D_S) and (N, D_T) of the same N texts.

    Least squares, in float64, with ``ridge`` times the mean square of the student's numbers on the diagonal, so that few
    texts do for a wide student. A projection that begins at random makes scores meaningless for the first epochs.
    """
    ours, theirs = student.double(), teacher.double()
    square = ours.T @ ours
    square += ridge * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype, device=square.device)
    solved: Tensor = torch.linalg.solve(square, ours.T @ theirs)
    return solved.T.float()
