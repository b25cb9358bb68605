"""Networks that learn beside a student, made as its objective asks: peers, more ends of the student, an adapted teacher."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor, fx, nn

from limbeck.adapted import AdaptedTeacher
from limbeck.data.seeds import mix
from limbeck.errors import LimbeckError, SettingError
from limbeck.job import Plan
from limbeck.networks import Network, checkpoint_gradients
from limbeck.objectives.companions import SAME, Adapted, Branches, Peers
from limbeck.signals import Signals
from limbeck.stages import find_stages
from limbeck.surroundings import Say, Surroundings
from limbeck.taps import as_map, evaluating, first_tensor, logits_of, module_at

_STREAM = 2  # of the student's seed, so that neither its weights nor the heads depend on what is beside it
_INPUT = ":input"


class PeerNetworks(nn.Module):
    """K networks that see the student's inputs: (B, K, C) logits."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, inputs: Tensor, student: Signals) -> Tensor:
        return torch.stack([logits_of(network(inputs)) for network in self.networks], dim=1)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the networks exempt from weight decay, as timm's do."""
        exempt = set()
        for number, network in enumerate(self.networks):
            own = getattr(network, "no_weight_decay", None)
            exempt |= {f"networks.{number}.{name}" for name in own()} if callable(own) else set()
        return exempt


