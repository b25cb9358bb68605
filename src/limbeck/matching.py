"""Which stages of the student are compared with which of the teacher, and the taps that record them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from limbeck.errors import TapError
from limbeck.networks import Network
from limbeck.signals import Batch
from limbeck.stages import Stages, find_embedding_map, find_preactivation, find_stages
from limbeck.taps import module_at

_OF_STAGES = frozenset({"features", "stages", "preactivations", "stem"})
_NAMED = ("features", "preactivations")

Names = dict[str, dict[str, str]]
"""For each group of maps: what one network's objectives call a map, and the path at which the other records it."""


@dataclass(frozen=True)
class Match:
    """Stages by number. pairs: (student's, teacher's), from shallow to deep. alone: those of each without a partner."""

    pairs: tuple[tuple[int, int], ...]
    student_alone: tuple[int, ...]
    teacher_alone: tuple[int, ...]


def match_stages(student: Stages, teacher: Stages, student_side: int, teacher_side: int) -> Match:
    """Pair stages in their order when both networks have as many, else those that shrink the image by the same factor.

    Of several stages of a network that shrink it by the same factor, the deepest is the one that is paired.

    ``student_side`` and ``teacher_side`` are the heights of the images that each network sees.
    """
    ours, theirs = len(student.paths), len(teacher.paths)
    if ours == theirs:
        pairs = [(number, number) for number in range(ours)]
    else:
        deepest = {factor: number for number, factor in enumerate(_factors(teacher, teacher_side))}
        of_student = {factor: number for number, factor in enumerate(_factors(student, student_side))}
        pairs = [(number, deepest[factor]) for factor, number in of_student.items() if factor in deepest]
    return Match(
        tuple(pairs),
        tuple(set(range(ours)) - {one for one, _ in pairs}),
        tuple(set(range(theirs)) - {other for _, other in pairs}),
    )


def _factors(stages: Stages, side: int) -> list[float]:
    return [round(side / height, 3) for _, height, _ in stages.shapes]


def connect(
    student: Network,
    teacher: Network | None,
    probe: Batch,
    *,
    needs: frozenset[str],
    taps: Mapping[str, str],
    say: Callable[[str], None],
) -> Names:
    """Tap the feature maps that the objectives need, and say what is compared with what.

    With ``taps`` (student's path to teacher's path) these layers and no others are compared, in the order given. Where an
    objective asks for pre-activations, a path stands for the map before the activation that ends in it. Without, stages are
    found and matched by themselves. Stages without a partner are recorded too, under names that no stage of the other has:
    some objectives look at all of them.

    Returns:
        What the student's objectives call the teacher's maps, for :meth:`Signals.renamed`: the teacher records each under
        its own path, since several students can have several names for it.

    Raises:
        TapError: a tap names no module of its network, or feature maps are to be found in networks on no images.
    """
    groups: list[str] = [group for group in _NAMED if group in needs]
    if "stages" in needs and "features" not in groups:
        groups.append("features")
    names: Names = {group: {} for group in _NAMED}
    for number, (ours, theirs) in enumerate(taps.items()):
        if teacher is not None:
            say(f"{'taps' if number == 0 else '':<11} {ours} with the teacher's {theirs}, as given")
        for group in groups or ["features"]:
            student.tapped.record(group, ours, _form_of(student, ours, group, probe))
            if teacher is not None:
                names[group][ours] = _form_of(teacher, theirs, group, probe)
    if "embedding_map" in needs:
        for network in (student, teacher):
            _tap_embedding_map(network, probe)
    if needs & _OF_STAGES and (not taps or "stem" in needs):
        _connect_stages(student, teacher, probe, needs, groups if not taps else [], names, say)
    if teacher is not None:
        for group, paths in names.items():
            for path in paths.values():
                teacher.tapped.record(group, path, path)
    return names


