"""Weights files: safe to read, strict to load, whole when written."""

from __future__ import annotations

import argparse
import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file, save_model
from torch import nn

from limbeck.data.search import word_tokenizer
from limbeck.errors import WeightsError
from limbeck.files import atomic_path
from limbeck.models import create_model, load_state, load_weights, save_weights
from limbeck.models.encoders import create_encoder
from limbeck.models.language import create_language_model


def small(classes: int = 4, widths: str = "[4, 6]") -> nn.Module:
    return create_model(f"convnet(widths={widths})", num_classes=classes, in_channels=1).network


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


class Tied(nn.Module):
    """An encoder and a decoder that share one matrix, and two views into one storage."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 5, bias=False)
        self.decoder = nn.Linear(3, 5, bias=False)
        self.decoder.weight = self.encoder.weight
        whole = torch.randn(4, 6)
        self.register_buffer("left", whole[:, :3])
        self.register_buffer("turned", whole.t())
        self.register_buffer("empty", torch.zeros(0))
        self.register_buffer("nothing", torch.zeros(0))


class Touch:
    """Unpickles to a call that creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", ["pth", "pt", "th", "bin", "ckpt"])
def test_a_state_dict_of_torch_loads(tmp_path, suffix):
    network, other = small(), small()
    torch.save(network.state_dict(), tmp_path / f"w.{suffix}")
    load_weights(other, tmp_path / f"w.{suffix}")
    assert same(network, other)


def test_the_format_before_zip_loads(tmp_path):
    network, other = small(), small()
    torch.save(network.state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    load_weights(other, tmp_path / "w.pth")
    assert same(network, other)


def test_safetensors_round_trip_keeps_metadata_and_half_precision_is_converted(tmp_path):
    network, other = small(), small()
    save_weights(network.half(), tmp_path / "new" / "w.safetensors", {"source": "test"})
    load_weights(other, str(tmp_path / "new" / "w.safetensors"))
    assert same(network.float(), other)
    with safe_open(tmp_path / "new" / "w.safetensors", framework="pt") as file:
        assert file.metadata() == {"source": "test"}


def test_shared_tensors_are_written_once_and_come_back_under_every_name(tmp_path):
    network, other = Tied(), Tied()
    save_weights(network, tmp_path / "w.safetensors", {})
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        assert "decoder.weight" not in file.keys()  # noqa: SIM118
    state = load_state(tmp_path / "w.safetensors")
    assert state.keys() == network.state_dict().keys()
    load_weights(other, tmp_path / "w.safetensors")
    assert same(network, other)
    assert other.decoder.weight is other.encoder.weight


def test_a_file_that_safetensors_wrote_without_the_shared_names_loads(tmp_path):
    network, other = Tied(), Tied()
    for tied in (network, other):
        del tied.left, tied.turned, tied.empty, tied.nothing
    save_model(network, str(tmp_path / "w.safetensors"))
    load_weights(other, tmp_path / "w.safetensors")
    assert same(network, other)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}},
        lambda state: {"state_dict": {"net": {"module": state}}},
        lambda state: {"student": state},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"model_state_dict": {f"module._orig_mod.{key}": value for key, value in state.items()}},
        lambda state: {"state_dict": {f"model.network.{key}": value for key, value in state.items()}},
        lambda state: {key.replace("stages.", "stages._orig_mod."): value for key, value in state.items()},
        lambda state: {key: value for key, value in state.items() if "num_batches" not in key},
    ],
)
def test_nested_and_prefixed_checkpoints_load(tmp_path, wrap):
    network, other = small(), small()
    torch.save(wrap(network.state_dict()), tmp_path / "w.pth")
    load_weights(other, tmp_path / "w.pth")
    assert same(network, other)


