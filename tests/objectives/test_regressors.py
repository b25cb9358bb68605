"""The convolution between maps of two shapes: the rules of shared/spec/vision-methods.md, section 3.2, item 2."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from limbeck.errors import SignalError
from limbeck.objectives._regressors import regressor


def convolution(student: tuple[int, ...], teacher: tuple[int, ...]) -> nn.Conv2d | nn.ConvTranspose2d:
    found = regressor(student, teacher, relu=True)
    assert isinstance(found, nn.Sequential)
    layer = found[0]
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    return layer


@pytest.mark.parametrize(
    ("student", "teacher", "kind", "kernel", "stride", "padding"),
    [
        ((8, 8), (8, 8), nn.Conv2d, (1, 1), (1, 1), (0, 0)),
        ((16, 16), (8, 8), nn.Conv2d, (3, 3), (2, 2), (1, 1)),
        ((8, 8), (16, 16), nn.ConvTranspose2d, (4, 4), (2, 2), (1, 1)),
        ((8, 8), (7, 7), nn.Conv2d, (2, 2), (1, 1), (0, 0)),
        ((14, 14), (8, 8), nn.Conv2d, (7, 7), (1, 1), (0, 0)),
        ((2, 2), (1, 1), nn.Conv2d, (3, 3), (2, 2), (1, 1)),
        ((1, 1), (2, 2), nn.ConvTranspose2d, (4, 4), (2, 2), (1, 1)),
        ((16, 9), (8, 7), nn.Conv2d, (3, 3), (2, 1), (1, 0)),
    ],
)
def test_the_sizes_decide_on_kernel_stride_and_padding(student, teacher, kind, kernel, stride, padding) -> None:
    layer = convolution((5, *student), (6, *teacher))
    assert type(layer) is kind
    assert (layer.kernel_size, layer.stride, layer.padding) == (kernel, stride, padding)


sides = st.integers(1, 9)


@given(sides, sides, sides, sides, st.booleans())
def test_what_comes_out_has_the_teachers_shape_or_is_refused(
    h: int, w: int, height: int, width: int, relu: bool
) -> None:
    served = (h >= height and w >= width) or (2 * h == height and 2 * w == width)
    if not served:
        with pytest.raises(SignalError, match="no convolution is defined"):
            regressor((2, h, w), (3, height, width), relu=relu)
        return
    found = regressor((2, h, w), (3, height, width), relu=relu)
    assert found(torch.randn(2, 2, h, w)).shape == (2, 3, height, width)


def test_shapes_may_have_a_batch_in_front() -> None:
    assert regressor(torch.Size((7, 2, 4, 4)), (9, 3, 4, 4), relu=False)(torch.zeros(2, 2, 4, 4)).shape == (2, 3, 4, 4)


def test_the_layers_are_a_convolution_without_bias_a_batch_norm_and_a_relu_where_asked() -> None:
    with_relu, without = (regressor((2, 4, 4), (3, 4, 4), relu=relu) for relu in (True, False))
    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert [type(layer) for layer in with_relu.children()] == kinds
    assert [type(layer) for layer in without.children()] == kinds[:2]
    assert {name for name, _ in with_relu.named_parameters()} == {"0.weight", "1.weight", "1.bias"}


def test_without_a_relu_equal_shapes_need_no_layer() -> None:
    assert isinstance(regressor((3, 4, 4), (3, 4, 4), relu=False), nn.Identity)
    assert len(list(regressor((3, 4, 4), (3, 4, 4), relu=True).parameters())) == 3
    assert len(list(regressor((3, 4, 4), (3, 2, 2), relu=False).parameters())) == 3


def test_every_parameter_gets_a_gradient() -> None:
    for student, teacher in (((2, 4, 4), (3, 4, 4)), ((2, 4, 4), (3, 8, 8)), ((2, 4, 4), (3, 2, 2))):
        layers = regressor(student, teacher, relu=True)
        layers(torch.randn(4, *student)).square().mean().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 1e-4 for p in layers.parameters())


@pytest.mark.parametrize(("student", "teacher"), [((8, 8), (12, 12)), ((8, 8), (32, 32)), ((8, 8), (16, 8))])
def test_sizes_that_no_rule_serves_are_refused_with_what_is_accepted(student, teacher) -> None:
    sentence = (
        f"from a student's map of {student[0]}×{student[1]} to a teacher's of {teacher[0]}×{teacher[1]}: the student's must "
        "be as large as the teacher's, larger, or exactly half as large"
    )
    with pytest.raises(SignalError, match=sentence):
        regressor((2, *student), (3, *teacher), relu=True)
