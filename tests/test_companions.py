"""Networks that learn beside a student: what they are, that they train, and that one that diverges harms nobody."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

import limbeck
from limbeck.companions import drawn_anew, tail_of
from limbeck.data import ImageData, load_data
from limbeck.engine.callbacks import Callback
from limbeck.engine.interrupt import Interrupted
from limbeck.engine.trainable import Trainable
from limbeck.errors import LimbeckError, NonFiniteError, SettingError
from limbeck.models import create_model
from limbeck.runs import read_metrics
from limbeck.stages import find_stages
from limbeck.taps import Tapped, evaluating, module_at

NETWORKS = "tests.engine.networks"
SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 32, "log_steps": 2}


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data("digits", train_limit=160, test_limit=60)


class Look(Callback):
    """Keeps what trains, and what its companions were before the first step."""

    trainable: Trainable
    first: dict[str, Tensor]

    def on_start(self, loop: Any) -> None:
        self.trainable = loop.trainable
        self.first = {name: value.clone() for name, value in loop.trainable.state_dict().items()}


def train(data: ImageData, objective: str, model: Any = "convnet_tiny", **settings: Any) -> dict[str, Tensor]:
    """The weights of the trained student."""
    callbacks = settings.pop("callbacks", [])
    done = limbeck.train(model, data, objective, callbacks=callbacks, **{**SETTINGS, **settings})
    return {name: value.clone() for name, value in done.student.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


# -- branches ----------------------------------------------------------------------------------------------------------

CUT = [
    "resnet8",
    "wrn_16_2",
    "vgg8",
    "mobilenetv2_half",
    "shufflenetv1",
    "shufflenetv2",
    "convnet_base",
    "convnet_tiny",
]
LARGE = [
    "torchvision:resnet18",
    "torchvision:densenet121",
    "timm:resnet18",
    "timm:mobilenetv3_small_050",
    "timm:regnetx_002",
]


@pytest.mark.parametrize("name", [*CUT, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_a_tail_is_what_the_network_does_behind_its_trunk(name: str) -> None:
    torch.manual_seed(0)
    network = create_model(name, num_classes=5, in_channels=3, image_size=64).network
    images = torch.randn(2, 3, 64, 64)
    trunk = find_stages(network, images).paths[-2]
    tapped = Tapped(network, features={"trunk": trunk})
    with evaluating(network), torch.no_grad():
        said = tapped(images)
    tapped.close()
    tail = tail_of(network, trunk, images)
    assert tail is not None
    with evaluating(tail), torch.no_grad():
        assert torch.equal(tail(said.features["trunk"]), said.logits)
    # The very layers of the network, and those behind the cut alone.
    own = {id(parameter) for parameter in tail.parameters()}
    before = {id(parameter) for parameter in module_at(network, trunk).parameters()}
    everything = {id(parameter) for parameter in network.parameters()}
    assert own < everything
    assert not own & before


class TwoInputs(nn.Module):
    """Its classifier reads the first map beside the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.classifier = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        early = self.first(images)
        means = [maps.mean((2, 3)) for maps in (images.repeat(1, 4, 1, 1), self.second(early))]
        logits: Tensor = self.classifier(torch.cat(means, dim=1))
        return logits


