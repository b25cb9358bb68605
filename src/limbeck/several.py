"""Several teachers of a session: what their rule goes with, and what it is told of the training data."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck import losses
from limbeck.combination import check_same_classes
from limbeck.errors import SettingError
from limbeck.feeds import every_sample
from limbeck.networks import Network
from limbeck.signals import Batch
from limbeck.surroundings import Surroundings
from limbeck.teachers import FrozenTeacher


def check_rule(network: Network, needs: frozenset[str], around: Surroundings) -> None:
    """Check what several networks teach together, where it is several.

    Raises:
        SettingError: they tell different classes apart, or the rule does not go with the settings, the data or the ``needs``
            of the objectives.
    """
    rule = network.rule
    if rule is None:
        return
    if "attack" in needs:
        raise SettingError(
            f"teacher: the objective attacks the teacher, which must be one network for that, and '{rule.name}' makes one "
            "of several."
        )
    for setting in ("teacher_cache", "teacher_budget"):
        if not rule.cachable and getattr(around.distill, setting) is not None:
            raise SettingError(
                f"{setting}: the answers of '{rule.name}' change from epoch to epoch, so they cannot be kept; train "
                f"without {setting}."
            )
    if rule.needs_losses and around.feeds.data is None:
        raise SettingError(
            f"teacher: '{rule.name}' measures every training sample, which a loader of your own does not tell: "
            "give the data by name or as ImageData."
        )
    told = _each(network, around.probe, around)
    check_same_classes({f"teacher {number}": logits.shape[-1] for number, logits in enumerate(told, 1)})


def prepare_rule(network: Network, around: Surroundings) -> None:
    """Tell a rule that asks for it how hard each training sample is for each teacher."""
    rule = network.rule
    if rule is None or not rule.needs_losses:
        return
    data = around.feeds.data
    assert data is not None
    around.say(
        f"            how hard each of {len(data.train):,} training images is for {len(network.all)} experts is measured"
    )
    costs: list[Tensor] = []
    for batch in every_sample(data, data.train, around.settings.batch_size, around.device, around.settings.workers):
        batch = batch.to(around.device)
        with around.accelerator.autocast():
            told = _each(network, batch, around)
        costs.append(torch.stack([losses.cross_entropy(each.float(), batch.labels) for each in told]).cpu())
    rule.prepare(torch.cat(costs, dim=1), data.train.index)


def _each(network: Network, batch: Batch, around: Surroundings) -> list[Tensor]:
    """The logits (B, C) of each of several networks, in the rule's order."""
    rule = network.rule
    assert rule is not None
    told = []
    for each in rule.in_order(network.all):
        signals = FrozenTeacher(each.tapped).signals(around.task_of(each).inputs(batch), batch)
        assert signals.logits is not None
        told.append(signals.logits)
    return told
