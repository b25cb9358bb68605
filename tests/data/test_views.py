from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from scipy.stats import beta

from limbeck.data import Views, parse_view_sets, parse_views
from limbeck.data._randaugment import OPERATIONS, apply_operation
from limbeck.data.seeds import mix, stream
from limbeck.errors import SettingError

from .conftest import pixels

SIZED = {"size": st.just((8, 6)), "pool": st.just(7)}
views_strategy = st.builds(
    Views,
    crop=st.integers(0, 5),
    flip=st.booleans(),
    cutout=st.integers(0, 9),
    randaugment=st.integers(0, 2),
    size=st.just((8, 6)),
)
mixing_strategy = st.one_of(
    st.builds(Views, crop=st.integers(0, 2), flip=st.booleans(), mixup=st.floats(0.05, 5), **SIZED),
    st.builds(Views, crop=st.integers(0, 2), cutmix=st.floats(0.05, 5), cutout=st.integers(0, 3), **SIZED),
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


def others(channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(pixels(2, 7, channels, 8, 6))


@settings(max_examples=30, deadline=None)
@given(mixing_strategy, st.integers(0, 2**40), st.sampled_from([1, 3]))
def test_a_mixture_replays_alone_and_in_any_batch(views: Views, seed: int, channels: int) -> None:
    batch, pool = images(5, channels), others(channels)
    ids = views.draw(5, stream(seed))
    together = views.apply(batch, ids, pool)
    assert together.dtype == torch.uint8
    alone = [views.apply(batch[i : i + 1], ids[i : i + 1], pool) for i in range(5)]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(views.apply(batch, torch.zeros(5, dtype=torch.int64), pool), batch), "id 0 is the image itself"


def numbered(views: Views, share: int, other: int, place: int = 0) -> torch.Tensor:
    """The id of a view that does nothing but mix."""
    assert views.pool is not None
    return torch.tensor([share + 256 * (other + views.pool * place)])


@pytest.mark.parametrize("concentration", [0.2, 1, 4.0])
def test_mixup_is_a_sum_with_shares_of_the_beta_distribution(concentration: float) -> None:
    views, image, pool = Views(mixup=concentration, pool=7), images(1), others()
    assert views.count == 256 * 7
    shares = [1.0, *beta.ppf(1 - (torch.arange(1, 256) + 0.5).numpy() / 256, concentration, concentration)]
    for number in (0, 1, 100, 128, 255):
        got = views.apply(image, numbered(views, number, other=3), pool)[0]
        expected = shares[number] * image[0].double() + (1 - shares[number]) * pool[3].double()
        # Half a step of rounding, and shares in steps of 2⁻¹⁶.
        assert (got.double() - expected).abs().max() <= 0.5 + 255 / 2**16
    mean, second = sum(shares) / 256, sum(share * share for share in shares) / 256
    assert mean == pytest.approx(0.5, abs=0.003)
    assert second - mean**2 == pytest.approx(beta.var(concentration, concentration), rel=0.03)


def test_cutmix_is_a_box_of_the_other_image() -> None:
    views, image, pool = Views(cutmix=1, size=(8, 6), pool=7), images(1), others()
    assert views.count == 256 * 7 * 48
    for number, place in ((0, 20), (64, 20), (128, 0), (255, 27)):
        share = 1.0 if number == 0 else 1 - (number + 0.5) / 256
        y, x = divmod(place, 6)
        half = [int(length * math.sqrt(1 - share)) // 2 for length in (8, 6)]
        expected = image[0].clone()
        top, left = max(0, y - half[0]), max(0, x - half[1])
        expected[:, top : y + half[0], left : x + half[1]] = pool[2][:, top : y + half[0], left : x + half[1]]
        got = views.apply(image, numbered(views, number, 2, place), pool)[0]
        assert torch.equal(got, expected)


def test_every_other_image_is_mixed_in_equally_often() -> None:
    views, pool = Views(flip=True, mixup=1, pool=7), torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1)
    ids = views.draw(7000, stream(3))
    partner = ids // (2 * 256) % 7
    assert (torch.bincount(partner, minlength=7) - 1000).abs().max() < 150
    blank = torch.zeros(7000, 1, 1, 1, dtype=torch.uint8)
    assert (views.apply(blank, ids, pool).flatten() <= partner).all()


def test_both_images_of_a_mixture_are_cropped_and_flipped_alike() -> None:
    plain, mixing = Views(crop=1, flip=True), Views(crop=1, flip=True, mixup=1, pool=7)
    image, pool = images(1), others()
    for number in range(plain.count):
        # The 128th share is within 2/256 of one half.
        got = mixing.apply(image, torch.tensor([number + plain.count * (128 + 256 * 4)]), pool)
        two = torch.cat([image, pool[4:5]])
        varied = plain.apply(two, torch.tensor([number, number])).double().mean(0)
        assert (got[0].double() - varied).abs().max() < 2


def test_mixtures_are_written_and_read_again() -> None:
    for text in ("crop=4,flip,mixup=0.2", "cutmix=1", "cutout=8,randaugment=2,cutmix=0.5"):
        assert str(parse_views(text)) == text
        assert parse_views(text).mixes
    assert parse_views("mixup=0") == Views()
    assert not Views(crop=4, cutout=8).mixes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mixup=x", "mixup needs a number, as in mixup=0.2; got 'x'"),
        ("cutmix", "cutmix needs a number"),
        ("mixup=-1", "mixup must be a finite number of at least 0"),
        ("mixup=inf", "mixup must be a finite number"),
        ("mixup=0.2,cutmix=1", "give mixup or cutmix, or each in a view of its own"),
        ("mixpu=0.2", "did you mean 'mixup'"),
    ],
)
def test_mixtures_that_cannot_be_are_refused(text: str, reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        parse_views(text)


def test_mixtures_need_to_know_the_images_to_mix_with() -> None:
    with pytest.raises(SettingError, match=r"call with_pool\(N\) first"):
        Views(mixup=1).count  # noqa: B018
    with pytest.raises(SettingError, match=r"cutmix needs the image size .* call with_size"):
        Views(cutmix=1, pool=7).count  # noqa: B018
    views = Views(mixup=1).with_pool(7)
    for given_others in (None, others()[:5]):
        with pytest.raises(SettingError, match="mix each image with one of 7 others, and they were not given"):
            views.apply(images(1), torch.tensor([1]), given_others)
