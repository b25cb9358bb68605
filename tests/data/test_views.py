from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from limbeck.data import Views, parse_view_sets, parse_views
from limbeck.data._randaugment import OPERATIONS, apply_operation
from limbeck.data.seeds import mix, stream
from limbeck.errors import SettingError

from .conftest import pixels

views_strategy = st.builds(
    Views,
    crop=st.integers(0, 5),
    flip=st.booleans(),
    cutout=st.integers(0, 9),
    randaugment=st.integers(0, 2),
    size=st.just((8, 6)),
)


def images(n: int, channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(pixels(1, n, channels, 8, 6))


def test_counts() -> None:
    assert Views().count == 1
    assert Views(crop=4, flip=True).count == 162
    assert Views(cutout=3, size=(8, 6)).count == 49
    assert Views(randaugment=2).count == 280**2


@settings(deadline=None)
@given(views_strategy)
def test_digits_are_a_bijection(views: Views) -> None:
    ids = torch.arange(views.count) if views.count < 5000 else views.draw(500, stream(0))
    digits, radices = views._digits(ids), views._radices()
    back = torch.zeros_like(ids)
    for digit, radix in reversed(list(zip(digits, radices, strict=True))):
        assert ((digit >= 0) & (digit < radix)).all()
        back = back * radix + digit
    assert torch.equal(back, ids)


@settings(max_examples=30, deadline=None)
@given(views_strategy, st.integers(0, 2**40), st.sampled_from([1, 3]))
def test_a_view_replays_alone_and_in_any_batch(views: Views, seed: int, channels: int) -> None:
    batch = images(5, channels)
    ids = views.draw(5, stream(seed))
    assert ids.dtype == torch.int64
    assert ((ids >= 0) & (ids < views.count)).all()
    together = views.apply(batch, ids)
    assert together.dtype == torch.uint8
    assert together.shape == batch.shape
    alone = [views.apply(batch[i : i + 1], ids[i : i + 1]) for i in range(5)]
    assert torch.equal(together, torch.cat(alone))


@given(views_strategy)
@settings(max_examples=20, deadline=None)
def test_identity(views: Views) -> None:
    batch = images(3)
    assert views.identity == 0
    assert torch.equal(views.apply(batch, torch.zeros(3, dtype=torch.int64)), batch)


def test_crop_and_flip_are_torchvisions() -> None:
    from torchvision.transforms.v2 import functional as F

    views, image = Views(crop=2, flip=True), images(1)[0]
    expected = set()
    for top in range(5):
        for left in range(5):
            cut = F.crop(F.pad(image, [2, 2, 2, 2]), top, left, 8, 6)
            expected |= {cut.numpy().tobytes(), F.horizontal_flip(cut).numpy().tobytes()}
    got = views.apply(image.expand(50, -1, -1, -1), torch.arange(50))
    assert {row.numpy().tobytes() for row in got} == expected
    assert len(expected) == 50


def test_crop_order_is_documented() -> None:
    """Place 0 is the centre, and the next one to the right of it."""
    image = images(1)
    assert torch.equal(Views(crop=2).apply(image, torch.tensor([1]))[0, :, :, :-1], image[0, :, :, 1:])
    assert torch.equal(Views(flip=True).apply(image, torch.tensor([1])), image.flip(-1))


def test_cutout_against_a_loop() -> None:
    views = Views(cutout=3, size=(8, 6))
    white = torch.full((48, 1, 8, 6), 255, dtype=torch.uint8)
    got = views.apply(white, torch.arange(1, 49))
    for place in range(48):
        y, x = divmod(place, 6)
        expected = torch.full((1, 8, 6), 255, dtype=torch.uint8)
        expected[:, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = 0
        assert torch.equal(got[place], expected)


@pytest.mark.parametrize("number", range(len(OPERATIONS)))
def test_operations_at_strength_zero_and_one(number: int) -> None:
    batch = torch.from_numpy(pixels(2, 4, 3, 16, 16)) // 2 + 40
    choice = torch.full((4,), number)
    still = apply_operation(batch, choice, torch.zeros(4))
    moved = apply_operation(batch, choice, torch.ones(4))
    assert moved.dtype == torch.uint8
    without_strength = OPERATIONS[number].__name__ in ("_autocontrast", "_equalize")
    assert torch.equal(still, batch) != without_strength
    assert torch.equal(moved, batch) == (number == 0)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("_brightness", lambda F, x: F.adjust_brightness(x, 1.9)),
        ("_colour", lambda F, x: F.adjust_saturation(x, 1.9)),
        ("_contrast", lambda F, x: F.adjust_contrast(x, 1.9)),
        ("_sharpness", lambda F, x: F.adjust_sharpness(x, 1.9)),
        ("_posterize", lambda F, x: F.posterize(x, 4)),
        ("_solarize", lambda F, x: F.solarize(x, 0.0)),
        ("_rotate", lambda F, x: F.rotate(x, 30.0)),
        ("_translate_x", lambda F, x: F.affine(x, angle=0.0, translate=[-7, 0], scale=1.0, shear=[0.0, 0.0])),
        ("_translate_y", lambda F, x: F.affine(x, angle=0.0, translate=[0, -7], scale=1.0, shear=[0.0, 0.0])),
    ],
)
def test_operations_are_torchvisions(name: str, theirs) -> None:  # type: ignore[no-untyped-def]
    from torchvision.transforms.v2 import functional as F

    operation = next(operation for operation in OPERATIONS if operation.__name__ == name)
    batch = torch.from_numpy(pixels(3, 2, 3, 16, 16))
    ours = operation(batch, torch.ones(2))
    error = (ours.int() - theirs(F, batch).int()).abs()
    assert (error <= 2).float().mean() > 0.95


