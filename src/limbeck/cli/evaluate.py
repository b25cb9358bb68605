"""``limbeck evaluate``: a network's figures on a split, alone or against a teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from limbeck.cli.output import Output
from limbeck.cli.settings import EvaluateSettings
from limbeck.config import DataSettings
from limbeck.errors import SettingError

if TYPE_CHECKING:
    import torch

    from limbeck.data import ImageData, ImageSplit
    from limbeck.evaluate import Score
    from limbeck.networks import Network
    from limbeck.signals import Batch

# Of these sources a network without weights is random, so its score would say nothing.
_RANDOM_WITHOUT_WEIGHTS = ("zoo", "timm", "torchvision")


def evaluate(settings: EvaluateSettings, output: Output) -> None:
    """Score the network that the settings name."""
    from limbeck.cli.device import pick_device
    from limbeck.feeds import read_data
    from limbeck.plugins import load_plugins

    if not settings.model:
        raise SettingError(
            "name a network: a run folder, a weights file or NAME@FILE, as in 'limbeck evaluate runs/NAME'."
        )
    load_plugins(settings.plugins)
    device = pick_device(settings.device)
    settings = _with_data_of_run(settings)
    data = read_data(settings)
    split = _split(data, settings.split)
    networks = {"model": _open(settings.model or "", "model", data, split, device)}
    if settings.teacher:
        networks["teacher"] = _open(settings.teacher, "teacher", data, split, device)
    scores = _score(networks, data, split, settings, device)
    value: dict[str, Any] = {"data": data.name, "split": settings.split}
    value |= {
        who: {"name": networks[who].name, "parameters": networks[who].parameters} | found.as_dict()
        for who, found in scores.items()
    }
    output.result(value, lambda: _table(data.name, settings.split, networks, scores))


def _with_data_of_run(settings: EvaluateSettings) -> EvaluateSettings:
    """A run folder knows its data; what the command line says about data wins."""
    from limbeck.runs import CONFIG

    path = Path(settings.model or "").expanduser()
    config = (path if path.is_dir() else path.parent) / CONFIG
    if not path.exists() or not config.is_file():
        return settings
    known = _read_data_settings(config)
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return EvaluateSettings.make({**known, **given})


def _read_data_settings(config: Path) -> dict[str, Any]:
    import yaml

    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    fields = DataSettings.model_fields
    return {name: values[name] for name in fields if name in values} if isinstance(values, dict) else {}


def _split(data: ImageData, name: str) -> ImageSplit:
    splits = {"train": data.train, "validation": data.val, "test": data.test}
    split = splits[name]
    if split is None:
        there = ", ".join(name for name, found in splits.items() if found is not None)
        raise SettingError(f"split is '{name}', and {data.name} has none; it has {there}.")
    return split


def _open(model: str, who: str, data: ImageData, split: ImageSplit, device: torch.device) -> Network:
    from limbeck.data import eval_batches
    from limbeck.models.spec import parse_spec
    from limbeck.networks import open_network, resolve

    spec = parse_spec(resolve(model))
    if spec.source == "zoo" and "/" in spec.name:
        raise SettingError(f"{who}: there is no run folder or weights file {model}.")
    if spec.weights is None and spec.source in _RANDOM_WITHOUT_WEIGHTS:
        raise SettingError(f"{who}: {model} names no weights, so the network would be random; write {model}@FILE.")
    first = next(iter(eval_batches(split, 2, device, image_size=None if data.resident else data.image_size)))
    network = open_network(model, who=who, data=data, probe=first, device=device, classifier=None)
    network.tapped.eval()
    return network


def _score(
    networks: dict[str, Network], data: ImageData, split: ImageSplit, settings: EvaluateSettings, device: torch.device
) -> dict[str, Score]:
    from limbeck.data import eval_batches
    from limbeck.evaluate import score

    def batches() -> Any:
        size = None if data.resident else data.image_size
        return eval_batches(
            split, settings.batch_size, device, image_size=size, workers=0 if data.resident else settings.workers
        )

    predict = {who: _predict(network, device) for who, network in networks.items()}
    scores = {"model": score(predict["model"], batches(), predict.get("teacher"))}
    if "teacher" in predict:
        scores["teacher"] = score(predict["teacher"], batches())
    return scores


def _predict(network: Network, device: torch.device) -> Callable[[Batch], torch.Tensor]:
    def predict(batch: Batch) -> torch.Tensor:
        logits = network.tapped(network.preprocess(batch.to(device).inputs)).logits
        assert logits is not None
        result: torch.Tensor = logits
        return result

    return predict


def _table(data: str, split: str, networks: dict[str, Network], scores: dict[str, Score]) -> Table:
    count = scores["model"].count
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{data}, {count:,} images of {split}")
    for who, network in networks.items():
        table.add_column(f"{who}\n{network.name}", justify="right", overflow="fold")
    shown: list[tuple[str, Callable[[Score], float | None], str]] = [
        ("accuracy", lambda score: score.accuracy, ".2%"),
        ("top-5 accuracy", lambda score: score.top5, ".2%"),
        ("negative log likelihood (nats)", lambda score: score.nll, ".4f"),
        ("agreement with the teacher", lambda score: score.agreement, ".2%"),
        ("KL(teacher ‖ student) (nats)", lambda score: score.kl, ".4f"),
    ]
    for name, read, form in shown:
        values = [read(score) for score in scores.values()]
        if any(value is not None for value in values):
            table.add_row(name, *("" if value is None else format(value, form) for value in values))
    table.add_row("parameters", *(f"{network.parameters:,}" for network in networks.values()))
    return table
