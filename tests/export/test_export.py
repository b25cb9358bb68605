"""Every format is written, opened again and right; or nothing is left."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from limbeck.config import ExportSettings
from limbeck.data import Preprocess
from limbeck.errors import MissingExtraError, SettingError
from limbeck.export import ExportError, ExportResult, formats, run_export
from limbeck.export.subject import open_subject
from limbeck.models import create_model, save_weights
from limbeck.networks import read_card

MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.25, 0.3)
ALL = ["README.md", "student.onnx", "student.pt2", "student.safetensors"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _weights(path: Path, name: str = "convnet_tiny", **facts: Any) -> Path:
    """A file as limbeck writes it, of a network whose normalisation layers have statistics of their own."""
    known: dict[str, Any] = {
        "model": name,
        "data": "pictures",
        "classes": ["cat", "dog", "eel"],
        "in_channels": 3,
        "image_size": [16, 16],
        "input": {"mean": MEAN, "std": STD, "size": None, "interpolation": "bilinear"},
        **facts,
    }
    side = (known["input"]["size"] or known["image_size"])[0]
    torch.manual_seed(0)
    network = create_model(
        name, num_classes=len(known["classes"]), in_channels=known["in_channels"], image_size=side
    ).network
    network.train()
    with torch.no_grad():
        network(torch.randn(16, len(known["input"]["mean"]), side, side))
    save_weights(network, path, {"format": "pt", "limbeck": json.dumps(known)})
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return _weights(tmp_path / "run" / "student.safetensors")


def _export(model: Path | str, output: Path, **settings: Any) -> ExportResult:
    return run_export(ExportSettings.make({"model": str(model), "output": output, **settings}))


@dataclass(frozen=True)
class Exported:
    weights: Path
    folder: Path
    result: ExportResult


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Exported]:
    """All formats of one network, with its preprocessing inside or not: made once for all tests that only read them."""

    @cache
    def make(inside: bool) -> Exported:
        folder = tmp_path_factory.mktemp("exported")
        weights = _weights(folder / "run" / "student.safetensors")
        result = _export(weights, folder / "out", include_preprocessing=inside)
        return Exported(weights, folder / "out", result)

    return make


def _onnx_logits(path: Path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _snippets(folder: Path) -> dict[str, str]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"### (\S+)\n\n```python\n(.*?)```", text, flags=re.DOTALL))


@pytest.mark.parametrize("inside", [False, True])
def test_all_formats_of_a_zoo_network(exported: Callable[[bool], Exported], inside: bool) -> None:
    one = exported(inside)
    weights, folder, result = one.weights, one.folder, one.result
    assert _names(folder) == ALL
    assert [file.format for file in result.files] == ["safetensors", "torch", "onnx"]
    assert all(file.difference < 1e-5 and file.size == file.path.stat().st_size for file in result.files)
    assert (result.shape, result.dtype) == ((3, 16, 16), "uint8" if inside else "float32")
    network = create_model(f"convnet_tiny@{weights}", num_classes=3).network.eval()
    raw = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    normalised = Preprocess(MEAN, STD)(raw)
    given = raw if inside else normalised
    with torch.no_grad():
        wanted = network(normalised)
        traced = torch.export.load(folder / "student.pt2").module()(given)
    torch.testing.assert_close(traced, wanted)
    torch.testing.assert_close(_onnx_logits(folder / "student.onnx", given), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("resnet8x4", 32),
        ("torchvision:resnet18", 32),
        ("timm:resnet18", 32),
        ("timm:vit_tiny_patch16_224(depth=2,patch_size=8)", 32),
    ],
)
def test_networks_of_other_sources(tmp_path: Path, name: str, side: int) -> None:
    heard: list[str] = []
    settings = {"model": name, "classes": 7, "image_size": side, "output": tmp_path / "out"}
    result = run_export(ExportSettings.make(settings), heard.append)
    assert _names(tmp_path / "out") == ALL
    assert result.num_classes == 7
    assert max(file.difference for file in result.files) < 1e-5
    assert any("weights are random" in line for line in heard)


def test_images_are_resized_inside(tmp_path: Path) -> None:
    known = {"mean": MEAN, "std": STD, "size": [32, 32], "interpolation": "bicubic"}
    file = _weights(tmp_path / "student.safetensors", input=known)
    result = _export(file, tmp_path / "inside", include_preprocessing=True)
    assert result.shape == (3, 16, 16)
    assert max(exported.difference for exported in result.files) < 1e-5
    result = _export(file, tmp_path / "before", to=["torch"])
    assert result.shape == (3, 32, 32)
    assert "resized to 32 × 32 (bicubic" in (tmp_path / "before" / "README.md").read_text(encoding="utf-8")


def test_a_network_that_knows_its_size_is_built_for_that_of_its_weights(tmp_path: Path) -> None:
    known = {"mean": MEAN, "std": STD, "size": [12, 12], "interpolation": "bilinear"}
    name = "timm:vit_tiny_patch16_224(patch_size=4, depth=1, embed_dim=12)"
    file = _weights(tmp_path / "student.safetensors", name=name, input=known)
    assert _export(file, tmp_path / "out", to=["safetensors"]).shape == (3, 12, 12)


def test_grey_images_for_a_network_of_three_channels(tmp_path: Path) -> None:
    # As when a network that wants three channels was trained on grey images.
    file = _weights(tmp_path / "student.safetensors", name="convnet_tiny(in_channels=3)", in_channels=1)
    result = _export(file, tmp_path / "out", include_preprocessing=True, to=["onnx"])
    assert result.shape == (1, 16, 16)
    assert _onnx_logits(tmp_path / "out" / "student.onnx", torch.zeros(2, 1, 16, 16, dtype=torch.uint8)).shape == (2, 3)
    assert _export(file, tmp_path / "before", to=["torch"]).shape == (3, 16, 16)


def test_the_batch_has_a_name_or_is_one(exported: Callable[[bool], Exported], tmp_path: Path) -> None:
    named = exported(False)
    _export(named.weights, tmp_path / "one", to=["onnx"], dynamic_batch=False)
    for folder, wanted in ((named.folder, "batch"), (tmp_path / "one", 1)):
        graph = onnx.load(folder / "student.onnx")
        (images,), (logits,) = graph.graph.input, graph.graph.output
        assert (images.name, logits.name) == ("images", "logits")
        for value in (images, logits):
            first = value.type.tensor_type.shape.dim[0]
            assert (first.dim_param or first.dim_value) == wanted
        assert named.result.opset == graph.opset_import[0].version


def test_every_file_says_what_it_is(exported: Callable[[bool], Exported]) -> None:
    folder = exported(True).folder
    facts = read_card(folder / "student.safetensors")
    assert facts["classes"] == ["cat", "dog", "eel"]
    assert facts["input"]["mean"] == list(MEAN)
    extra = {"limbeck": ""}
    torch.export.load(folder / "student.pt2", extra_files=extra)
    properties = {p.key: p.value for p in onnx.load(folder / "student.onnx").metadata_props}
    assert extra["limbeck"] == properties["limbeck"]
    assert '"preprocessing_inside": true' in properties["limbeck"]


def test_an_exported_file_can_be_exported_again(weights: Path, tmp_path: Path) -> None:
    first = _export(weights, tmp_path / "one", to=["safetensors"])
    second = _export(first.files[0].path, tmp_path / "two", to=["safetensors"])
    # Not byte by byte: safetensors writes the metadata in any order.
    one, two = (load_file(result.files[0].path) for result in (first, second))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert read_card(first.files[0].path) == read_card(second.files[0].path)
    # Also where nobody named the classes.
    bare = _export("convnet_tiny", tmp_path / "three", to=["safetensors"], classes=4, image_size=8)
    assert _export(bare.files[0].path, tmp_path / "four", to=["safetensors"]).num_classes == 4


@pytest.mark.parametrize("inside", [False, True])
def test_every_snippet_of_the_card_runs(
    exported: Callable[[bool], Exported], monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    folder = exported(inside).folder
    snippets = _snippets(folder)
    assert len(snippets) == 3
    monkeypatch.chdir(folder)
    for name, code in snippets.items():
        found: dict[str, Any] = {}
        exec(code, found)
        assert tuple(found["logits"].shape) == (1, 3), name


def test_the_card_names_input_classes_and_differences(exported: Callable[[bool], Exported]) -> None:
    result = exported(False).result
    text = (exported(False).folder / "README.md").read_text(encoding="utf-8")
    assert "- `images`: float32 (batch, 3, 16, 16), normalised pixels" in text
    assert "mean (0.3, 0.4, 0.5), std (0.2, 0.25, 0.3)" in text
    assert "0 = cat, 1 = dog, 2 = eel" in text
    assert f"ONNX opset: {result.opset}" in text
    for file in result.files:
        assert f"| `{file.path.name}` | {file.size:,} | {file.difference:.1e} |" in text


def test_a_run_of_the_library_is_exported(tmp_path: Path) -> None:
    import limbeck

    done = limbeck.train(
        "convnet_tiny", "digits", epochs=1, train_limit=64, test_limit=20, name="r", runs_dir=tmp_path, workers=0
    )
    result = _export(tmp_path / "r", tmp_path / "out", to=["torch"])
    assert result.classes == tuple("0123456789")
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        traced = torch.export.load(tmp_path / "out" / "student.pt2").module()(images)
        torch.testing.assert_close(traced, done.student(images))


# What goes wrong


def test_existing_files_are_not_overwritten_unasked(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "student.pt2").write_text("precious")
    with pytest.raises(SettingError, match=r"out has student.pt2 already.*overwrite"):
        _export(weights, tmp_path / "out")
    assert _names(tmp_path / "out") == ["student.pt2"]
    _export(weights, tmp_path / "out", overwrite=True, to=["torch"])
    assert (tmp_path / "out" / "student.pt2").stat().st_size > 1000


def test_the_files_can_be_read_by_others(weights: Path, tmp_path: Path) -> None:
    _export(weights, tmp_path / "out", to=["safetensors", "torch"])
    (tmp_path / "plain").touch()
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert modes == {(tmp_path / "plain").stat().st_mode}


@pytest.mark.parametrize("kind", ["safetensors", "torch", "onnx"])
def test_a_difference_is_an_error_and_leaves_nothing(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    opened = formats.Writer.open

    def wrong(self: formats.Writer, which: str, path: Path) -> formats.Predict:
        right = opened(self, which, path)
        return (lambda images: 1.01 * right(images)) if which == kind else right

    monkeypatch.setattr(formats.Writer, "open", wrong)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "student.onnx").write_text("an older one")
    with pytest.raises(ExportError, match=rf"{kind}: .* differ .* by 1.0e-02 .*tolerance is 0.0001"):
        _export(weights, tmp_path / "mine", to=["safetensors", kind], overwrite=True)
    assert (tmp_path / "mine" / "student.onnx").read_text() == "an older one"
    (tmp_path / "mine" / "student.onnx").unlink()
    assert _names(tmp_path / "mine") == []
    assert _export(weights, tmp_path / "mine", to=[kind], tolerance=0.02).files[0].difference == pytest.approx(
        0.01, rel=1e-3
    )


@pytest.mark.parametrize("bad", [float("nan"), None])
def test_nan_and_another_shape_are_differences(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float | None
) -> None:
    def wrong(self: formats.Writer, which: str, path: Path) -> formats.Predict:
        return lambda images: torch.zeros(1, 1) if bad is None else torch.full((len(images), 3), bad)

    monkeypatch.setattr(formats.Writer, "open", wrong)
    with pytest.raises(ExportError, match="nothing was kept"):
        _export(weights, tmp_path / "out", to=["safetensors"])
    assert not (tmp_path / "out").exists()


class Branching(nn.Module):
    """What it computes depends on the pixels, which a trace cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 2)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.layer(images.flatten(1))
        return out if out.sum() > 0 else -out


