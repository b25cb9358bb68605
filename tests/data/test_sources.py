from __future__ import annotations

import gzip
import logging
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch

from limbeck.data import SourceEntry, list_sources, load_data, register_source, sources
from limbeck.errors import DataError, MissingExtraError, SettingError
from limbeck.plugins import load_plugins

from .conftest import pixels


def test_the_list() -> None:
    entries = list_sources()
    names = [entry.name for entry in entries]
    assert names == sorted(names)
    assert {"digits", "cifar10", "cifar100", "fashion-mnist", "svhn", "stl10", "tiny-imagenet"} <= set(names)
    assert {"folder:PATH", "PATH.npz", "hf:NAME"} <= set(names)
    assert all(entry.what and entry.size and entry.download for entry in entries)


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"unknown data set 'cifar-100'; did you mean 'cifar100'.*digits.*folder"):
        load_data("cifar-100")
    for spec in (tmp_path / "nothing", f"folder:{tmp_path}/nothing"):
        with pytest.raises(DataError, match=r"there is no folder '.*nothing'"):
            load_data(spec)
    with pytest.raises(DataError, match=r"there is no file '.*nothing\.npz'"):
        load_data(tmp_path / "nothing.npz")


def test_a_known_name_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_data("digits").name == "digits"


def test_entry_points(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    digits = next(entry for entry in list_sources() if entry.name == "digits")
    mine = SourceEntry("mine", "my own", 10, "8×8", "nothing", digits.load)

    def broken() -> SourceEntry:
        raise ImportError("no such module")

    points = [
        SimpleNamespace(name="mine", load=lambda: mine),
        SimpleNamespace(name="again", load=lambda: digits),
        SimpleNamespace(name="broken", load=broken),
        SimpleNamespace(name="other", load=lambda: 3),
    ]
    monkeypatch.setattr(sources, "entry_points", lambda group: points if group == "limbeck.data" else [])
    with caplog.at_level(logging.WARNING, "limbeck"):
        assert len(load_data("mine").train) == 800
    assert "'broken' of another package cannot be loaded: no such module" in caplog.text
    assert "'again' is left out" in caplog.text
    assert "'other' is left out" in caplog.text


def save_known(folder: Path, name: str, parts: tuple[str, ...] = ("train", "test"), **more: Any) -> None:
    for seed, part in enumerate(parts):
        np.savez(folder / f"{name}-{part}.npz", images=pixels(seed, 20, 8, 8, 3), labels=np.arange(20) % 10, **more)


@pytest.mark.parametrize("name", ["cifar10", "svhn", "stl10", "fashion-mnist", "tiny-imagenet"])
def test_known_names_from_npz(tmp_path: Path, name: str) -> None:
    save_known(tmp_path, name, class_names=np.array([f"class {i}" for i in range(10)]))
    data = load_data(name, data_dir=tmp_path, val_fraction=0)
    assert (len(data.train), len(data.test or ())) == (20, 20)
    assert data.classes[3] == "class 3"
    save_known(tmp_path, name, ("train", "val"))
    assert len(load_data(name, data_dir=tmp_path).val or ()) == 20


def test_npz_without_its_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "cifar10-train.npz", x=np.zeros(3))
    with pytest.raises(DataError, match="needs the arrays 'images' and 'labels'; it has x"):
        load_data("cifar10", data_dir=tmp_path)
    np.savez(tmp_path / "mine.npz", x=np.zeros(3))
    with pytest.raises(DataError, match=r"needs the arrays images and labels.*it has x"):
        load_data(tmp_path / "mine.npz")
    (tmp_path / "mine.npz").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"cannot be read as a \.npz"):
        load_data(tmp_path / "mine.npz")


def test_cifar100_has_the_published_constants(tmp_path: Path) -> None:
    np.savez(tmp_path / "cifar100-train.npz", images=pixels(0, 200, 8, 8, 3), labels=np.arange(200) % 100)
    data = load_data("cifar100", data_dir=tmp_path, val_fraction=0)
    assert (data.mean, data.std) == ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))


CHANNELS_FIRST = pixels(7, 20, 3, 8, 8)
CHANNELS_LAST = CHANNELS_FIRST.transpose(0, 2, 3, 1)
STUBS = {
    "cifar10": ("CIFAR10", {"data": CHANNELS_LAST, "targets": list(range(10)) * 2, "classes": list("abcdefghij")}),
    "svhn": ("SVHN", {"data": CHANNELS_FIRST, "labels": np.arange(20) % 10}),
    "stl10": (
        "STL10",
        {"data": CHANNELS_FIRST, "labels": np.arange(20, dtype=np.uint8) % 10, "classes": list("abcdefghij")},
    ),
}


