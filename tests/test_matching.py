"""Which stages are compared with which, and what the objectives get to see of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck.errors import TapError
from limbeck.matching import Match, connect, constants, match_stages
from limbeck.models import create_model
from limbeck.networks import Network
from limbeck.signals import Batch, Signals, paired
from limbeck.stages import Stages
from limbeck.taps import Tapped, find_classifier


def stages(*heights: int) -> Stages:
    paths = tuple(f"s{height}" for height in heights)
    return Stages(paths, paths, (None,) * len(paths), tuple((4, height, height) for height in heights))


@pytest.mark.parametrize(
    ("student", "teacher", "sides", "expected"),
    [
        # As many: in their order, whatever their sizes.
        ((32, 16, 8), (32, 16, 8), (32, 32), Match(((0, 0), (1, 1), (2, 2)), (), ())),
        ((32, 16, 8), (16, 8, 4), (32, 32), Match(((0, 0), (1, 1), (2, 2)), (), ())),
        # vgg8 and resnet8x4: two stages of vgg8 shrink by eight, none of the other does.
        ((16, 8, 4, 4), (32, 16, 8), (32, 32), Match(((0, 1), (1, 2)), (2, 3), (0,))),
        # The factor counts and not the size: the teacher sees larger images.
        ((32, 16, 8), (64, 32, 16, 8), (32, 64), Match(((0, 0), (1, 1), (2, 2)), (), (3,))),
        # Where several would do, the deepest of each is taken, and the others have no partner.
        ((8,), (8, 8), (32, 32), Match(((0, 1),), (), (0,))),
        ((16, 8, 4, 4), (16, 8, 4), (32, 32), Match(((0, 0), (1, 1), (3, 2)), (2,), ())),
        # 112 → 7 of 224, and 5 of 160 are the same factor.
        ((5,), (28, 7), (160, 224), Match(((0, 1),), (), (0,))),
        ((), (8,), (32, 32), Match((), (), (0,))),
        ((), (), (32, 32), Match((), (), ())),
    ],
)
def test_stages_are_matched_in_order_or_by_factor(
    student: Sequence[int], teacher: Sequence[int], sides: tuple[int, int], expected: Match
) -> None:
    assert match_stages(stages(*student), stages(*teacher), *sides) == expected


def network(model: str | nn.Module, channels: int = 3) -> Network:
    torch.manual_seed(0)
    made = create_model(model, num_classes=7, in_channels=channels).network if isinstance(model, str) else model
    return Network(
        "net", Tapped(made, classifier=find_classifier(made, torch.zeros(2, channels, 32, 32))), nn.Identity()
    )


def probe() -> Batch:
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.zeros(3, dtype=torch.int64))


def connected(
    student: str | nn.Module, teacher: str | nn.Module | None, needs: set[str], taps: dict[str, str] | None = None
) -> tuple[Signals, Signals, list[str], tuple[Network, Network | None]]:
    said: list[str] = []
    ours, theirs = network(student), None if teacher is None else network(teacher)
    names = connect(ours, theirs, probe(), needs=frozenset(needs), taps=taps or {}, say=said.append)
    x = probe().inputs
    return ours.tapped(x), Signals() if theirs is None else theirs.tapped(x).renamed(names), said, (ours, theirs)


def known(student: str | nn.Module, teacher: str, taps: dict[str, str] | None = None) -> list[dict[str, Tensor]]:
    """The constants of both, by the names that the student's objectives use."""
    ours, theirs = network(student), network(teacher)
    names = connect(ours, theirs, probe(), needs=frozenset({"preactivations"}), taps=taps or {}, say=lambda line: None)
    for module in theirs.tapped.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 3.0)
            nn.init.constant_(module.bias, -2.0)
    return [
        constants(ours, probe(), ours.tapped.paths["preactivations"]),
        constants(theirs, probe(), names["preactivations"]),
    ]


def shapes(maps: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape[1:]) for name, value in maps.items()}


