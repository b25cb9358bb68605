"""Images that only the teacher gets right: which are chosen, and that their PNG is the image."""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from limbeck.data import ImageSplit
from limbeck.errors import DataError, SignalError
from limbeck.evaluate.collect import Gathered
from limbeck.evaluate.examples import Example, examples
from limbeck.signals import Signals

SIZE = (4, 4)


def says(predictions: list[int], labels: Tensor, classes: int, sure: list[float] | None = None) -> Gathered:
    """A network with these predictions; the logit of each is as given, and 3 otherwise."""
    logits = torch.zeros(len(labels), classes)
    logits[torch.arange(len(labels)), torch.tensor(predictions)] = torch.tensor(sure or [3.0] * len(labels)).float()
    return Gathered(Signals(logits=logits), labels)


def split_of(labels: Tensor, channels: int = 3, size: tuple[int, int] = SIZE) -> ImageSplit:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(labels), channels, *size), dtype=torch.uint8, generator=generator)
    return ImageSplit(images, labels, 100 + torch.arange(len(labels)))


def pixels(example: Example) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(example.png, validate=True)))
    assert (image.format, image.size) == ("PNG", (example.width, example.height))
    return np.asarray(image)


def test_the_classes_that_lose_most_come_first_and_in_each_the_surest_mistakes() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    teacher = says([0, 0, 0, 0, 1, 1, 0, 2, 2], labels, 3)
    # Class 0 loses 1 of 4, class 1 both that the teacher has, class 2 one and gains none.
    student = says([1, 0, 0, 0, 2, 0, 2, 2, 0], labels, 3, [3, 3, 3, 3, 2, 4, 9, 3, 5])
    found = examples(student, teacher, split_of(labels), "abc", SIZE)
    assert [(each.index, each.label, each.student, each.teacher) for each in found] == [
        (105, "b", "a", "b"),
        (104, "b", "c", "b"),
        (108, "c", "a", "c"),
        (100, "a", "b", "a"),
    ]
    assert found[0].student_confidence == pytest.approx(np.exp(4) / (np.exp(4) + 2), abs=1e-6)
    assert found[0].teacher_confidence == pytest.approx(np.exp(3) / (np.exp(3) + 2), abs=1e-6)


def test_a_class_in_which_the_student_gains_more_comes_last() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    teacher = says([0, 1, 1, 1, 1, 1], labels, 2)
    student = says([1, 0, 0, 1, 1, 0], labels, 2)
    assert [each.label for each in examples(student, teacher, split_of(labels), "ab", SIZE)] == ["b", "a"]


@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 1000), st.integers(1, 14))
def test_whatever_the_networks_say(count: int, classes: int, seed: int, limit: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    student, teacher = (
        Gathered(Signals(logits=torch.randn(count, classes, generator=generator)), labels) for _ in range(2)
    )
    split = split_of(labels)
    found = examples(student, teacher, split, [f"class {n}" for n in range(classes)], SIZE, count=limit)
    mine, its = student.logits.argmax(dim=1), teacher.logits.argmax(dim=1)
    candidates = Counter(labels[(its == labels) & (mine != labels)].tolist())
    assert len(found) == min(limit, sum(min(2, n) for n in candidates.values()))
    assert len({each.index for each in found}) == len(found)
    for each in found:
        row = each.index - 100
        assert its[row] == labels[row] != mine[row]
        assert each.label == each.teacher == f"class {labels[row]}"
        assert each.student == f"class {mine[row]}"
        assert np.array_equal(pixels(each), split.images[row].permute(1, 2, 0).numpy())
    assert found == examples(student, teacher, split, [f"class {n}" for n in range(classes)], SIZE, count=limit)


def one_mistake(split: ImageSplit, size: tuple[int, int] = SIZE) -> Example:
    student, teacher = (says([told], split.labels, 2) for told in (1, 0))
    (found,) = examples(student, teacher, split, "ab", size)
    return found


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_images_that_are_not_of_three_colours_show_their_first_channel(channels: int) -> None:
    split = split_of(torch.zeros(1, dtype=torch.int64), channels)
    assert np.array_equal(pixels(one_mistake(split)), split.images[0][0])


@pytest.mark.parametrize(
    ("size", "shown"), [((96, 96), (96, 96)), ((97, 96), (96, 95)), ((60, 240), (24, 96)), ((1, 500), (1, 96))]
)
def test_only_images_of_more_than_96_pixels_are_scaled(size: tuple[int, int], shown: tuple[int, int]) -> None:
    found = one_mistake(split_of(torch.zeros(1, dtype=torch.int64), size=size))
    assert (found.height, found.width) == shown
    assert pixels(found).shape == (*shown, 3)


def test_scaling_averages_and_does_not_drop_pixels() -> None:
    stripes = (torch.arange(384) % 2 * 200).to(torch.uint8).expand(1, 3, 384, 384).contiguous()
    found = one_mistake(ImageSplit(stripes, torch.tensor([0]), torch.tensor([0])))
    assert np.abs(pixels(found).astype(int) - 100).max() < 20


def test_files_are_decoded_at_the_size_of_the_data_and_a_missing_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    Image.new("L", (40, 20), 77).save(path)
    split = ImageSplit([str(path)], torch.tensor([0]), torch.tensor([0]))
    found = one_mistake(split, (8, 12))
    assert (found.height, found.width) == (8, 12)
    assert np.unique(pixels(found)).tolist() == [77]
    path.unlink()
    with pytest.raises(DataError, match=r"one\.png"):
        one_mistake(split, (8, 12))


def test_nothing_lost_and_a_split_of_one_class_give_what_there_is() -> None:
    labels = torch.full((5,), 1)
    right = says([1] * 5, labels, 3)
    assert examples(right, right, split_of(labels), "abc", SIZE) == ()
    found = examples(says([1, 0, 2, 0, 0], labels, 3), right, split_of(labels), "abc", SIZE)
    assert [each.index for each in found] == [101, 102]  # of equally sure ones the first


def test_other_images_and_other_classes_are_refused() -> None:
    labels = torch.tensor([0, 1, 1])
    both = says([0, 1, 0], labels, 2)
    split = split_of(labels)
    with pytest.raises(DataError, match="the split in its order"):
        examples(both, both, split_of(labels.flip(0)), "ab", SIZE)
    with pytest.raises(DataError, match="the teacher said"):
        examples(both, replace(both, labels=labels[:2]), split, "ab", SIZE)
    with pytest.raises(SignalError, match="the student has 2 logits for 3 classes"):
        examples(both, both, split, "abc", SIZE)
