"""Where data sets come from. One file here is one source: its ``SOURCE`` is found by being in this folder.

Other packages add theirs through the entry-point group ``limbeck.data``; each entry names a ``SourceEntry``.
"""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

from torch import Tensor

from limbeck.errors import DataError, SettingError, unknown_name

logger = logging.getLogger("limbeck")


@dataclass(frozen=True)
class Recipe:
    """How a data set is usually trained on, where the user does not say: epochs, and views as in ``parse_views``."""

    epochs: int = 100
    augment: str = "crop=4,flip"


@dataclass(frozen=True)
class RawSplit:
    """A split as its source gives it.

    images: uint8 (N, C, H, W), or the paths of N image files.
    labels: (N,) integer.
    index: (N,) int64 position in the source's own list; None for 0…N−1.
    """

    images: Tensor | list[str]
    labels: Tensor
    index: Tensor | None = None


@dataclass(frozen=True)
class RawData:
    """What a source returns: its splits (None where it has none) and the class names in the order of the labels."""

    name: str
    train: RawSplit
    val: RawSplit | None
    test: RawSplit | None
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """What a source is asked for: the part of the data setting that is its own, and where files may lie."""

    argument: str
    data_dir: Path
    download: bool


def _no_argument(spec: str) -> str | None:
    return None


@dataclass(frozen=True)
class SourceEntry:
    """A source: what ``limbeck list data`` shows of it, and how it is read.

    name: what users write. what: one line. classes: their number, None when the data decides.
    size: of the images, and how many. download: what is fetched on first use. load: reads it.
    match: for families such as ``hf:NAME``, the source's own part of a setting, or None when the setting is not for it.
    mean, std: published constants, one a channel in [0, 1] units; None to compute them.
    recipe: how it is usually trained on.
    """

    name: str
    what: str
    classes: int | None
    size: str
    download: str
    load: Callable[[Request], RawData]
    match: Callable[[str], str | None] = _no_argument
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    recipe: Recipe = field(default_factory=Recipe)


_registered: dict[str, SourceEntry] = {}


def register_source(entry: SourceEntry) -> SourceEntry:
    """Make a source known in this process, as a user's own file does that ``--plugins`` names.

    Raises SettingError when another source has its name.
    """
    if any(entry.name == other.name for other in list_sources() if other is not _registered.get(entry.name)):
        raise SettingError(f"the data source name '{entry.name}' is taken.")
    _registered[entry.name] = entry
    return entry


def default_data_dir() -> Path:
    """``$LIMBECK_DATA``, or ``~/.cache/limbeck``."""
    return Path(os.environ.get("LIMBECK_DATA") or "~/.cache/limbeck").expanduser()


def list_sources() -> list[SourceEntry]:
    """All sources, sorted by name: those of limbeck, then those of other packages that do not take one of its names."""
    modules = (module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    own = [importlib.import_module(f"{__name__}.{module}").SOURCE for module in modules]
    found: dict[str, SourceEntry] = {entry.name: entry for entry in own}
    for point in entry_points(group="limbeck.data"):
        try:
            entry = point.load()
        except Exception as error:  # a broken plug-in must not take the other sources with it
            logger.warning("the data source '%s' of another package cannot be loaded: %s", point.name, error)
            continue
        if not isinstance(entry, SourceEntry) or entry.name in found:
            logger.warning("the data source '%s' is left out: not a SourceEntry, or its name is taken.", point.name)
            continue
        found[entry.name] = entry
    found |= _registered
    return sorted(found.values(), key=lambda entry: entry.name)


def find_source(spec: str) -> tuple[SourceEntry, str]:
    """The source a data setting means, and its own part of the setting. Raises SettingError or DataError."""
    entries = list_sources()
    for entry in entries:
        if entry.name == spec:
            return entry, spec
    for entry in entries:
        argument = entry.match(spec)
        if argument is not None:
            return entry, argument
    if "/" in spec or os.sep in spec:
        raise DataError(f"data: there is no folder '{spec}'.")
    names = [entry.name for entry in entries]
    raise SettingError(f"data: {unknown_name('data set', spec, names, 'An existing folder works too.')}")