class Branching(nn.Sequential):
    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = super().forward(images)
        return answer if answer.sum() > 0 else -answer


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("convnet(widths=[8])", r"convnet\(widths=\[8\]\) cannot get branches: it has 1 stage, and branches part"),
        (TwoInputs(), "TwoInputs cannot get branches: what comes behind 'first' needs more than"),
        (
            Branching(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, stride=2), nn.Flatten(), nn.Linear(16, 10)),
            r"Branching cannot get branches: torch.fx cannot trace it \(symbolically traced variables.*dml has peers",
        ),
    ],
)
def test_a_network_that_cannot_be_cut_is_refused(data: ImageData, model: Any, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        train(data, "one", model)


def test_branches_have_their_own_weights_and_train_with_the_gate(data: ImageData) -> None:
    look = Look()
    train(data, "one", callbacks=[look])
    now = look.trainable.state_dict()
    ends = [key for key in now if key.startswith("companions.networks.0.") and now[key].is_floating_point()]
    assert any("classifier.weight" in key for key in ends)
    weights = [key for key in ends if key.endswith("weight") and now[key].ndim > 1]
    for key in weights:
        twins = [key.replace("networks.0", "networks.1"), key.replace("companions.networks.0", "student.network")]
        assert not any(torch.equal(look.first[key], look.first[twin]) for twin in twins)
    moved = [key for key in now if now[key].is_floating_point() and not torch.equal(now[key], look.first[key])]
    parts = ("companions.networks.0.", "companions.networks.1.", "student.", "objectives.0.parts.0.gate.")
    assert all(any(key.startswith(part) for key in moved) for part in parts)


def test_one_branch_is_trained_as_twice_the_cross_entropy(data: ImageData) -> None:
    one, twice = train(data, "one(branches=1)"), train(data, "2*ce")
    for name, value in one.items():
        torch.testing.assert_close(value, twice[name], rtol=1e-4, atol=1e-6)


# -- peers -------------------------------------------------------------------------------------------------------------


def test_peers_have_their_own_weights_and_the_student_those_that_it_has_alone(data: ImageData) -> None:
    looks = [Look(), Look(), Look()]
    for look, objective in zip(looks, ("dml(peers='same, same, convnet(widths=[4, 8])')", "ce", "one"), strict=True):
        train(data, objective, callbacks=[look])
    peers = looks[0].trainable.apart()
    assert [sum(p.numel() for p in peer.parameters()) for peer in peers] == [1442, 1442, 438]
    key = "stages.1.0.weight"
    places = ("student.network", "companions.networks.0", "companions.networks.1")
    first = [looks[0].first[f"{place}.{key}"] for place in places]
    assert len({tuple(value.flatten().tolist()) for value in first}) == 3
    assert all(torch.equal(look.first[f"student.network.{key}"], first[0]) for look in looks)


def test_a_module_given_is_copied_and_draws_its_weights_anew(data: ImageData) -> None:
    torch.manual_seed(3)
    model = create_model("convnet_tiny", num_classes=10, in_channels=1).network
    given = {name: value.clone() for name, value in model.state_dict().items()}
    look = Look()
    train(data, "dml", model, callbacks=[look])
    assert torch.equal(look.first["student.network.classifier.weight"], given["classifier.weight"])
    assert not torch.equal(look.first["companions.networks.0.classifier.weight"], given["classifier.weight"])
    assert look.trainable.apart()[0]._forward_hooks == {}
    train(data, "one(branches=2)", create_model("convnet_tiny", num_classes=10, in_channels=1).network)


def test_a_layer_that_cannot_be_drawn_anew_is_named() -> None:
    class Scaled(nn.Linear):
        reset_parameters = None  # type: ignore[assignment]

        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.weight = nn.Parameter(torch.ones(2, 2))

    with pytest.raises(SettingError, match=r"another Sequential .* '1' has weights and no reset_parameters\(\)"):
        drawn_anew(nn.Sequential(nn.Linear(2, 2), Scaled()))


@pytest.mark.parametrize(
    ("peers", "sentence"),
    [
        ("resnet9", "peer: .*'resnet9'; did you mean 'resnet8'"),
        ("same, convnet(width=3)", "peer: unknown argument of .*'width'; did you mean 'widths'"),
        (f"{NETWORKS}:wants_larger", "wants its images otherwise than the student convnet_tiny"),
    ],
)
def test_a_peer_that_cannot_be_is_refused(data: ImageData, peers: str, sentence: str) -> None:
    with pytest.raises(LimbeckError, match=sentence):
        train(data, f"dml(peers='{peers}')")


# -- a network that diverges -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"clip_norm": 0.5, "optimizer": "adamw", "ema": 0.9}])
def test_a_peer_that_diverges_leaves_the_student_as_it_is_alone(
    data: ImageData, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="limbeck"):
        taught = train(data, f"dml(peers='{NETWORKS}:broken')", **settings)
    assert same(taught, train(data, "ce", **settings))
    assert [record.getMessage()[:32] for record in caplog.records] == ["dml: some logits of peer1 (2) we"]


def test_a_peer_that_explodes_on_the_way_does_not_end_the_run(data: ImageData, tmp_path: Path) -> None:
    class Explode(Callback):
        def on_epoch(self, loop: Any, metrics: dict[str, float]) -> None:
            with torch.no_grad():
                loop.trainable.apart()[1].classifier.weight.fill_(torch.inf)

    train(data, "dml(peers='same, same')", callbacks=[Explode()], name="run", runs_dir=tmp_path)
    last = [record for record in read_metrics(tmp_path / "run") if record["split"] == "train"][-1]
    assert last["dml.peer2.left_out"] == 5
    assert last["dml.peer2.ce"] == 0
    assert last["dml.mutual"] > 0
    assert last["dml.peer1.mutual"] > 0


def test_a_branch_that_diverges_harms_neither_trunk_nor_student(data: ImageData) -> None:
    made: list[nn.Module] = []

    def second_is_broken() -> nn.Module:
        network = create_model("convnet_tiny", num_classes=10, in_channels=1).network
        if len(made) % 2:
            nn.init.constant_(network.classifier.weight, torch.nan)  # type: ignore[arg-type, union-attr]
        made.append(network)
        return network

    found = limbeck.compare(
        "convnet_base",
        second_is_broken,
        data,
        ["one(branches=2)"],
        seeds=1,
        allow_weak_teacher=True,
        baselines=False,
        **SETTINGS,
    )
    assert found.failures == {}
    (student,) = found.students.values()
    assert all(bool(value.isfinite().all()) for value in student.student.state_dict().values())
    # One branch is left: twice the cross-entropy.
    alone = train(data, "one(branches=1)")
    for name, value in student.student.state_dict().items():
        torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_student_that_diverges_ends_alone_in_a_comparison(data: ImageData) -> None:
    with pytest.raises(NonFiniteError, match=r"the term 'dml\.ce' became NaN or infinite at step 0"):
        train(data, "dml(peers='convnet_tiny')", f"{NETWORKS}:broken")
    found = limbeck.compare(
        "convnet_base",
        ["convnet_tiny", f"{NETWORKS}:broken"],
        data,
        "dml(peers='convnet_tiny')",
        seeds=1,
        allow_weak_teacher=True,
        **{**SETTINGS, "epochs": 1},
    )
    assert all("broken" in name for name in found.failures)
    assert sorted(name for name in found.results if "broken" not in name) == [
        "convnet_tiny-alone-seed0",
        "convnet_tiny-dml-peers--convnet_tiny-seed0",
        "convnet_tiny-kd-seed0",
    ]


# -- the run -----------------------------------------------------------------------------------------------------------


class Stop(Callback):
    def on_epoch(self, loop: Any, metrics: dict[str, float]) -> None:
        loop.save()
        raise Interrupted(2, loop.position.step, loop.folder)


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param("dml(peers='same, convnet(widths=[4, 8])')", marks=pytest.mark.slow),
        "one(warmup_epochs=2)",
    ],
)
def test_a_stopped_run_goes_on_to_the_same_weights_and_metrics(data: ImageData, tmp_path: Path, objective: str) -> None:
    folder: dict[str, Any] = {"runs_dir": tmp_path, "ema": 0.9, "clip_norm": 1.0, "log_steps": 3}
    whole = train(data, objective, name="whole", **folder)
    with pytest.raises(Interrupted):
        train(data, objective, name="stopped", callbacks=[Stop()], **folder)
    assert same(whole, train(data, objective, name="stopped", resume=True, **folder))
    told = [
        [{key: value for key, value in record.items() if key != "seconds"} for record in read_metrics(tmp_path / name)]
        for name in ("whole", "stopped")
    ]
    assert told[0] == told[1]