class Tails(nn.Module):
    """K ends of a student from its trunk on: (B, K, C) logits.

    No gradient that is NaN or infinite goes from a tail into the trunk.
    """

    def __init__(self, networks: Sequence[nn.Module], exempt: set[str]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self._exempt = exempt

    def forward(self, inputs: Tensor, student: Signals) -> Tensor:
        assert student.trunk is not None
        ends = [logits_of(tail(_FiniteGradient.apply(student.trunk))) for tail in self.networks]
        return torch.stack(ends, dim=1)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that the student exempts from weight decay, as timm's networks do."""
        return {f"networks.{number}.{name}" for number in range(len(self.networks)) for name in self._exempt}


class _FiniteGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


class Companionship:
    """What is to learn beside one student. Made before the student is opened: a module is copied while nothing is tapped in it.

    Args:
        teacher: the opened teacher, where there is one.

    Raises:
        SettingError: its objectives ask for different networks.
    """

    def __init__(self, plan: Plan, around: Surroundings, teacher: Network | None) -> None:
        self.asked, self._around, self._settings, self._teacher = plan.companions, around, plan.job.settings, teacher
        student = plan.job.student
        self._first = copy.deepcopy(student) if self.asked is not None and isinstance(student, nn.Module) else None
        self._make = None if isinstance(student, str | nn.Module) else student

    def of(self, student: Network, inputs: Tensor, say: Say) -> PeerNetworks | Tails | AdaptedTeacher | None:
        """The networks that the objective asks for, each with its own initialisation; None where it asks for none.

        Of a student that gets branches the trunk is tapped. ``inputs`` are a batch as the student takes it.

        Raises:
            LimbeckError: data that are no images; a peer that does not exist, or wants its images otherwise; a student that
                cannot be cut in two; a teacher that cannot be adapted.
        """
        if self.asked is None:
            return None
        if not isinstance(self.asked, Adapted):
            self._around.feeds.modality.check_companions()
        set_seed(mix(self._settings.seed, _STREAM) % 2**32)
        made: PeerNetworks | Tails | AdaptedTeacher
        if isinstance(self.asked, Adapted):
            made = self._adapted(self.asked)
            what = f"adapters    of rank {self.asked.rank} in the teacher"
        elif isinstance(self.asked, Peers):
            made = PeerNetworks([self._peer(name, student) for name in self.asked.models])
            what = f"peers       {', '.join(student.name if name == SAME else name for name in self.asked.models)}"
        else:
            made = self._tails(self.asked, student, inputs[:2])
            trunk = student.tapped.paths["trunk"]["trunk"]
            what = f"branches    {self.asked.count} beside the student's own, from '{trunk}' on"
        if self._around.channels_last:
            made.to(memory_format=torch.channels_last)
        say(f"{what}: {sum(p.numel() for p in made.parameters()):,} more parameters in training")
        return made

    def _adapted(self, asked: Adapted) -> AdaptedTeacher:
        self._around.feeds.modality.check_adapted_teacher()
        assert self._teacher is not None, "objectives that ask for it need a teacher"
        if self._teacher.beside:
            raise SettingError("adapters are put into one teacher, and there are several; name one of them.")
        try:
            return AdaptedTeacher(self._teacher.tapped, asked.rank)
        except LimbeckError as error:
            raise type(error)(f"teacher: {error}") from None

    def _named(self, name: str) -> Network:
        return self._around.feeds.modality.open(
            name,
            who="peer",
            probe=self._around.probe,
            device=self._around.device,
            classifier=None,
            embedding=False,
        )

    def _another(self, student: Network) -> nn.Module:
        """A network like the student, with other weights."""
        if self._make is not None:
            return self._make().to(self._around.device)
        if self._first is not None:
            return drawn_anew(copy.deepcopy(self._first)).to(self._around.device)
        return self._named(student.name).tapped.network

    def _peer(self, name: str, student: Network) -> nn.Module:
        if name == SAME:
            network = self._another(student)
        else:
            peer = self._named(name)
            _check_same_images(peer, student)
            network = peer.tapped.network
        if self._settings.gradient_checkpointing:
            checkpoint_gradients(network, student.name if name == SAME else name)
        return network

    def _tails(self, asked: Branches, student: Network, images: Tensor) -> Tails:
        network = student.tapped.network
        paths = find_stages(network, images).paths
        if len(paths) < 2:
            stages = f"{len(paths)} stage{'s' * (len(paths) != 1)}"
            raise _uncut(student, f"it has {stages}, and branches part before the last of at least two")
        student.tapped.record("trunk", "trunk", paths[-2])
        try:
            tails = [tail_of(self._another(student), paths[-2], images) for _ in range(asked.count)]
        except LimbeckError:
            raise
        except Exception as error:  # tracing raises what the network's own code does with a stand-in for a tensor
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise _uncut(student, f"torch.fx cannot trace it ({reason.rstrip('.')})") from error
        if None in tails:
            raise _uncut(student, f"what comes behind '{paths[-2]}' needs more than a (B, C, H, W) map from there")
        exempt = getattr(network, "no_weight_decay", None)
        return Tails([tail for tail in tails if tail is not None], set(exempt()) if callable(exempt) else set())


def drawn_anew(network: nn.Module) -> nn.Module:
    """The network with weights that each of its layers draws anew by its ``reset_parameters``.

    Raises:
        SettingError: a layer has weights and no such method.
    """
    for path, module in network.named_modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
        elif [*module.parameters(recurse=False)]:
            raise SettingError(
                f"another {type(network).__name__} with its own initialisation cannot be made of the one given: "
                f"'{path or type(network).__name__}' has weights and no reset_parameters(). Give the student by name, as in "
                "'my_file:make_network'."
            )
    return network


def _check_same_images(peer: Network, student: Network) -> None:
    ours, theirs = (getattr(each.preprocess, "settings", None) for each in (student, peer))
    if ours != theirs:
        raise SettingError(
            f"peers: {peer.name} wants its images otherwise than the student {student.name} (normalisation, size or colours), "
            "and peers see what the student sees; take the weights off one of them, or name another network."
        )


# -- branches ----------------------------------------------------------------------------------------------------------


def _uncut(student: Network, reason: str) -> SettingError:
    return SettingError(
        f"{student.name} cannot get branches: {reason}. The zoo's networks can, and most convolutional ones of torchvision and "
        "timm; 'limbeck inspect' shows a network's stages. dml has peers for any network."
    )


class _Tracer(fx.Tracer):
    """Looks only into the modules around the one where a network is cut, so that all others stay as they are."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return not self._path.startswith(f"{path}.")


def tail_of(network: nn.Module, trunk: str, images: Tensor) -> nn.Module | None:
    """What a network does behind the output of a layer, as a module of its own.

    None where that output is no (B, C, H, W) map, or is not all that the rest of the network reads.
    """
    path = trunk.removesuffix(_INPUT)
    if not _is_map(network, trunk, images):
        return None
    network.train()
    tail = fx.GraphModule(network, _Tracer(path).trace(network))
    inputs = [node for node in tail.graph.nodes if node.op == "placeholder"]
    call = next(node for node in reversed(tail.graph.nodes) if node.op == "call_module" and node.target == path)
    cut = call.args[0] if trunk.endswith(_INPUT) else call
    with tail.graph.inserting_before(inputs[0]):
        maps = tail.graph.placeholder("trunk")
    assert isinstance(cut, fx.Node)
    cut.replace_all_uses_with(maps)
    tail.graph.eliminate_dead_code()
    if any(node.users for node in inputs):
        return None
    for node in inputs:
        tail.graph.erase_node(node)
    tail.delete_all_unused_submodules()
    tail.recompile()
    return tail


def _is_map(network: nn.Module, trunk: str, images: Tensor) -> bool:
    """Whether what the network hands on there is the (B, C, H, W) map that a tap gives of it."""
    seen: list[Tensor | None] = []
    module = module_at(network, trunk.removesuffix(_INPUT))
    handle = (
        module.register_forward_pre_hook(lambda module, given: seen.append(first_tensor(given)))
        if trunk.endswith(_INPUT)
        else module.register_forward_hook(lambda module, given, answered: seen.append(first_tensor(answered)))
    )
    try:
        with evaluating(network), torch.no_grad():
            network(images)
    finally:
        handle.remove()
    return bool(seen) and seen[-1] is not None and as_map(seen[-1], network) is seen[-1]
