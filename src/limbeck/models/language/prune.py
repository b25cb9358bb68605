"""A student made from its teacher's layers, as a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from limbeck.errors import SettingError
from limbeck.models.language.create import create_language_model, load_tokenizer, usual_task
from limbeck.models.language.folder import WrittenFolder, check_folder, write_folder
from limbeck.models.language.layers import check_places, keep_layers, layers_of
from limbeck.models.sources import Task


@dataclass(frozen=True)
class PrunedModel:
    """What was kept of a language model.

    task: what it answers with. layers, parameters: before and after. kept: the layers' indices in the whole network.
    """

    written: WrittenFolder
    task: Task
    kept: tuple[int, ...]
    layers: tuple[int, int]
    parameters: tuple[int, int]


def prune_layers(
    model: str,
    keep: Sequence[int],
    output: Path,
    *,
    task: Task | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> PrunedModel:
    """Write the language model that a text names with only these of its layers, as a folder of transformers.

    Weights have the type that the published file has. See :func:`keep_layers` for what is kept.

    Args:
        model: such as ``hf:FOLDER``.
        keep: indices from 0, ascending.
        output: a new folder, or with ``overwrite`` one with a language model, which is replaced.
        task: None for what the model was published for.
        say: gets a line for each thing a user wants to know.

    Raises:
        SettingError, WeightsError, MissingExtraError: as :func:`create_language_model`, :func:`keep_layers` and
            :func:`write_folder` say; nothing is written then.
    """
    check_places(keep)
    check_folder(output, overwrite)
    task = usual_task(model) if task is None else task
    created = create_language_model(model, task=task, dtype="auto")
    check_not_its_own(created.tokenizer_folder, output)
    before = len(layers_of(created.network))
    student = keep_layers(created.network, keep)
    tokenizer = None
    try:
        tokenizer = load_tokenizer(model)
    except SettingError as error:
        say(f"no tokenizer is written: {error}")
    written = write_folder(student, tokenizer, output, overwrite=overwrite)
    parameters = (_count(created.network), _count(student))
    return PrunedModel(written, task, tuple(keep), (before, len(keep)), parameters)


def check_not_its_own(folder: str | None, output: Path) -> None:
    """Raise SettingError where the folder to be written is the one that is read."""
    if folder is not None and Path(folder).exists() and Path(folder).resolve() == output.resolve():
        raise SettingError(f"output is {output}, the folder of the model itself; name another one.")


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