@pytest.mark.parametrize("name", STUBS)
def test_torchvisions_layout(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only ``tmp_path/NAME`` has the data; a missing one is torchvision's RuntimeError."""
    import torchvision

    kind, values = STUBS[name]

    def stub(root: Path, download: bool, **_: object) -> SimpleNamespace:
        if root.name != name or download:
            raise RuntimeError("Dataset not found or corrupted.")
        return SimpleNamespace(**values)

    (tmp_path / name).mkdir()
    monkeypatch.setattr(torchvision.datasets, kind, stub)
    data = load_data(name, data_dir=tmp_path, val_fraction=0)
    assert torch.equal(data.train.images, torch.from_numpy(CHANNELS_FIRST))  # type: ignore[arg-type]
    assert data.train.labels.tolist() == list(range(10)) * 2


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "stl10", "fashion-mnist", "tiny-imagenet"])
def test_no_network_says_where_to_put_what(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.request

    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr("limbeck.data.sources.fashion_mnist._DEBIAN", tmp_path / "debian")
    wanted = f"{name} is not in '{tmp_path}/new' and .*no network.*Put .* there, or {name}-train.npz"
    with pytest.raises(DataError, match=wanted):
        load_data(name, data_dir=tmp_path / "new")
    with pytest.raises(DataError, match="downloading is switched off"):
        load_data(name, data_dir=tmp_path / "new", download=False)


def test_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_known(tmp_path, "cifar10")
    monkeypatch.setenv("LIMBECK_DATA", str(tmp_path))
    assert len(load_data("cifar10", val_fraction=0).train) == 20
    monkeypatch.delenv("LIMBECK_DATA")
    assert sources.default_data_dir() == Path.home() / ".cache" / "limbeck"


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def save_fashion(folder: Path) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = pixels(0, 20, 28, 28), (np.arange(20) % 10).astype(np.uint8)
    for stem in ("train", "t10k"):
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx(labels))
    return images


@pytest.mark.parametrize("place", ["", "fashion-mnist", "FashionMNIST/raw"])
def test_fashion_mnist_from_idx_files(tmp_path: Path, place: str) -> None:
    images = save_fashion(tmp_path / place)
    data = load_data("fashion-mnist", data_dir=tmp_path, val_fraction=0)
    assert torch.equal(data.train.images[:, 0], torch.from_numpy(images))  # type: ignore[call-overload]
    assert data.in_channels == 1
    assert data.classes[9] == "Ankle boot"