def test_nothing_is_tapped_or_said_unasked() -> None:
    student, teacher, said, _ = connected("resnet8", "resnet8x4", {"logits", "embedding"})
    assert student.available() == teacher.available() == {"logits", "embedding"}
    assert said == []


def test_paired_stages_have_the_students_names_and_are_told() -> None:
    student, teacher, said, _ = connected("resnet8", "vgg8", {"features"})
    assert shapes(student.features) == {"layer1": (16, 32, 32), "layer2": (32, 16, 16), "layer3": (64, 8, 8)}
    assert shapes(teacher.features) == {
        "layer2": (128, 16, 16),
        "layer3": (256, 8, 8),
        "teacher:block3": (512, 4, 4),
        "teacher:block4": (512, 4, 4),
    }
    assert [name for name, _, _ in paired(student.features, teacher.features)] == ["layer2", "layer3"]
    assert said == [
        "taps        layer2 (32×16×16) with the teacher's block1 (128×16×16)",
        "            layer3 (64×8×8) with the teacher's block2 (256×8×8)",
        "            no partner for the student's layer1 (16×32×32)",
        "            no partner for the teacher's block3 (512×4×4), block4 (512×4×4)",
    ]


def test_equal_networks_pair_every_stage() -> None:
    student, teacher, said, _ = connected("resnet8", "resnet8x4", {"features"})
    assert list(student.features) == list(teacher.features) == ["layer1", "layer2", "layer3"]
    assert len(said) == 3
    assert student.preactivations == teacher.preactivations == {}
    assert student.stem is None


@pytest.mark.parametrize("needs", [{"stages"}, {"stages", "features"}])
def test_stages_are_features_without_preactivations(needs: set[str]) -> None:
    student, _, _, _ = connected("resnet8", "resnet8x4", needs)
    assert student.available() == {"logits", "embedding", "features"}


def test_preactivations_and_the_stem() -> None:
    student, teacher, _, (ours, _) = connected("resnet8", "wrn_16_1", {"preactivations", "stem"})
    assert list(student.preactivations) == list(teacher.preactivations) == ["layer1", "layer2", "layer3"]
    assert student.features == teacher.features == {}
    assert ours.tapped.paths["preactivations"]["layer1"] == "layer1.0.relu:input"
    assert bool((student.preactivations["layer1"] < 0).any())
    assert student.stem is not None
    assert teacher.stem is not None
    assert student.stem.shape == teacher.stem.shape == (3, 16, 32, 32)
    with torch.no_grad():
        stem = ours.tapped.network.relu(ours.tapped.network.bn1(ours.tapped.network.conv1(probe().inputs)))
    torch.testing.assert_close(student.stem, stem)


def test_a_network_without_a_stem_gives_none() -> None:
    student, teacher, _, _ = connected("convnet_tiny", "resnet8", {"stem"})
    assert student.stem is None
    assert teacher.stem is not None


def test_without_a_teacher_the_students_stages_are_tapped() -> None:
    student, _, said, _ = connected("resnet8", None, {"features", "stem"})
    assert list(student.features) == ["layer1", "layer2", "layer3"]
    assert student.stem is not None
    assert said == []


def test_named_taps_are_the_only_ones_and_keep_their_order() -> None:
    taps = {"layer3": "block2", "layer1.0.relu:input": "block1.1"}
    student, teacher, said, _ = connected("resnet8", "vgg8", {"features"}, taps)
    assert shapes(student.features) == {"layer3": (64, 8, 8), "layer1.0.relu:input": (16, 32, 32)}
    assert shapes(teacher.features) == {"layer3": (256, 8, 8), "layer1.0.relu:input": (128, 16, 16)}
    assert said == [
        "taps        layer3 with the teacher's block2, as given",
        "            layer1.0.relu:input with the teacher's block1.1, as given",
    ]


def test_named_taps_serve_features_and_preactivations() -> None:
    student, teacher, _, _ = connected(
        "resnet8", "vgg8", {"features", "preactivations", "stages", "stem"}, {"layer2": "block1"}
    )
    assert student.features.keys() == student.preactivations.keys() == teacher.preactivations.keys() == {"layer2"}
    assert student.stem is not None


