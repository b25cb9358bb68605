"""``limbeck prune-layers``: a student made from its teacher's layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from limbeck.cli.output import Output
from limbeck.config import PruneLayersSettings
from limbeck.errors import SettingError

if TYPE_CHECKING:
    from limbeck.models.language import PrunedModel


def prune_layers(settings: PruneLayersSettings, output: Output) -> None:
    """Write the layers of the language model or encoder that the settings name."""
    if not settings.model:
        raise SettingError(
            "name a language model, as in 'limbeck prune-layers hf:FOLDER --keep 0,4,8 --output student'."
        )
    if settings.output is None:
        raise SettingError("output is not given; name a folder for the student, as in --output student.")
    keep = _places(settings.keep)

    from limbeck.models.encoders import is_pipeline, prune_encoder
    from limbeck.models.language import prune_layers
    from limbeck.models.spec import parse_spec
    from limbeck.networks import resolve

    model = resolve(settings.model)
    if model != settings.model and not model.startswith("hf:"):
        made = model.partition("@")[0]
        raise SettingError(
            f"{settings.model} is a run of {made}, which was made in place, and layers are kept of networks of Hugging Face "
            "(hf:…); name a student of fewer layers instead, as in layers=2."
        )
    if settings.task is None and is_pipeline(parse_spec(model, unprefixed="language").name):
        pruned = prune_encoder(model, keep, settings.output, overwrite=settings.overwrite)
    else:
        pruned = prune_layers(
            model, keep, settings.output, task=settings.task, overwrite=settings.overwrite, say=output.say
        )
    output.result(_values(pruned), lambda: _page(settings.model or "", pruned))


def _places(keep: str | None) -> list[int]:
    if not keep:
        raise SettingError("keep is not given; name the layers that stay, counted from 0, as in --keep 0,4,8.")
    try:
        return [int(place) for place in keep.split(",")]
    except ValueError:
        raise SettingError(
            f"keep: expected whole numbers with commas between them, as in 0,4,8, got {keep!r}."
        ) from None


def _values(pruned: PrunedModel) -> dict[str, object]:
    return {
        "folder": str(pruned.written.path),
        "files": pruned.written.files,
        "tokenizer": pruned.written.tokenizer,
        "task": pruned.task,
        "kept": list(pruned.kept),
        "layers": {"before": pruned.layers[0], "after": pruned.layers[1]},
        "parameters": {"before": pruned.parameters[0], "after": pruned.parameters[1]},
    }


def _page(model: str, pruned: PrunedModel) -> Group:
    (layers, fewer), (whole, rest) = pruned.layers, pruned.parameters
    lines = [
        f"{model}, {pruned.task}",
        f"layers      {layers} before, {fewer} after: {', '.join(map(str, pruned.kept))}",
        f"parameters  {whole:,} before, {rest:,} after ({100 * rest / whole:.1f} %)",
        f"written     {pruned.written.path}: {', '.join(pruned.written.files)}",
    ]
    return Group(*map(Text, lines), Text(f"It is a model by the name hf:{pruned.written.path}", style="dim"))