def test_damaged_idx_files(tmp_path: Path) -> None:
    save_fashion(tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    for content, sentence in ((b"\0\0\x08\x01\0\0\0\x09", "no complete idx"), (b"\0", "cannot be read")):
        labels.write_bytes(content)
        with pytest.raises(DataError, match=sentence):
            load_data("fashion-mnist", data_dir=tmp_path)
    labels.unlink()
    with pytest.raises(DataError, match="has no t10k-labels-idx1-ubyte"):
        load_data("fashion-mnist", data_dir=tmp_path)


def test_tiny_imagenet(tmp_path: Path) -> None:
    from PIL import Image

    root = tmp_path / "tiny-imagenet-200"
    lines = []
    for c, name in enumerate(("n02", "n01")):
        (root / "train" / name / "images").mkdir(parents=True)
        (root / "val" / "images").mkdir(parents=True, exist_ok=True)
        for i in range(2):
            Image.fromarray(pixels(c, 8, 8, 3)).save(root / "train" / name / "images" / f"{name}_{i}.JPEG")
        Image.fromarray(pixels(c, 8, 8, 3)).save(root / "val" / "images" / f"val_{c}.JPEG")
        lines.append(f"val_{c}.JPEG\t{name}\t0\t0\t7\t7\n")
    table = root / "val" / "val_annotations.txt"
    table.write_text("".join(lines))
    data = load_data("tiny-imagenet", data_dir=tmp_path, val_fraction=0.5)
    assert data.classes == ("n01", "n02")
    assert data.test is not None
    assert data.test.labels.tolist() == [1, 0]
    assert (len(data.train), len(data.val or ())) == (2, 2)
    table.write_text("val_0.JPEG\tn03\n")
    with pytest.raises(DataError, match=r"starts with 'val_0.JPEG' names no class"):
        load_data("tiny-imagenet", data_dir=tmp_path)


def test_folder_errors(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder(("train",), classes="ab")
    (root / "train" / "empty").mkdir()
    with pytest.raises(DataError, match="no training image: 'empty'"):
        load_data(root)
    (root / "train" / "empty").rmdir()
    (root / "val" / "bee").mkdir(parents=True)
    with pytest.raises(DataError, match="has the class 'bee', which is not among the 2 classes of train"):
        load_data(root)
    (root / "val" / "bee").rmdir()
    with pytest.raises(DataError, match=r"val' has no class folders; the layout is PATH/train/CLASS/IMAGE"):
        load_data(root)
    texts = tmp_path / "texts"
    (texts / "qrels").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no image in any of them; .* a collection for search search:PATH"):
        load_data(texts)
    (root / "train").rename(root / "trian")
    with pytest.raises(DataError, match="has 'val' but no 'train'"):
        load_data(root)


def test_folder_without_parts(make_folder: Callable[..., Path]) -> None:
    root = make_folder(("",), classes="abc", count=3)
    (root / "a" / "notes.txt").write_text("not an image")
    data = load_data(root, val_fraction=0.34)
    assert torch.bincount(data.train.labels).tolist() == [2, 2, 2]


def test_npz_with_parts(tmp_path: Path) -> None:
    arrays = {}
    for part, n in (("train", 12), ("val", 6), ("test", 4)):
        arrays |= {f"{part}_images": pixels(n, n, 5, 5), f"{part}_labels": np.arange(n, dtype=np.uint8) % 2}
    np.savez(tmp_path / "mine.npz", **arrays)
    data = load_data(tmp_path / "mine.npz")
    assert (len(data.train), len(data.val or ()), len(data.test or ())) == (12, 6, 4)
    assert data.classes == ("0", "1")
    assert data.train.labels.dtype == torch.int64


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set in the form that Hugging Face's ``datasets`` reads from a local folder."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    folder = tmp_path / "hub"
    folder.mkdir()
    features = datasets.Features(
        picture=datasets.Image(),
        fine=datasets.ClassLabel(names=["x", "y", "z"]),
        coarse=datasets.ClassLabel(names=["p", "q"]),
    )
    for part, n in (("train", 6), ("test", 3)):
        rows = {"picture": list(pixels(n, n, 8, 8, 3)), "fine": [0, 1, 2] * (n // 3), "coarse": [0, 1, 0] * (n // 3)}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{part}-00000.parquet")
    return folder


def test_hugging_face(hub: Path, tmp_path: Path) -> None:
    data = load_data(f"hf:{hub}#fine", data_dir=tmp_path / "data", val_fraction=0)
    assert data.classes == ("x", "y", "z")
    assert data.resident
    assert torch.equal(data.train.images, torch.from_numpy(pixels(6, 6, 8, 8, 3)).permute(0, 3, 1, 2))  # type: ignore[arg-type]
    assert len(data.test or ()) == 3
    again = load_data(f"hf:{hub}#coarse", data_dir=tmp_path / "data", val_fraction=0)
    assert again.train.labels.tolist() == [0, 1, 0, 0, 1, 0]
    with pytest.raises(SettingError, match="has the label columns fine, coarse; add #fine"):
        load_data(f"hf:{hub}")
    with pytest.raises(SettingError, match="unknown label column 'fin'; did you mean 'fine'"):
        load_data(f"hf:{hub}#fin")


def test_hugging_face_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be loaded"):
        load_data(f"hf:{tmp_path}/empty")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"data 'hf:some/name' needs .*limbeck\[text\]"):
        load_data("hf:some/name")


@pytest.mark.slow
def test_shared_data(shared_data: Path, tmp_path: Path) -> None:
    """The real CIFAR-100 and Imagenette, unpacked by the script beside them."""
    subprocess.run([sys.executable, shared_data / "unpack.py", tmp_path], check=True, capture_output=True)
    data = load_data("cifar100", data_dir=tmp_path)
    assert (len(data.train), len(data.val or ()), len(data.test or ())) == (45_000, 5_000, 10_000)
    assert torch.bincount(data.train.labels).tolist() == [450] * 100
    assert len(set(data.classes)) == 100
    photos = load_data(tmp_path / "imagenette128", test_limit=50)
    assert len(photos.classes) == 10
    assert not photos.resident


def test_a_users_own_file_adds_a_source(tmp_path: Path) -> None:
    from limbeck.data.sources import _registered

    file = tmp_path / "my_data.py"
    file.write_text(
        "import torch\n"
        "from limbeck.data import SourceEntry, register_source\n"
        "from limbeck.data.sources import RawData, RawSplit\n"
        "def load(request):\n"
        "    split = RawSplit(torch.zeros(8, 1, 4, 4, dtype=torch.uint8), torch.arange(8) % 2)\n"
        "    return RawData('stripes', split, None, None, ('a', 'b'))\n"
        "register_source(SourceEntry('stripes', 'two kinds of nothing', 2, '4×4', 'nothing', load))\n"
    )
    try:
        load_plugins([str(file)])
        assert "stripes" in [entry.name for entry in list_sources()]
        assert len(load_data("stripes", val_fraction=0).train) == 8
        taken = SourceEntry("digits", "", None, "", "", lambda request: None)  # type: ignore[arg-type,return-value]
        with pytest.raises(SettingError, match="'digits' is taken"):
            register_source(taken)
    finally:
        _registered.pop("stripes", None)