def _connect_stages(
    student: Network,
    teacher: Network | None,
    probe: Batch,
    needs: frozenset[str],
    groups: list[str],
    names: Names,
    say: Callable[[str], None],
) -> None:
    found = [_stages(network, probe) for network in (student, teacher) if network is not None]
    if "stem" in needs:
        for network, stages in zip((student, teacher), found, strict=False):
            if network is not None and stages.stem is not None:
                network.tapped.record("stem", "stem", stages.stem)
    if not groups:
        return
    match = None if teacher is None else _matched(student, teacher, found, probe)
    for group in groups:
        for path, form in zip(found[0].paths, _paths(found[0], group), strict=True):
            student.tapped.record(group, path, form)
        if match is not None:
            names[group] |= _names_of(found[0], found[1], match, group)
    if match is not None:
        _tell(found[0], found[1], match, say)


def _form_of(network: Network, path: str, group: str, probe: Batch) -> str:
    module_at(network.tapped.network, path.removesuffix(":input"))
    if group != "preactivations":
        return path
    return find_preactivation(network.tapped.network, path, _images(network, probe))


def _tap_embedding_map(network: Network | None, probe: Batch) -> None:
    if network is None or network.tapped.classifier is None:
        return
    path = find_embedding_map(network.tapped.network, network.tapped.classifier, _images(network, probe))
    if path is not None:
        network.tapped.record("embedding_map", "embedding_map", path)


def _stages(network: Network, probe: Batch) -> Stages:
    return find_stages(network.tapped.network, _images(network, probe))


def _images(network: Network, probe: Batch) -> Tensor:
    inputs = network.preprocess(probe.inputs[:2])
    if not isinstance(inputs, Tensor):
        raise TapError(
            "the objective compares feature maps, and they are found by themselves in networks on images alone; name layers "
            "of both networks with --taps, or take an objective on logits or embeddings."
        )
    return inputs


def _matched(student: Network, teacher: Network, found: list[Stages], probe: Batch) -> Match:
    sides = [int(_images(network, probe).shape[-2]) for network in (student, teacher)]
    return match_stages(found[0], found[1], sides[0], sides[1])


def _names_of(student: Stages, teacher: Stages, match: Match, group: str) -> dict[str, str]:
    partners = {other: student.paths[one] for one, other in match.pairs}
    # A colon stands in no module's name.
    return {
        partners.get(number, f"teacher:{teacher.paths[number]}"): form
        for number, form in enumerate(_paths(teacher, group))
    }


def _paths(stages: Stages, group: str) -> tuple[str, ...]:
    return stages.paths if group == "features" else stages.preactivations


def _tell(student: Stages, teacher: Stages, match: Match, say: Callable[[str], None]) -> None:
    lines = [f"{_named(student, one)} with the teacher's {_named(teacher, other)}" for one, other in match.pairs]
    for who, stages, alone in (("student", student, match.student_alone), ("teacher", teacher, match.teacher_alone)):
        if alone:
            lines.append(f"no partner for the {who}'s {', '.join(_named(stages, number) for number in alone)}")
    for number, line in enumerate(lines):
        say(f"{'taps' if number == 0 else '':<11} {line}")


def _named(stages: Stages, number: int) -> str:
    return f"{stages.paths[number]} ({'×'.join(map(str, stages.shapes[number]))})"


def constants(network: Network, probe: Batch, preactivations: Mapping[str, str]) -> dict[str, Tensor]:
    """What objectives may know of a network beside its answers: its classifier's weights and the norms before its maps.

    ``preactivations`` are the maps' paths by the names that the objectives use.
    """
    tapped = network.tapped
    found: dict[str, Tensor] = {}
    if tapped.classifier is not None:
        found |= _linear(module_at(tapped.network, tapped.classifier))
    if preactivations:
        stages = _stages(network, probe)
        norms = dict(zip(stages.preactivations, stages.norms, strict=True))
        for name, path in preactivations.items():
            norm_path = norms.get(path)
            if norm_path is not None:
                norm = module_at(tapped.network, norm_path)
                assert isinstance(norm.bias, Tensor)
                assert isinstance(norm.weight, Tensor)
                found |= {f"{name}.shift": norm.bias.detach(), f"{name}.scale": norm.weight.detach()}
    return found


def _linear(module: nn.Module) -> dict[str, Tensor]:
    if not isinstance(module, nn.Linear | nn.Conv2d):
        return {}
    weight = module.weight.detach().flatten(1)
    bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias.detach()
    return {"classifier.weight": weight, "classifier.bias": bias}
