"""Logits come back as they were, or as what each way to store them promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from limbeck.errors import SettingError
from limbeck.teachers._codecs import Codec, Dense, Sampled, TopK, parse_codec

seeds = st.integers(0, 2**31)


def logits(seed: int, batch: int = 3, classes: int = 11, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed))


def stored(
    codec: Codec, value: Tensor, dtype: torch.dtype = torch.float32, first: int = 0, slot: int = 0
) -> dict[str, Tensor]:
    index, slots = first + torch.arange(len(value)), torch.full((len(value),), slot)
    layout = codec.layout(tuple(value.shape[1:]), dtype)
    parts = {name: part.to(layout[name][0]) for name, part in codec.encode(value, index, slots).items()}
    assert {name: part.shape[1:] for name, part in parts.items()} == {name: kind[1] for name, kind in layout.items()}
    return parts


def decoded(codec: Codec, value: Tensor, dtype: torch.dtype = torch.float32, first: int = 0, slot: int = 0) -> Tensor:
    return codec.decode(stored(codec, value, dtype, first, slot), tuple(value.shape[1:]))


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("dense", Dense()),
        (" topk( 64 ) ", TopK(64)),
        ("topk(k=3)", TopK(3)),
        ("sampled(50)", Sampled(50)),
        ("sampled(n=5)", Sampled(5)),
    ],
)
def test_codecs_are_read_from_text(text: str, codec: Codec) -> None:
    assert parse_codec(text) == codec
    assert parse_codec(codec.text) == codec


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("topk", "topk needs a whole number of at least 1, as in topk\\(k=64\\)"),
        ("topk(0)", "topk needs a whole number of at least 1"),
        ("sampled(k=5)", "sampled needs a whole number"),
        ("topp(4)", "unknown way to store logits 'topp\\(4\\)'; did you mean 'topk"),
        ("dense(3)", "unknown way to store logits"),
        ("topk(64) + 1", "unknown way to store logits"),
    ],
)
def test_a_codec_that_does_not_exist_is_refused(text: str, reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        parse_codec(text)


@given(seeds)
def test_top_k_of_all_classes_is_exact(seed: int) -> None:
    value = logits(seed)
    for k in (11, 99):
        torch.testing.assert_close(decoded(TopK(k), value), value.log_softmax(-1), rtol=1e-5, atol=1e-6)


@given(seeds, st.integers(1, 11), st.sampled_from([torch.float16, torch.float32]))
def test_top_k_keeps_the_mass_and_the_largest(seed: int, k: int, dtype: torch.dtype) -> None:
    value = logits(seed)
    found, true = decoded(TopK(k), value, dtype).exp(), value.softmax(-1)
    torch.testing.assert_close(found.sum(-1), torch.ones(3), rtol=1e-5, atol=1e-5)
    largest, classes = true.topk(k)
    torch.testing.assert_close(found.gather(-1, classes), largest, rtol=1e-2, atol=1e-5)
    others = found.scatter(-1, classes, 0.0)
    mean_of_rest = (1 - largest.sum(-1)).clamp(min=0) / max(1, 11 - k)
    torch.testing.assert_close(others.amax(-1), mean_of_rest * (k < 11), rtol=1e-2, atol=1e-5)


def test_a_certain_teacher_leaves_nothing_for_the_rest_and_stays_finite() -> None:
    found = decoded(TopK(1), torch.tensor([[500.0, 0.0, 0.0]]))
    assert found.isfinite().all()
    torch.testing.assert_close(found.softmax(-1), torch.tensor([[1.0, 0.0, 0.0]]))


@pytest.mark.parametrize("classes", [5, 40_000])
def test_samples_have_the_teachers_probabilities_on_average(classes: int) -> None:
    value, n, repeats = logits(3, 1, classes), 64, 400
    p = value.double().softmax(-1).squeeze(0)
    many = stored(Sampled(n), value.expand(repeats, -1), first=17)["classes"].long()
    mean = torch.bincount(many.flatten(), minlength=classes) / (repeats * n)
    standard_error = (p * (1 - p) / (repeats * n)).sqrt()
    likely = p * repeats * n > 20  # where a count is near normal
    assert int(likely.sum()) >= 5
    assert ((mean - p).abs() < 5 * standard_error)[likely].all()
    # The cross-entropy with any student is unbiased, as the docstring says.
    student = logits(4, 1, classes).double().log_softmax(-1).squeeze(0)
    estimates = -student[many].mean(-1)
    assert (estimates.mean() + (p * student).sum()).abs() < 5 * estimates.std() / repeats**0.5


def test_a_sample_decodes_to_its_frequencies() -> None:
    value = logits(0)
    found, classes = decoded(Sampled(7), value), stored(Sampled(7), value)["classes"].long()
    frequencies = torch.stack([torch.bincount(row, minlength=11) / 7 for row in classes])
    torch.testing.assert_close(found.softmax(-1), frequencies)
    assert found.isfinite().all()


def test_draws_are_those_of_the_sample_and_the_slot() -> None:
    value = logits(0, 1).expand(6, -1)
    all_rows = stored(Sampled(20), value)["classes"]
    assert torch.equal(stored(Sampled(20), value[:2], first=4)["classes"], all_rows[4:])
    assert not torch.equal(stored(Sampled(20), value, slot=1)["classes"], all_rows)
    assert len(all_rows.unique(dim=0)) == 6


def test_tokens_are_coded_at_each_place() -> None:
    value = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decoded(TopK(9), value), value.log_softmax(-1))
    places = stored(Sampled(5), value[:1, :1].expand(2, 4, 9))["classes"]
    assert len(places.flatten(0, 1).unique(dim=0)) > 4


@pytest.mark.parametrize("codec", [Dense(), TopK(3), Sampled(16)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_distance_is_small_for_the_same_teacher_and_large_for_another(codec: Codec, dtype: torch.dtype) -> None:
    value, index, slots = logits(0, 64), torch.arange(64), torch.zeros(64, dtype=torch.int64)
    parts = stored(codec, value, dtype)
    noise = 1e-4 * logits(1, 64)
    assert codec.distance(value + noise, parts, index, slots).max() < 2e-3
    assert codec.distance(logits(2, 64), parts, index, slots).median() > 0.02


def test_ties_do_not_count_as_a_difference() -> None:
    value = torch.zeros(1, 11)
    value[0, 4] = 1e-6
    index = slots = torch.zeros(1, dtype=torch.int64)
    for codec in (TopK(1), Sampled(40)):
        assert codec.distance(torch.zeros(1, 11), stored(codec, value), index, slots).max() < 1e-5
