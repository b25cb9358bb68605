"""Long tails and wrong labels: exact counts, nothing else touched, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from limbeck.data import ImageData, ImageSplit, load_data, long_tail, wrong_labels
from limbeck.errors import DataError, SettingError
from limbeck.fingerprint import of_split

from .conftest import pixels

_SIZES = st.lists(st.integers(1, 40), min_size=2, max_size=7)
_SEEDS = st.integers(0, 9)


def labels_of(sizes: list[int], seed: int = 0) -> torch.Tensor:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


@given(_SIZES, st.floats(1, 1e4), _SEEDS)
def test_a_tail_falls_exponentially(sizes: list[int], imbalance: float, seed: int) -> None:
    labels, classes = labels_of(sizes, seed), len(sizes)
    kept = long_tail(labels, classes, imbalance, seed)
    assert torch.equal(kept, kept.unique())
    assert torch.equal(kept, long_tail(labels, classes, imbalance, seed))
    found = torch.bincount(labels[kept], minlength=classes).tolist()
    if imbalance == 1:
        assert found == sizes
        return
    assert min(found) >= 1
    assert found == sorted(found, reverse=True)
    for c, count in enumerate(found):
        assert abs(count - max(1, found[0] * imbalance ** (-c / (classes - 1)))) <= 1
    # One more of the first class would ask for more than some class has.
    larger = [(found[0] + 1) * imbalance ** (-c / (classes - 1)) for c in range(classes)]
    assert any(more > size - 1e-6 for more, size in zip(larger, sizes, strict=True))


@pytest.mark.parametrize(
    ("classes", "each", "imbalance", "total"),
    [(10, 5000, 100, 12406), (10, 5000, 10, 20431), (100, 500, 100, 10847), (100, 500, 50, 12608)],
)
def test_tails_of_cifar_are_as_large_as_the_published_ones(classes: int, each: int, imbalance: int, total: int) -> None:
    labels = torch.arange(classes).repeat(each)
    kept = long_tail(labels, classes, imbalance, 0)
    found = torch.bincount(labels[kept])
    assert (len(kept), int(found[0]), int(found[-1])) == (total, each, each // imbalance)


def test_a_tail_depends_on_the_seed() -> None:
    labels = labels_of([30, 30, 30])
    assert not torch.equal(long_tail(labels, 3, 5, 0), long_tail(labels, 3, 5, 1))


@given(_SIZES, st.floats(0, 0.999), _SEEDS)
def test_so_many_labels_are_wrong_as_was_asked_for(sizes: list[int], share: float, seed: int) -> None:
    labels, classes = labels_of(sizes, seed), len(sizes)
    before = labels.clone()
    noisy = wrong_labels(labels, classes, share, seed)
    assert torch.equal(labels, before)
    assert noisy.dtype == torch.int64
    assert int(noisy.min()) >= 0
    assert int(noisy.max()) < classes
    wrong = noisy != labels
    assert int(wrong.sum()) == round(share * len(labels))
    for c, size in enumerate(sizes):
        assert abs(int((wrong & (labels == c)).sum()) - share * size) <= 1.5
    assert torch.equal(noisy, wrong_labels(labels, classes, share, seed))


def test_a_wrong_label_is_any_other_class_as_likely() -> None:
    labels = torch.arange(5).repeat(4000)
    noisy = wrong_labels(labels, 5, 0.5, 3)
    for c in range(5):
        found = torch.bincount(noisy[(labels == c) & (noisy != labels)], minlength=5).tolist()
        assert found[c] == 0
        assert sum(found) == 2000
        # 500 of each, within five standard deviations of a binomial draw.
        assert all(abs(found[other] - 500) < 100 for other in range(5) if other != c)
    assert not torch.equal(noisy, wrong_labels(labels, 5, 0.5, 4))


def test_what_no_tail_and_no_noise_can_be_made_of_is_said() -> None:
    with pytest.raises(DataError, match="class 1 has none"):
        long_tail(torch.tensor([0, 2, 2]), 3, 2, 0)
    with pytest.raises(SettingError, match="at least two classes, got 1"):
        wrong_labels(torch.zeros(4, dtype=torch.int64), 1, 0.5, 0)


def positions_in(split: ImageSplit, part: ImageSplit) -> torch.Tensor:
    return torch.searchsorted(split.index, part.index)


def check_only_train_differs(clean: ImageData, other: ImageData) -> torch.Tensor:
    """Which training labels differ, where the images of ``other`` are some of ``clean``, in their order."""
    rows = positions_in(clean.train, other.train)
    assert torch.equal(clean.train.index[rows], other.train.index)
    assert torch.equal(clean.train.images[rows], other.train.images)  # type: ignore[index,arg-type]
    for one, two in ((clean.val, other.val), (clean.test, other.test)):
        assert one is not None
        assert two is not None
        assert of_split(one) == of_split(two)
    assert (clean.mean, clean.std, clean.classes) == (other.mean, other.std, other.classes)
    return clean.train.labels[rows] != other.train.labels


def test_both_touch_training_alone() -> None:
    clean = load_data("digits")
    noisy, tailed = load_data("digits", label_noise=0.2), load_data("digits", imbalance=10)
    assert int(check_only_train_differs(clean, noisy).sum()) == 160
    assert torch.equal(noisy.train.index, clean.train.index)
    assert int(check_only_train_differs(clean, tailed).sum()) == 0
    sizes = torch.bincount(tailed.train.labels).tolist()
    assert sizes[-1] == sizes[0] // 10
    assert (clean.damage, noisy.damage) == ((), ("20 % of the training labels are wrong",))
    assert tailed.damage == (f"training classes from {sizes[0]} to {sizes[-1]} images",)


def test_both_and_a_limit() -> None:
    clean, tailed = load_data("digits"), load_data("digits", imbalance=10)
    both = load_data("digits", imbalance=10, label_noise=0.25, train_limit=100)
    assert len(both.train) == 100
    assert int(check_only_train_differs(clean, both).sum()) == 25
    assert torch.isin(both.train.index, tailed.train.index).all()
    true = clean.train.labels[positions_in(clean.train, both.train)]
    quota = torch.bincount(tailed.train.labels) * 100 / len(tailed.train)
    assert (torch.bincount(true) - quota).abs().max() <= 1
    assert len(both.damage) == 2
    # The draws do not depend on each other: less noise on the same tail leaves the same images.
    assert torch.equal(load_data("digits", imbalance=10, train_limit=100).train.index, both.train.index)


def test_the_split_seed_draws_them() -> None:
    wanted = {"label_noise": 0.3, "imbalance": 4.0}
    one, again, other = (load_data("digits", split_seed=seed, **wanted) for seed in (0, 0, 1))  # type: ignore[arg-type]
    assert of_split(one.train) == of_split(again.train)
    assert not torch.equal(one.train.index, other.train.index)


def test_fingerprints_tell_them_apart() -> None:
    """A teacher cache is known by the digest of its split."""
    wanted = [{}, {"label_noise": 0.1}, {"label_noise": 0.2}, {"imbalance": 2.0}, {"imbalance": 3.0}]
    found = [load_data("digits", **each) for each in wanted]  # type: ignore[arg-type]
    assert len({data.fingerprint() for data in found}) == len(wanted)
    assert len({of_split(data.train) for data in found}) == len(wanted)
    assert load_data("digits", label_noise=0.0, imbalance=1.0).fingerprint() == found[0].fingerprint()


def test_a_set_that_was_unbalanced_before_has_the_ratio_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "pictures.npz"
    np.savez(path, images=pixels(0, 78, 4, 4), labels=np.repeat([0, 1, 2], [8, 40, 30]))
    train = load_data(path, val_fraction=0, imbalance=4).train
    assert torch.bincount(train.labels).tolist() == [8, 4, 2]


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"label_noise": 1}, "label_noise must be less than 1, got 1"),
        ({"label_noise": -0.1}, "label_noise must be at least 0"),
        ({"label_noise": float("nan")}, "label_noise must be a finite number"),
        ({"imbalance": 0.5}, "imbalance must be at least 1"),
        ({"imbalance": float("inf")}, "imbalance must be a finite number"),
        ({"imbalance": True}, "imbalance must be a finite number"),
    ],
)
def test_what_is_out_of_range_is_refused(wanted: dict[str, float], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        load_data("digits", **wanted)  # type: ignore[arg-type]