def make_branching(num_classes: int = 2, in_channels: int = 3) -> nn.Module:
    return Branching()


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_a_network_that_cannot_be_traced_is_a_sentence(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ExportError, match=r"make_branching cannot be traced by torch.export \("):
        _export(f"{__name__}:make_branching", tmp_path / "out", to=[kind], classes=2, image_size=8)
    assert not (tmp_path / "out").exists()
    _export(f"{__name__}:make_branching", tmp_path / "out", to=["safetensors"], classes=2, image_size=8)


def test_a_missing_package_is_named_before_any_work(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(MissingExtraError, match=r"exporting to ONNX needs .*'onnxscript'.*limbeck\[export\]"):
        _export(weights, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    _export(weights, tmp_path / "out", to=["safetensors"])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model": None}, "model is not given"),
        ({"model": "convnet_tiny", "image_size": 8}, "classes is not given"),
        ({"model": "convnet_tiny", "classes": 3}, "image_size is not given"),
        ({"model": "convnet_tiny", "classes": 3, "image_size": 8, "include_preprocessing": True}, "how the images of"),
        ({"model": "convnet_tony", "classes": 3, "image_size": 8}, "did you mean 'convnet_tiny'"),
        ({"classes": 4}, "classes is 4, and the model's file says 3"),
        ({"channels": 1}, "channels is 1, and the model's file says 3"),
        ({"data": "digits"}, "data is digits, and the model's file names other classes"),
        (
            {"model": "timm:vit_tiny_patch16_224(img_size=32,depth=1)", "classes": 3, "image_size": 48},
            r"cannot take an image of shape \(3, 48, 48\)",
        ),
    ],
)
def test_mistakes_are_sentences(weights: Path, tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    given = {"model": str(weights), "output": tmp_path / "out", **settings}
    with pytest.raises(SettingError, match=sentence):
        run_export(ExportSettings.make(given))
    assert not (tmp_path / "out").exists()


def test_a_data_set_says_what_a_plain_file_does_not(tmp_path: Path) -> None:
    network = create_model("convnet_tiny", num_classes=10, in_channels=1).network
    save_weights(network, tmp_path / "plain.safetensors", {})
    settings = {"model": f"convnet_tiny@{tmp_path / 'plain.safetensors'}", "data": "digits"}
    subject = open_subject(ExportSettings.make(settings | {"include_preprocessing": True}))
    assert (subject.image, subject.num_classes) == ((1, 8, 8), 10)
    assert subject.preprocess is not None


def test_an_output_that_is_a_file_is_refused(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="which is a file; name a folder"):
        _export(weights, tmp_path / "file")
    with pytest.raises(SettingError, match="cannot be written"):
        _export(weights, tmp_path / "file" / "below", to=["safetensors"])