def test_data_parallel_weights_load_into_the_bare_network_and_the_other_way_stays_strict(tmp_path):
    network, other = small(), small()
    save_weights(nn.DataParallel(network), tmp_path / "w.safetensors", {})
    load_weights(other, tmp_path / "w.safetensors")
    assert same(network, other)
    wrapped = nn.Sequential()
    wrapped.add_module("module", small())
    load_weights(wrapped, tmp_path / "w.safetensors")
    assert same(network, wrapped)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, write):
    write({"model": Touch(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(WeightsError):
        load_state(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_a_pickle_that_needs_classes_is_refused_with_lines_that_convert_it(tmp_path):
    network, other = small(), small()
    torch.save({"model": network, "options": Path("x")}, tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=r"needs limbeck\.models\.zoo\.convnet\.ConvNet.* could run any code"
    ) as refusal:
        load_weights(other, tmp_path / "w.pth")
    lines = re.findall(r"^    (.+)$", str(refusal.value), flags=re.MULTILINE)
    exec("\n".join(lines))
    load_weights(other, tmp_path / "w.safetensors")
    assert same(network, other)


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Every bad input by name: the path, and what the sentence must hold."""
    torch.save(small().state_dict(), folder / "good.pth")
    save_file({"a": torch.zeros(9)}, folder / "good.safetensors")
    written = {
        "empty.pth": (b"", r"is empty \(0 bytes\)"),
        "empty.safetensors": (b"", r"is empty \(0 bytes\)"),
        "cut.pth": ((folder / "good.pth").read_bytes()[:900], "cannot be read as a file written by torch.save"),
        "cut.safetensors": ((folder / "good.safetensors").read_bytes()[:-5], "cannot be read as safetensors"),
        "noise.pth": (b"hello, I am no pickle", "cannot be read as a file written by torch.save"),
        "other.pth": ((folder / "good.safetensors").read_bytes(), "cannot be read as a file written by torch.save"),
        "page.pth": (b"<!doctype html><html>", "is a web page"),
        "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        "weights.zip": (b"PK", r"ends in '.zip'; accepted are .safetensors, .pth"),
    }
    for name, (content, _) in written.items():
        (folder / name).write_bytes(content)
    values = {
        "list.pth": ([torch.zeros(2)], "holds a list; expected a mapping"),
        "tensor.pth": (torch.zeros(2), "holds a Tensor; expected a mapping"),
        "void.pth": ({}, "holds no weights.*it is empty"),
        "history.pth": (
            {"epoch": 3, "weight": torch.zeros(2)},
            "holds no weights.*entries that are not tensors: epoch",
        ),
    }
    for name, (value, _) in values.items():
        torch.save(value, folder / name)
    cases = {name: (folder / name, sentence) for name, (_, sentence) in (written | values).items()}
    cases["folder"] = (folder, r"is a folder; name a weights file in it\. It holds: cut\.pth")
    cases["missing"] = (folder / "goood.pth", r"there is no weights file .*; did you mean '.*good\.pth'")
    cases["nowhere"] = (folder / "none" / "w.pth", "there is no weights file")
    return cases


def test_every_bad_file_gets_its_sentence(tmp_path):
    network = small()
    for path, sentence in bad_files(tmp_path).values():
        with pytest.raises(WeightsError, match=sentence):
            load_state(path)
        with pytest.raises(WeightsError, match=f"^teacher: .*{sentence}"):
            load_weights(network, path, setting="teacher")


def test_another_number_of_classes_is_explained(tmp_path):
    save_weights(small(classes=100), tmp_path / "teacher.safetensors", {})
    with pytest.raises(WeightsError, match=r"teacher\.safetensors has 100 classes, the data has 10 .*'classifier'"):
        load_weights(small(classes=10), tmp_path / "teacher.safetensors")


@pytest.mark.parametrize("text", ["llama(layers=1, width=16, heads=2)", "bert(layers=1, width=16, heads=2)"])
def test_another_vocabulary_is_explained_as_one(tmp_path, text):
    def made(vocabulary, context=16, classes=None):
        task = "causal" if classes is None else "classification"
        return create_language_model(
            text, task=task, vocabulary=vocabulary, context=context, num_classes=classes, pad=0
        ).network

    classes = 2 if text.startswith("bert") else None
    save_weights(made(30, classes=classes), tmp_path / "teacher.safetensors", {})
    with pytest.raises(
        WeightsError, match=r"vocabulary of 30 tokens, the data's tokenizer has 20 .*--tokenizer.*'uld'"
    ):
        load_weights(made(20, classes=classes), tmp_path / "teacher.safetensors")
    if classes:
        with pytest.raises(WeightsError, match=r"has 2 classes, the data has 3"):
            load_weights(made(30, classes=3), tmp_path / "teacher.safetensors")
        with pytest.raises(
            WeightsError, match=r"(?s)does not fit the network .*position_embeddings.*\(16, 16\) and \(32, 16\)"
        ):
            load_weights(made(30, context=32, classes=2), tmp_path / "teacher.safetensors")


def test_another_vocabulary_of_an_encoder_is_explained_as_one(tmp_path):
    def made(*words):
        return create_encoder(
            "bert(layers=1, width=16, heads=2)", tokenizer=word_tokenizer(words), max_length=8
        ).encoder

    save_weights(made("one", "two"), tmp_path / "teacher.safetensors", {})
    with pytest.raises(WeightsError, match="has a vocabulary of"):
        load_weights(made("one", "two", "three"), tmp_path / "teacher.safetensors")


def test_keys_that_do_not_fit_are_listed_with_shapes_and_nothing_is_loaded(tmp_path):
    state = small(widths="[4, 8]").state_dict()
    state["extra.weight"] = state.pop("stages.0.0.weight")
    torch.save(state, tmp_path / "w.pth")
    network = small()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsError) as error:
        load_weights(network, tmp_path / "w.pth")
    message = str(error.value)
    assert "w.pth does not fit the network ConvNet." in message
    assert "missing in the file (1):\n    stages.0.0.weight\n" in message
    assert "unexpected in the file (1):\n    extra.weight\n" in message
    assert "of one shape in the file and another in the network (6):\n" in message
    assert "    stages.1.0.weight: (8, 4, 3, 3) and (6, 4, 3, 3)\n" in message
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_long_lists_are_cut_after_ten(tmp_path):
    torch.save({f"odd{i}": torch.zeros(1) for i in range(13)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"unexpected in the file \(13\):\s+odd0\s(.|\s)*odd9\s+and 3 more"):
        load_weights(small(), tmp_path / "w.pth")


def test_weights_that_are_not_finite_floats_are_refused(tmp_path):
    state = small().state_dict()
    torch.save(state | {"classifier.bias": torch.zeros(4, dtype=torch.int8)}, tmp_path / "whole.pth")
    torch.save(state | {"classifier.bias": torch.tensor([0.0, float("nan"), 0.0, 0.0])}, tmp_path / "nan.pth")
    with pytest.raises(WeightsError, match=r"not floating point numbers: classifier\.bias is torch\.int8"):
        load_weights(small(), tmp_path / "whole.pth")
    with pytest.raises(WeightsError, match=r"NaN or infinite weights: classifier\.bias\."):
        load_weights(small(), tmp_path / "nan.pth")


def test_weights_are_written_as_safetensors_only(tmp_path):
    with pytest.raises(WeightsError, match=r"written as \.safetensors, got the file name 'w\.pth'"):
        save_weights(small(), tmp_path / "w.pth", {})


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "w.safetensors"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic_path(target) as temporary:  # noqa: PT012
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".safetensors"
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
    assert target.read_text() == "old"


def test_a_write_through_a_link_keeps_the_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_path(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


# -- checkpoints of public benchmarks ----------------------------------------------------------------------------------


def test_a_checkpoint_with_its_command_line_beside_the_weights_loads(tmp_path):
    network, other = small(), small()
    options = argparse.Namespace(lr=0.05, path="x", milestones=[150, 180], cosine=False, trial=None)
    torch.save({"opt": options, "epoch": 240, "accuracy": 0.7, "model": network.state_dict()}, tmp_path / "ckpt.pth")
    load_weights(other, tmp_path / "ckpt.pth")
    assert same(network, other)


def test_a_command_line_that_holds_another_class_is_refused(tmp_path):
    options = argparse.Namespace(path=Path("x"))
    torch.save({"opt": options, "model": small().state_dict()}, tmp_path / "ckpt.pth")
    with pytest.raises(WeightsError, match=r"is a pickle that needs pathlib.* could run any code"):
        load_state(tmp_path / "ckpt.pth")


def test_a_command_line_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    options = argparse.Namespace(action=Touch(tmp_path / "ran"))
    torch.save({"opt": options, "model": small().state_dict()}, tmp_path / "ckpt.pth")
    with pytest.raises(WeightsError):
        load_state(tmp_path / "ckpt.pth")
    assert not (tmp_path / "ran").exists()


def test_the_namespace_is_allowed_only_while_a_file_is_read(tmp_path):
    torch.save(small().state_dict(), tmp_path / "w.pth")
    load_state(tmp_path / "w.pth")
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


def public_name(model: str, name: str) -> str:
    """The name in a public benchmark's checkpoint, written down from its modules and not from our renaming."""
    if model == "ResNet50":
        return name.replace("downsample", "shortcut")
    if model == "shufflenetv2":
        first = {"branch1.0": "conv1", "branch1.1": "bn1", "branch1.2": "conv2", "branch1.3": "bn2"}
        first |= {"branch2.0": "conv3", "branch2.1": "bn3", "branch2.3": "conv4", "branch2.4": "bn4"}
        first |= {"branch2.5": "conv5", "branch2.6": "bn5"}
        later = {"branch2.0": "conv1", "branch2.1": "bn1", "branch2.3": "conv2", "branch2.4": "bn2"}
        later |= {"branch2.5": "conv3", "branch2.6": "bn3"}
        parts = name.split(".")
        if "branch" in name:
            layer = (first if parts[1] == "0" else later)[".".join(parts[2:4])]
            return ".".join([*parts[:2], layer, parts[4]])
    return name


@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
@pytest.mark.parametrize("model", ["vgg8", "ResNet50", "shufflenetv2"])
def test_public_names_are_renamed_behind_prefixes(tmp_path, model, prefix):
    network, other = (create_model(model, num_classes=4, in_channels=1).network for _ in range(2))
    with torch.no_grad():
        for name, value in network.named_buffers():
            if name.endswith("running_mean"):
                value.uniform_()
    state = {prefix + public_name(model, name): value for name, value in network.state_dict().items()}
    assert len(state) == len(network.state_dict())
    renamed = prefix == "" and state.keys() != network.state_dict().keys()
    assert renamed == (prefix == "" and model != "vgg8")
    torch.save({"opt": argparse.Namespace(lr=0.05), "model": state}, tmp_path / "ckpt.pth")
    load_weights(other, tmp_path / "ckpt.pth")
    assert same(network, other)


@pytest.mark.parametrize("model", ["ResNet50", "shufflenetv2"])
def test_our_own_names_load_as_they_are(tmp_path, model):
    network, other = (create_model(model, num_classes=4, in_channels=1).network for _ in range(2))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    load_weights(other, tmp_path / "w.pth")
    assert same(network, other)


def test_what_public_names_do_not_explain_is_listed(tmp_path):
    state = create_model("ResNet50", num_classes=4, in_channels=1).network.state_dict()
    state["layer1.0.shortcut.7.weight"] = state.pop("layer1.0.downsample.0.weight")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"missing in the file \(1\):\s+layer1\.0\.downsample\.0\.weight\s"):
        load_weights(create_model("ResNet50", num_classes=4, in_channels=1).network, tmp_path / "w.pth")
