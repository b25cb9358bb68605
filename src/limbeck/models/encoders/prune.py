"""A student made from the layers of a folder of sentence-transformers, as such a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from limbeck.models.encoders.create import create_encoder, keep_encoder_layers
from limbeck.models.language import PrunedModel, WrittenFolder, check_folder, check_not_its_own, check_places
from limbeck.models.spec import parse_spec


def prune_encoder(model: str, keep: Sequence[int], output: Path, *, overwrite: bool = False) -> PrunedModel:
    """Write the encoder that a text names with only these of its layers; all else, such as pooling and prompts, stays.

    Args:
        model: such as ``hf:FOLDER``, of sentence-transformers.
        keep: indices from 0, ascending.
        output: a new folder, or with ``overwrite`` one with a network, which is replaced.

    Raises:
        SettingError, WeightsError, MissingExtraError: as :func:`create_encoder` and :func:`keep_encoder_layers` say; nothing
            is written then.
    """
    check_places(keep)
    check_folder(output, overwrite)
    check_not_its_own(parse_spec(model).name, output)
    encoder = create_encoder(model).encoder
    parameters = _count(encoder)
    layers = keep_encoder_layers(encoder, keep)
    path = encoder.save(output, overwrite=True)
    return PrunedModel(
        WrittenFolder.of(path, tokenizer=True),
        "encoder",
        tuple(keep),
        (layers, len(keep)),
        (parameters, _count(encoder)),
    )


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
