"""Augmentation with a number: the same view id makes the same pixels of an image again.

A view is one variant of each augmentation, and its id is the mixed-radix number of these choices. So a teacher's answer
can be stored under (image, view), and a resumed run needs no random state to see what it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.data._randaugment import OPERATIONS, apply_operation
from limbeck.errors import SettingError, is_finite, unknown_name

_LEVELS = 10
# Levels spread evenly up to this part of torchvision's ranges: their mean is the 9 of 30 that RandAugment starts from.
_STRONGEST = 0.6
_MOST_OPERATIONS = 4
# Shares of the first image in a mixture, and the whole in whole numbers: the same pixels on every device.
_SHARES = 256
_WHOLE = 2**16


@dataclass(frozen=True)
class Views:
    """A finite set of augmentations of images of one size; id 0 is always the unchanged image.

    crop: pad so many black pixels on each side and cut the image's own size at one of (2·crop + 1)² places.
    flip: the image, or its mirror image from left to right.
    cutout: none, or a black square of this side, cut off at the border, with its centre at one of the H·W pixels.
    randaugment: so many operations (0 to 4) one after another, each of 14, with one of 10 strengths and a sign.
    mixup: a > 0, the image times λ plus another times 1 - λ, with λ of Beta(a, a): 256 values at its evenly spread
        quantiles, the greatest of which is made 1. 0 for none.
    cutmix: a > 0, the image with a box of another, whose sides are those of the image times √(1 - λ), cut off at the border,
        with its centre at one of the H·W pixels; λ as for mixup. 0 for none. One of the two at most.
    size: (H, W), needed by ``cutout`` and ``cutmix`` to count their places; ``with_size`` sets it.
    pool: the number of images among which the other one of a mixture is, each equally likely; ``with_pool`` sets it.

    Applied in the order crop, flip, randaugment, cutout, and last the mixture with another image to which all that was done
    in the same way. Its label is that of the first image, which is not the mixture's: losses that read labels refuse it.
    Black is 0 before normalisation, as torchvision's RandomCrop has it. Raises SettingError for a setting out of range.

    >>> Views(crop=4, flip=True).count
    162
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0
    randaugment: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    size: tuple[int, int] | None = None
    pool: int | None = None

    def __post_init__(self) -> None:
        for name in ("crop", "cutout", "randaugment"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise SettingError(f"views: {name} must be a whole number of at least 0, got {value!r}.")
        if type(self.flip) is not bool:
            raise SettingError(f"views: flip must be True or False, got {self.flip!r}.")
        if self.randaugment > _MOST_OPERATIONS:
            raise SettingError(f"views: randaugment must be at most {_MOST_OPERATIONS}, got {self.randaugment}.")
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not is_finite(value) or value < 0:
                raise SettingError(f"views: {name} must be a finite number of at least 0, got {value!r}.")
        if self.mixup and self.cutmix:
            raise SettingError(
                "views: an image is mixed with one other: give mixup or cutmix, or each in a view of its own."
            )

    def __str__(self) -> str:
        values = {name: getattr(self, name) for name in _NAMES}
        parts = [name if value is True else f"{name}={value:g}" for name, value in values.items() if value]
        return ",".join(parts) or "none"

    @property
    def mixes(self) -> bool:
        """Whether an image is mixed with another one, so that its label is not the view's."""
        return self.mixup > 0 or self.cutmix > 0

    def with_size(self, height: int, width: int) -> Views:
        """The same views for images of (height, width)."""
        return replace(self, size=(height, width))

    def with_pool(self, images: int) -> Views:
        """The same views, where an image is mixed with one of so many."""
        return replace(self, pool=images)

    @property
    def identity(self) -> int:
        """The id of the unchanged image: 0."""
        return 0

    @property
    def count(self) -> int:
        """The number of views; ids are 0 … count − 1. Raises SettingError when size or pool is needed and not set."""
        product = 1
        for radix in self._radices():
            product *= radix
        if product >= 2**63:
            raise SettingError(
                f"views '{self}' for images of {self.size} are {product} in number, more than an id can hold."
            )
        return product

    def _radices(self) -> tuple[int, ...]:
        operations = (len(OPERATIONS), _LEVELS, 2) * self.randaugment
        cutout = 1 + (self._places("cutout") if self.cutout else 0)
        return ((2 * self.crop + 1) ** 2, 1 + self.flip, cutout, *operations, *self._mixtures())

    def _mixtures(self) -> tuple[int, ...]:
        if not self.mixes:
            return ()
        if self.pool is None:
            raise SettingError("views: a mixture needs the number of images to mix with; call with_pool(N) first.")
        return (_SHARES, self.pool, self._places("cutmix") if self.cutmix else 1)

    def _places(self, name: str) -> int:
        if self.size is None:
            raise SettingError(f"views: {name} needs the image size to count its places; call with_size(H, W) first.")
        return self.size[0] * self.size[1]

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` ids, int64 (n,), each view equally likely, on the generator's device."""
        return torch.randint(self.count, (n,), generator=generator, device=generator.device)

    def apply(self, images: Tensor, ids: Tensor, others: Tensor | None = None) -> Tensor:
        """The view ``ids[i]`` of image i.

        images: uint8 (B, C, H, W). ids: int64 (B,) in [0, count). others: uint8 (pool, C, H, W) on the same device, the
        images to mix with, where the views mix. Returns uint8 (B, C, H, W) on the images' device. Waits for the device only
        for randaugment. Raises SettingError when shapes or dtypes do not fit.
        """
        self._check(images, ids)
        digits = self._digits(ids.to(images.device, non_blocking=True))
        if not self.mixes:
            return self._vary(images, digits)
        if others is None or len(others) != self.pool:
            raise SettingError(
                f"views '{self}' mix each image with one of {self.pool} others, and they were not given."
            )
        *digits, share, other, place = digits
        mixed = self._vary(images, digits), self._vary(others.index_select(0, other), digits)
        return _mix_up(*mixed, share, self.mixup) if self.mixup else _cut_mix(*mixed, share, place, self.cutmix)

    def _vary(self, images: Tensor, digits: Sequence[Tensor]) -> Tensor:
        crop, flip, cutout, *rest = digits
        if self.crop or self.flip:
            images = _crop_and_flip(images, self.crop, crop, flip)
        for operation, level, sign in zip(rest[0::3], rest[1::3], rest[2::3], strict=True):
            strength = level * (_STRONGEST / (_LEVELS - 1)) * (1 - 2 * sign)
            images = apply_operation(images, operation, strength)
        return _cut_out(images, self.cutout, cutout) if self.cutout else images

    def _check(self, images: Tensor, ids: Tensor) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise SettingError(f"views need uint8 images (B, C, H, W), got {images.dtype} {tuple(images.shape)}.")
        if ids.dtype != torch.int64 or ids.shape != (len(images),):
            raise SettingError(f"views need int64 ids ({len(images)},), got {ids.dtype} {tuple(ids.shape)}.")
        if self.size is not None and tuple(images.shape[-2:]) != self.size:
            raise SettingError(f"views are for images of {self.size}, got {tuple(images.shape[-2:])} (H, W).")
        if self.randaugment and images.shape[1] not in (1, 3):
            raise SettingError(f"views: randaugment needs images of 1 or 3 channels, got {images.shape[1]}.")

    def _digits(self, ids: Tensor) -> list[Tensor]:
        digits = []
        for radix in self._radices():
            digits.append(ids % radix)
            ids = ids // radix
        return digits


_NAMES = tuple(field.name for field in fields(Views) if field.name not in ("size", "pool"))


def _crop_and_flip(images: Tensor, pad: int, crop: Tensor, flip: Tensor) -> Tensor:
    """Place 0 is the centre; the others follow in rows and come around. One gather over flat planes serves both."""
    batch, channels, height, width = images.shape
    side, wide = 2 * pad + 1, width + 2 * pad
    place = (crop + pad * side + pad) % side**2
    rows = (place // side).view(-1, 1) + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(batch, width)
    columns = torch.where(flip.view(-1, 1) == 1, width - 1 - columns, columns) + (place % side).view(-1, 1)
    source = (rows.view(batch, height, 1) * wide + columns.view(batch, 1, width)).view(batch, 1, height * width)
    padded = F.pad(images, (pad, pad, pad, pad)).view(batch, channels, -1)
    return padded.gather(2, source.expand(-1, channels, -1)).view(batch, channels, height, width)


def _cut_out(images: Tensor, side: int, place: Tensor) -> Tensor:
    """Place 0 is none; place 1 + y·W + x is the square around (y, x)."""
    height, width = images.shape[-2:]
    centre = (place - 1).clamp(min=0).view(-1, 1)
    down = torch.arange(height, device=images.device) - centre // width + side // 2
    right = torch.arange(width, device=images.device) - centre % width + side // 2
    inside_rows = (down >= 0) & (down < side) & (place > 0).view(-1, 1)
    inside = inside_rows.unsqueeze(2) & ((right >= 0) & (right < side)).unsqueeze(1)
    return images.masked_fill(inside.unsqueeze(1), 0)


@cache
def beta_shares(concentration: float, device: torch.device) -> Tensor:
    """(256,) float64 quantiles of Beta(a, a), from the greatest, which is made 1."""
    from scipy.special import betaincinv

    levels = (torch.arange(_SHARES, dtype=torch.float64) + 0.5) / _SHARES
    shares = torch.as_tensor(betaincinv(concentration, concentration, 1 - levels.numpy()))
    shares[0] = 1.0
    return shares.to(device)


def _mix_up(images: Tensor, others: Tensor, share: Tensor, concentration: float) -> Tensor:
    parts = (beta_shares(concentration, images.device) * _WHOLE).round().to(torch.int32)[share].view(-1, 1, 1, 1)
    return ((images * parts + others * (_WHOLE - parts) + _WHOLE // 2) // _WHOLE).to(torch.uint8)


def _cut_mix(images: Tensor, others: Tensor, share: Tensor, place: Tensor, concentration: float) -> Tensor:
    """Place y·W + x is the box around (y, x)."""
    height, width = images.shape[-2:]
    side = (1 - beta_shares(concentration, images.device)).sqrt()[share].view(-1, 1)
    inside = []
    for length, centre in ((height, place // width), (width, place % width)):
        half = (side * length).to(torch.int64) // 2
        away = torch.arange(length, device=images.device) - centre.view(-1, 1)
        inside.append((away >= -half) & (away < half))
    box = inside[0].unsqueeze(2) & inside[1].unsqueeze(1)
    return torch.where(box.unsqueeze(1), others, images)


def parse_views(text: str) -> Views:
    """Views from text such as ``"crop=4,flip,cutout=8"``; ``"none"`` or nothing is the unchanged image.

    Raises SettingError on an unknown name, a name given twice or a value that is no number, or no whole one where one must be.

    >>> str(parse_views("crop=4, flip, mixup=0.2"))
    'crop=4,flip,mixup=0.2'
    """
    names = list(_NAMES)
    if text.strip() in ("", "none"):
        return Views()
    settings: dict[str, float | bool] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in names:
            raise SettingError(f"views {text!r}: {unknown_name('augmentation', name, names, 'Or none, alone.')}")
        if name in settings:
            raise SettingError(f"views {text!r}: {name} is given twice.")
        settings[name] = _READERS.get(name, _whole)(text, name, value, equals)
    return Views(**settings)  # type: ignore[arg-type]  # each reader gives its field's type


def parse_view_sets(text: str) -> tuple[Views, ...]:
    """Views from text with ``|`` between them: each sample is seen in one view of each, side by side in a batch.

    >>> [str(views) for views in parse_view_sets("crop=4,flip | crop=4,flip,randaugment=2")]
    ['crop=4,flip', 'crop=4,flip,randaugment=2']
    """
    return tuple(parse_views(part) for part in text.split("|"))


def _flag(text: str, name: str, value: str, equals: str) -> bool:
    accepted = {"true": True, "1": True, "false": False, "0": False}
    if not equals:
        return True
    if value.lower() not in accepted:
        raise SettingError(f"views {text!r}: {name} stands alone, or is true or false; got {value!r}.")
    return accepted[value.lower()]


def _whole(text: str, name: str, value: str, equals: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise SettingError(f"views {text!r}: {name} needs a whole number, as in {name}=2; got {value!r}.")
    return int(value)


def _number(text: str, name: str, value: str, equals: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise SettingError(f"views {text!r}: {name} needs a number, as in {name}=0.2; got {value!r}.") from None


_READERS: dict[str, Callable[[str, str, str, str], float | bool]] = {"flip": _flag, "mixup": _number, "cutmix": _number}
