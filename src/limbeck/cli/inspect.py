"""``limbeck inspect``: a network's modules with the paths that taps name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from limbeck.cli.output import Output
from limbeck.cli.settings import InspectSettings
from limbeck.errors import SettingError, TapError

if TYPE_CHECKING:
    from torch import nn

# For a network whose file and command line do not say: as in most tables of papers.
_USUAL_CLASSES, _USUAL_CHANNELS, _ZOO_SIZE, _OTHER_SIZE = 100, 3, 32, 224


@dataclass(frozen=True)
class Module:
    """A line of the drawing. shape: of its output for two images; None when it did not run or gives no tensor."""

    path: str
    depth: int
    type: str
    shape: list[int] | None
    parameters: int


@dataclass(frozen=True)
class _Input:
    classes: int | None
    channels: int
    size: tuple[int, int] | None


def inspect(settings: InspectSettings, output: Output) -> None:
    """Draw the network that is named."""
    import torch

    from limbeck.cli.inspect_text import inspect_text
    from limbeck.models import create_model
    from limbeck.networks import resolve
    from limbeck.plugins import load_plugins
    from limbeck.stages import find_stages
    from limbeck.text_networks import text_kind

    if not settings.model:
        raise SettingError("name a network, as in 'limbeck inspect resnet8x4'; 'limbeck list models' names them.")
    load_plugins(settings.plugins)
    kind = text_kind(settings.model)
    if kind is not None:
        inspect_text(settings, kind, output)
        return
    spec = resolve(settings.model)
    about = _input(settings, spec)
    created = create_model(
        spec, num_classes=about.classes, in_channels=about.channels, image_size=max(about.size) if about.size else None
    )
    size = about.size or (created.input.size if created.input else None) or _usual_size(spec)
    network = created.network.eval()
    modules, classifier, embedding = _walk(network, (2, about.channels, *size))
    stages = find_stages(network, torch.zeros(2, about.channels, *size))
    value = {
        "model": created.name,
        "input": [2, about.channels, *size],
        "parameters": modules[0].parameters,
        "classifier": classifier,
        "embedding": embedding,
        "stages": list(stages.paths),
        "preactivations": list(stages.preactivations),
        "stem": stages.stem,
        "modules": [asdict(module) for module in modules],
    }
    output.result(value, lambda: _drawing(value, modules, settings.depth))


def _input(settings: InspectSettings, spec: str) -> _Input:
    """Classes and images: of the command line, else of the data set, else of the weights file, else the usual ones."""
    from limbeck.config import DataSettings
    from limbeck.feeds import read_data
    from limbeck.networks import read_card

    classes: int | None
    size: tuple[int, int] | None
    if settings.data:
        data = read_data(DataSettings(data=settings.data, data_dir=settings.data_dir, image_size=settings.image_size))
        classes, channels, size = len(data.classes), data.in_channels, data.image_size
    else:
        card = read_card(spec.partition("@")[2])
        classes = len(card["classes"]) if card.get("classes") else None
        channels = card.get("in_channels") or _USUAL_CHANNELS
        size = tuple(card["image_size"]) if card.get("image_size") else None
    if settings.image_size:
        size = (settings.image_size, settings.image_size)
    if classes is None and _is_zoo(spec):
        classes = _USUAL_CLASSES
    return _Input(settings.classes or classes, settings.channels or channels, size)


def _is_zoo(spec: str) -> bool:
    from limbeck.models.spec import parse_spec

    return parse_spec(spec).source == "zoo"


def _usual_size(spec: str) -> tuple[int, int]:
    side = _ZOO_SIZE if _is_zoo(spec) else _OTHER_SIZE
    return side, side


def _walk(network: nn.Module, shape: tuple[int, ...]) -> tuple[list[Module], str | None, list[int] | None]:
    """Every module with its output's shape; the classifier's path and the shape of its input."""
    import torch

    from limbeck.taps import find_classifier

    images = torch.zeros(shape)
    try:
        shapes, inputs = shapes_of(network, lambda: network(images))
    except Exception as error:  # a network may refuse the size in any way
        raise SettingError(
            f"the network cannot take images of shape {shape[1:]}: {error}. Give --image-size, --channels or --data."
        ) from error
    try:
        classifier = find_classifier(network, images)
    except TapError:
        classifier = None
    return modules_of(network, shapes), classifier, inputs.get(classifier) if classifier else None


def modules_of(network: nn.Module, shapes: Mapping[str, list[int]]) -> list[Module]:
    """Every module of a network, itself first, with the shapes of their outputs."""
    return [
        Module(path, path.count(".") + 1 if path else 0, type(module).__name__, shapes.get(path), _count(module))
        for path, module in network.named_modules()
    ]


# What an encoder's parts hand on is a mapping, to which each adds what it made.
_MADE = ("sentence_embedding", "token_embeddings")


def shapes_of(network: nn.Module, run: Callable[[], Any]) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """The shapes of all modules' outputs and inputs while the network runs, by their paths."""
    import torch

    from limbeck.taps import first_tensor

    def shown(value: Any) -> Any:
        made = [name for name in _MADE if isinstance(value, Mapping) and name in value]
        return first_tensor(value[made[0]] if made else value)

    outputs: dict[str, list[int]] = {}
    inputs: dict[str, list[int]] = {}

    def note(path: str) -> Any:
        def hook(module: nn.Module, given: Any, made: Any) -> None:
            for found, value in ((inputs, given), (outputs, made)):
                tensor = shown(value)
                if tensor is not None:
                    found[path] = list(tensor.shape)

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in network.named_modules()]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return outputs, inputs


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _drawing(value: dict[str, Any], modules: list[Module], depth: int) -> Group:
    ends = {path: f"end of stage {number}" for number, path in enumerate(value["stages"], start=1)}
    named = {**ends, **({value["stem"]: "stem"} if value["stem"] else {})}
    table, hidden = table_of(modules, depth, value["classifier"], named)
    return Group(_heading(value), table, *_remarks(value, hidden, depth))


