"""``folder:PATH`` or an existing folder: image files, one folder a class."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from limbeck.data.images import EXTENSIONS
from limbeck.data.sources import RawData, RawSplit, Recipe, Request, SourceEntry
from limbeck.errors import DataError, nearest

_PREFIX = "folder:"
_VAL_NAMES = ("val", "valid", "validation")
_LAYOUT = (
    "PATH/train/CLASS/IMAGE (val and test beside train, if there are) or PATH/CLASS/IMAGE. A folder of texts is named "
    "text:PATH, and a collection for search search:PATH."
)


def _match(spec: str) -> str | None:
    if spec.startswith(_PREFIX):
        return spec.removeprefix(_PREFIX)
    return spec if Path(spec).expanduser().is_dir() else None


def _load(request: Request) -> RawData:
    root = Path(request.argument).expanduser()
    if not root.is_dir():
        raise DataError(f"data: there is no folder '{root}'.")
    val_root = next((root / name for name in _VAL_NAMES if (root / name).is_dir()), None)
    test_root = root / "test" if (root / "test").is_dir() else None
    if not (root / "train").is_dir():
        if other := val_root or test_root:
            raise DataError(f"'{root}' has '{other.name}' but no 'train'; the layout is {_LAYOUT}")
        classes = _class_names(root)
        return RawData(root.resolve().name, read_split(root, classes), None, None, classes)
    classes = _class_names(root / "train")
    val = None if val_root is None else read_split(val_root, classes)
    test = None if test_root is None else read_split(test_root, classes)
    return RawData(root.resolve().name, read_split(root / "train", classes), val, test, classes)


def _class_names(root: Path) -> tuple[str, ...]:
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise DataError(f"'{root}' has no class folders; the layout is {_LAYOUT}")
    return tuple(names)


def read_split(root: Path, classes: tuple[str, ...]) -> RawSplit:
    """The image files below ``root/CLASS`` in sorted order. Raises DataError on a class that ``classes`` lacks."""
    for name in _class_names(root):
        if name not in classes:
            guess = nearest(name, classes)
            raise DataError(
                f"'{root}' has the class '{name}', which is not among the {len(classes)} classes of train"
                + (f"; did you mean '{guess}'?" if guess else ".")
            )
    groups = [image_files(root / name) for name in classes]
    if not any(groups):
        raise DataError(f"'{root}' has folders and no image in any of them; the layout is {_LAYOUT}")
    labels = torch.repeat_interleave(torch.arange(len(classes)), torch.tensor([len(group) for group in groups]))
    return RawSplit([path for group in groups for path in group], labels)


def image_files(folder: Path) -> list[str]:
    """Paths of the image files below ``folder``, by extension, sorted."""
    walk = os.walk(folder, followlinks=True)
    found = (os.path.join(base, name) for base, _, names in walk for name in names)  # noqa: PTH118 - millions of them
    return sorted(path for path in found if path.lower().endswith(EXTENSIONS))


SOURCE = SourceEntry(
    name="folder:PATH",
    what="image files, one folder a class, with or without train, val and test above; read as RGB",
    classes=None,
    size="as in the folder",
    download="nothing",
    load=_load,
    match=_match,
    recipe=Recipe(augment="flip"),
)
