"""Attacks stay within their budget and mislead; the figures are those of loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from limbeck.data import ImageData, Preprocess, eval_batches
from limbeck.errors import DataError
from limbeck.evaluate.attacks import fgsm, pgd
from limbeck.evaluate.corruptions import corrupt
from limbeck.evaluate.robustness import robustness


@given(st.floats(0, 0.2), st.integers(1, 5), st.integers(0, 100))
def test_attacks_stay_within_the_budget_and_raise_the_loss(budget: float, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(6, 1, 3, 3, generator=generator)
    weight = torch.randn(9, 4, generator=generator)
    labels = torch.randint(0, 4, (6,), generator=generator)

    def logits(given: Tensor) -> Tensor:
        return given.flatten(1) @ weight

    def loss(given: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits(given), labels, reduction="none")

    for changed in (fgsm(logits, images, labels, budget), pgd(logits, images, labels, budget, steps=steps)):
        assert (changed - images).abs().max() <= budget + 1e-6
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert not changed.requires_grad
    # The loss of a linear classifier is convex: a step along the gradient raises it.
    assert (loss(fgsm(logits, images, labels, budget)) >= loss(images) - 1e-5).all()


def test_figures_of_a_network_that_learned(learned: nn.Module, digits: ImageData) -> None:
    assert digits.test is not None
    preprocess = Preprocess(digits.mean, digits.std)
    for parameter in learned.parameters():
        parameter.grad = None
    found = robustness(
        {
            "model": lambda images: learned(preprocess(images)),
            "none": lambda images: torch.zeros(len(images), 10)[:, :] + 0 * images.float().mean(),
        },
        eval_batches(digits.test, 300),
        corruptions=["gaussian_noise", "contrast"],
        budgets=(1, 8, 16),
        steps=5,
    )
    model = found["model"]
    images, labels = digits.test.images, digits.test.labels
    assert isinstance(images, Tensor)
    with torch.no_grad():
        clean = (learned(preprocess(images)).argmax(dim=1) == labels).float().mean().item()
        contrast = [
            (learned(preprocess(corrupt(images, "contrast", s))).argmax(dim=1) == labels).float().mean().item()
            for s in range(1, 6)
        ]
    assert clean > 0.9
    assert model.clean == pytest.approx(clean)
    assert model.corruptions[1].severities == pytest.approx(contrast)
    assert model.mean_corruption == pytest.approx(sum(each.mean for each in model.corruptions) / 2)
    assert model.relative == pytest.approx(model.mean_corruption / clean)
    by_name = {name: [each.accuracy for each in model.attacks if each.name == name] for name in ("fgsm", "pgd")}
    assert by_name["fgsm"] == sorted(by_name["fgsm"], reverse=True)
    assert by_name["fgsm"][1] < clean - 0.05
    assert by_name["pgd"][2] < by_name["fgsm"][2]
    assert [each.steps for each in model.attacks] == [1, 1, 1, 5, 5, 5]
    assert all(parameter.grad is None for parameter in learned.parameters())
    share = (labels == 0).float().mean().item()
    assert found["none"].mean_corruption == pytest.approx(share)


def test_no_images_is_said() -> None:
    with pytest.raises(DataError, match="there are none"):
        robustness({"model": lambda images: images}, [])
