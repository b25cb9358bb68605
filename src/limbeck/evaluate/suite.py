"""All figures of a network, alone or against its teacher, from one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck.data import ImageData, load_data
from limbeck.errors import SettingError
from limbeck.evaluate.accuracy import Score, score_of
from limbeck.evaluate.bench import Bench, Options, batches_of, split_of, tapped
from limbeck.evaluate.calibration import Scaled
from limbeck.evaluate.classification import Classification
from limbeck.evaluate.cost import Costs, costs
from limbeck.evaluate.distribution import OutOfDistribution
from limbeck.evaluate.fidelity import Fidelity
from limbeck.evaluate.parts import COST, PARTS, WITH_EMBEDDING, check_options
from limbeck.evaluate.retrieval import Retrieval
from limbeck.evaluate.robustness import Robustness
from limbeck.evaluate.transfer import Transfer
from limbeck.machine import now, versions
from limbeck.models.spec import parse_spec
from limbeck.networks import Network, open_network, resolve
from limbeck.signals import Batch

SCHEMA = 1

# Of these sources a network without weights is random, so its figures would say nothing.
_RANDOM_WITHOUT_WEIGHTS = ("zoo", "timm", "torchvision")


@dataclass(frozen=True)
class Evaluation:
    """All figures. Parts that were not asked for are None; those of each network have "model" and, with a teacher, "teacher".

    names, parameters, scores: of each network. remarks: what could not be told, and why.
    """

    data: str
    split: str
    names: Mapping[str, str]
    parameters: Mapping[str, int]
    scores: Mapping[str, Score]
    classification: Mapping[str, Classification] | None = None
    calibration: Mapping[str, Scaled] | None = None
    fidelity: Fidelity | None = None
    retrieval: Mapping[str, Retrieval] | None = None
    distribution: Mapping[str, OutOfDistribution] | None = None
    robustness: Mapping[str, Robustness] | None = None
    transfer: Mapping[str, Transfer] | None = None
    transfer_data: str | None = None
    cost: Costs | None = None
    remarks: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=versions)
    when: str = field(default_factory=now)

    def as_dict(self) -> dict[str, Any]:
        """Numbers, text, lists and mappings alone: each network's scores under "model" and "teacher", then every part."""
        value = asdict(self)
        first = {"schema": SCHEMA, "data": value.pop("data"), "split": value.pop("split")}
        for name in ("names", "parameters", "scores"):
            del value[name]
        scores = {
            who: {"name": self.names[who], "parameters": self.parameters[who]} | score.as_dict()
            for who, score in self.scores.items()
        }
        return first | scores | value


def evaluate_networks(
    model: str | nn.Module,
    data: str | ImageData,
    *,
    teacher: str | nn.Module | None = None,
    split: str = "test",
    options: Options | None = None,
    batch_size: int = 128,
    workers: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Evaluate a network on a split, and against a teacher if one is given.

    What the networks say is gathered in one pass over the split, in which each batch is loaded once; robustness, costs and
    other data need passes of their own.

    Args:
        model: run folder, weights file that limbeck wrote, network by name as in NAME@FILE, or the network itself.
        data: whose classes the networks tell.
        teacher: the same of a teacher.
        split: "test", "validation" or "train".
        options: which parts, and their settings; none by default, which gives the scores alone.
        workers: processes that decode images which are not held in memory.
        progress: told in a few words what comes next.

    Raises:
        SettingError: an unknown part or split; a network that does not exist, would be random or cannot take the images.
        WeightsError: weights for other classes or channels. SignalError: a network of other classes than the data's.
        DataError: data that cannot be read, or more than fits into memory. NonFiniteError: logits that are NaN or infinite.
    """
    options = options or Options()
    images = data if isinstance(data, ImageData) else load_data(data)
    parts = check_options(options, images)
    place = torch.device(device)
    first = next(iter(batches_of(images, split_of(images, split), 2, place, 0)))
    given = {"model": model} | ({} if teacher is None else {"teacher": teacher})
    bench = Bench(
        networks={who: _open(each, who, images, first, place) for who, each in given.items()},
        data=images,
        split=split,
        device=place,
        batch_size=batch_size,
        workers=workers,
        options=options,
    )
    say = progress or _say_nothing
    found: dict[str, Any] = {}
    if COST in parts:
        say(COST)  # before anything is tapped: taps keep tensors alive
        found["cost"] = _cost(bench, given, first)
    _tap(bench, first, parts)
    say("scores")
    scores = _scores(bench)
    for name in (name for name in PARTS if name in parts):
        say(name)
        found |= PARTS[name](bench)
    return Evaluation(
        data=images.name,
        split=split,
        names={who: network.name for who, network in bench.networks.items()},
        parameters={who: network.parameters for who, network in bench.networks.items()},
        scores=scores,
        remarks=tuple(bench.remarks),
        **found,
    )


def _say_nothing(line: str) -> None:
    return None


def _open(model: str | nn.Module, who: str, data: ImageData, probe: Batch, device: torch.device) -> Network:
    if isinstance(model, str):
        spec = parse_spec(resolve(model))
        if spec.source == "zoo" and "/" in spec.name:
            raise SettingError(f"{who}: there is no run folder or weights file {model}.")
        if spec.weights is None and spec.source in _RANDOM_WITHOUT_WEIGHTS:
            raise SettingError(f"{who}: {model} names no weights, so the network would be random; write {model}@FILE.")
    network = open_network(model, who=who, data=data, probe=probe, device=device, classifier=None, embedding=False)
    network.tapped.eval()
    return network


def _tap(bench: Bench, probe: Batch, parts: set[str]) -> None:
    if not parts & WITH_EMBEDDING:
        return
    for who, network in bench.networks.items():
        bench.networks[who], remarks = tapped(network, probe, stages="fidelity" in parts)
        for remark in remarks:
            bench.say(f"{who}: {remark}")


def _scores(bench: Bench) -> dict[str, Score]:
    gathered = bench.gathered()
    teacher = gathered["teacher"].logits if "teacher" in gathered else None
    return {
        who: score_of(each.logits, each.labels, teacher if who == "model" else None) for who, each in gathered.items()
    }


def _cost(bench: Bench, given: Mapping[str, str | nn.Module], first: Batch) -> Costs:
    images = first.inputs[:1].to(bench.device)
    return costs(
        {who: (network.tapped.network, network.preprocess(images)) for who, network in bench.networks.items()},
        batch_size=bench.batch_size,
        files={who: _file(model) for who, model in given.items()},
    )


def _file(model: str | nn.Module) -> Path | None:
    weights = parse_spec(resolve(model)).weights if isinstance(model, str) else None
    return None if weights is None else Path(weights).expanduser()