def test_a_named_tap_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(TapError, match="no module 'block9'"):
        connected("resnet8", "vgg8", {"features"}, {"layer2": "block9"})
    with pytest.raises(TapError, match="no module 'layer9'"):
        connected("resnet8", "vgg8", {"features"}, {"layer9": "block1"})


def test_the_embedding_map_is_tapped_in_both() -> None:
    student, teacher, said, (ours, _) = connected("resnet8", "wrn_16_1", {"embedding_map"})
    for signals in (student, teacher):
        assert signals.embedding_map is not None
        torch.testing.assert_close(signals.embedding_map.mean((2, 3)), signals.embedding)
    assert ours.tapped.paths["embedding_map"] == {"embedding_map": "layer3"}
    assert said == []


class Maximum(nn.Module):
    """Its pooling is no mean."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).amax((2, 3)))


def test_a_network_without_an_embedding_map_gives_none() -> None:
    student, _, _, _ = connected(Maximum(), "resnet8", {"embedding_map"})
    assert student.embedding_map is None


def test_constants_are_the_classifier_and_the_norms_before_the_maps() -> None:
    student, teacher = known("resnet8", "resnet14")
    names = [f"{stage}.{kind}" for stage in ("layer1", "layer2", "layer3") for kind in ("shift", "scale")]
    assert set(teacher) == set(student) == {"classifier.weight", "classifier.bias", *names}
    assert teacher["classifier.weight"].shape == (7, 64)
    assert teacher["classifier.bias"].shape == (7,)
    assert teacher["layer2.scale"].tolist() == [3.0] * 32
    assert teacher["layer2.shift"].tolist() == [-2.0] * 32
    assert not any(value.requires_grad for value in teacher.values())


def test_constants_go_by_the_students_names() -> None:
    _, teacher = known("resnet8", "vgg8")
    assert teacher["layer2.scale"].shape == (128,)
    assert teacher["teacher:block4.shift"].shape == (512,)


def test_constants_where_no_norm_or_bias_is_known() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 7, 1, bias=False))
    student, _ = known(nn.Sequential(*plain, nn.Flatten()), "resnet8")
    assert set(student) == {"classifier.weight", "classifier.bias"}
    assert student["classifier.weight"].shape == (7, 4)
    assert student["classifier.bias"].tolist() == [0.0] * 7


def test_constants_of_a_named_tap_without_a_stage_are_left_out() -> None:
    _, teacher = known("resnet8", "vgg8", {"layer2": "block1.1"})
    assert set(teacher) == {"classifier.weight", "classifier.bias"}


def test_one_teacher_serves_students_with_other_names_for_its_maps() -> None:
    teacher = network("resnet14")
    names = []
    for student in ("resnet8", "convnet(widths=[4, 8, 12])", "vgg8"):
        names.append(
            connect(network(student), teacher, probe(), needs=frozenset({"features"}), taps={}, say=lambda line: None)
        )
    told = teacher.tapped(probe().inputs)
    assert list(told.features) == ["layer1", "layer2", "layer3"]
    assert [list(told.renamed(each).features) for each in names] == [
        ["layer1", "layer2", "layer3"],
        ["stages.0", "stages.1", "stages.2"],
        ["teacher:layer1", "block1", "block2"],
    ]


def test_constants_without_a_classifier() -> None:
    tapped = Tapped(create_model("resnet8", num_classes=7, in_channels=3).network)
    assert constants(Network("net", tapped, nn.Identity()), probe(), {}) == {}


def test_a_named_layer_stands_for_its_map_before_the_activation_where_that_is_asked_for() -> None:
    student, teacher, _, _ = connected("resnet8", "resnet8", {"preactivations"}, {"layer3": "layer3"})
    for signals in (student, teacher):
        assert bool((signals.preactivations["layer3"] < 0).any())