def test_the_folder_has_the_student_alone_and_tells_what_trained_beside_it(data: ImageData, tmp_path: Path) -> None:
    train(data, "dml", name="run", runs_dir=tmp_path)
    plain = create_model("convnet_tiny", num_classes=10, in_channels=1).network
    assert load_file(tmp_path / "run" / "student.safetensors").keys() == plain.state_dict().keys()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["student_parameters"], result["extra_parameters"], result["teacher"]) == (1442, 1442, None)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["objective"] == "dml"


@pytest.mark.slow
def test_a_stage_without_them_lets_them_rest(data: ImageData) -> None:
    look = Look()
    stages = [{"objective": "kd", "epochs": 1}]
    limbeck.distill(
        "convnet_base",
        "convnet_tiny",
        data,
        "dml",
        callbacks=[look, StopAfterFirst()],
        stages=stages,
        allow_weak_teacher=True,
        **SETTINGS,
    )
    now = look.trainable.state_dict()
    assert all(torch.equal(now[key], look.first[key]) for key in now if key.startswith("companions."))


class StopAfterFirst(Callback):
    def on_epoch(self, loop: Any, metrics: dict[str, float]) -> None:
        loop.stop = loop.position.stage == 0


@pytest.mark.slow
def test_the_whole_is_compiled(data: ImageData) -> None:
    for objective in ("dml", "one"):
        eager, compiled = (train(data, objective, compile=compile, epochs=1) for compile in (False, True))
        for name, value in eager.items():
            torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-5)