def table_of(
    modules: Sequence[Module],
    depth: int,
    classifier: str | None,
    named: Mapping[str, str],
    *,
    title: str = "path (for taps)",
) -> tuple[Table, int]:
    """The modules down to a depth, with those that have a name of their own at any, and how many are not shown."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(title, overflow="fold")
    table.add_column("type", overflow="fold")
    table.add_column("output", overflow="fold")
    table.add_column("parameters", justify="right")
    kept = {classifier, *named}
    shown = [module for module in modules if 0 < module.depth <= depth or module.path in kept]
    for module in shown:
        is_classifier = module.path == classifier
        before, dot, name = module.path.rpartition(".")
        path = Text.assemble("  " * (module.depth - 1), (before + dot, "dim"), (name, "bold"))
        if is_classifier:
            path.append("  ← its input is the embedding", style="green")
        if module.path in named:
            path.append(f"  ← {named[module.path]}", style="cyan")
        shape = "×".join(map(str, module.shape)) if module.shape else "–"
        table.add_row(path, module.type, shape, f"{module.parameters:,}")
    return table, len(modules) - 1 - len(shown)


def _heading(value: dict[str, Any]) -> Text:
    given = "×".join(map(str, value["input"]))
    return Text.assemble((value["model"], "bold"), f": {value['parameters']:,} parameters; input {given}")


def _remarks(value: dict[str, Any], hidden: int, depth: int) -> list[RenderableType]:
    lines = []
    if value["classifier"] is None:
        lines.append("No layer is clearly the classifier; name it with --student-classifier or --teacher-classifier.")
    if hidden:
        lines.append(f"{hidden} modules lie deeper; --depth {depth + 1} shows more.")
    return [Text(line, style="dim") for line in lines]