def test_draw_needs_only_its_generator() -> None:
    before = torch.get_rng_state()
    views = Views(crop=4, flip=True)
    assert torch.equal(views.draw(9, stream(1, 2)), views.draw(9, stream(1, 2)))
    assert not torch.equal(views.draw(9, stream(1, 2)), views.draw(9, stream(2, 1)))
    assert torch.equal(before, torch.get_rng_state())


@settings(deadline=None)
@given(views_strategy)
def test_text_round_trip(views: Views) -> None:
    assert parse_views(str(views)) == Views(views.crop, views.flip, views.cutout, views.randaugment)


def test_parse() -> None:
    assert parse_views(" crop = 4, flip , cutout=8") == Views(crop=4, flip=True, cutout=8)
    assert parse_views("none") == parse_views("") == Views()
    assert parse_views("flip=false,crop=1") == Views(crop=1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("crp=4", "unknown augmentation 'crp'; did you mean 'crop'"),
        ("crop", "crop needs a whole number"),
        ("crop=-1", "crop needs a whole number"),
        ("crop=two", "crop needs a whole number"),
        ("crop=1,crop=2", "crop is given twice"),
        ("flip=maybe", "true or false; got 'maybe'"),
        ("flip=", "true or false"),
        ("crop=1,", "unknown augmentation ''"),
        ("none,flip", "Or none, alone"),
        ("randaugment=5", "at most 4, got 5"),
    ],
)
def test_parse_errors(text: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        parse_views(text)


def test_setting_errors() -> None:
    with pytest.raises(SettingError, match="crop must be a whole number"):
        Views(crop=1.5)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="flip must be True or False"):
        Views(flip=1)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="cutout needs the image size"):
        Views(cutout=2).count  # noqa: B018
    with pytest.raises(SettingError, match="more than an id can hold"):
        Views(crop=2000, cutout=1, randaugment=4, size=(500, 500)).count  # noqa: B018


@pytest.mark.parametrize(
    ("batch", "ids", "sentence"),
    [
        (images(2).float(), torch.zeros(2, dtype=torch.int64), "uint8 images"),
        (images(2)[0], torch.zeros(2, dtype=torch.int64), "uint8 images"),
        (images(2), torch.zeros(3, dtype=torch.int64), r"int64 ids \(2,\)"),
        (images(2), torch.zeros(2), r"int64 ids \(2,\)"),
        (images(2)[..., :4], torch.zeros(2, dtype=torch.int64), r"images of \(8, 6\), got \(8, 4\)"),
        (images(2, 2), torch.zeros(2, dtype=torch.int64), "1 or 3 channels, got 2"),
    ],
)
def test_apply_errors(batch: torch.Tensor, ids: torch.Tensor, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        Views(crop=1, randaugment=1, size=(8, 6)).apply(batch, ids)


def test_mix_separates_near_inputs() -> None:
    values = {mix(a, b) for a in range(50) for b in range(50)} | {mix(7), mix(7, 0, 0), mix(-1)}
    assert len(values) == 2503
    assert all(0 <= value < 2**63 for value in values)


def test_nothing_waits_for_the_device() -> None:
    """On the meta device there are no values, so that reading one on the host fails."""
    views = Views(crop=4, flip=True, cutout=3, size=(8, 6))
    out = views.apply(images(4).to("meta"), torch.zeros(4, dtype=torch.int64, device="meta"))
    assert out.shape == (4, 3, 8, 6)


def test_sets_of_views_stand_between_bars() -> None:
    assert parse_view_sets(" crop=4, flip | none|randaugment=2") == (
        Views(crop=4, flip=True),
        Views(),
        Views(randaugment=2),
    )
    assert parse_view_sets("crop=1") == (Views(crop=1),)
    assert parse_view_sets("none") == parse_view_sets("") == (Views(),)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("crop=4|crp=4", "views 'crp=4': unknown augmentation 'crp'; did you mean 'crop'"),
        ("flip|crop=-1", "views 'crop=-1': crop needs a whole number"),
        ("randaugment=5|flip", "at most 4, got 5"),
    ],
)
def test_errors_name_the_set(text: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        parse_view_sets(text)
