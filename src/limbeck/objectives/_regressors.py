"""The convolution that brings a student's map to the shape of the teacher's, as FitNet and AB use it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from limbeck.errors import SignalError


def regressor(student_shape: Sequence[int], teacher_shape: Sequence[int], *, relu: bool) -> nn.Module:
    """A trained convolution and batch norm from maps of one shape to maps of the other, float32, on the CPU.

    By the sizes of the maps the convolution is 3×3 with stride 2 where the student's is twice as large, transposed 4×4 with
    stride 2 where it is half as large, else the valid one that takes off what is too much: 1×1 for equal sizes, and n + 1 for
    a student that is n larger, which is a great many weights when n is large. Height and width need not be equal; each
    follows the rule of its own where no transposed convolution is asked for. The convolution has no bias: the batch norm
    would take it out again, and its gradient would be zero.

    The batch norm takes its statistics over the samples of one process, as those of the student do: an objective with such a
    layer is ``batch_coupled`` and has ``local_negatives``.

    Args:
        student_shape: (…, C, H, W) of the student's maps. teacher_shape: of the teacher's.
        relu: whether a ReLU follows. Without it, shapes that agree need no layer at all, and the identity is returned.

    Raises:
        SignalError: no rule serves these sizes.
    """
    channels, *size = student_shape[-3:]
    wanted, *target = teacher_shape[-3:]
    if not relu and (channels, size) == (wanted, target):
        return nn.Identity()
    layers = [_convolution(channels, wanted, size, target), nn.BatchNorm2d(wanted)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


def _convolution(channels: int, wanted: int, size: Sequence[int], target: Sequence[int]) -> nn.Module:
    sides = list(zip(size, target, strict=True))
    if all(2 * ours == theirs for ours, theirs in sides):
        return nn.ConvTranspose2d(channels, wanted, kernel_size=4, stride=2, padding=1, bias=False)
    if any(ours < theirs for ours, theirs in sides):
        raise SignalError(
            f"no convolution is defined from a student's map of {_text(size)} to a teacher's of {_text(target)}: the student's "
            "must be as large as the teacher's, larger, or exactly half as large on both sides. Compare other layers, by "
            "naming them with 'taps'."
        )
    (height, vertical, top), (width, horizontal, left) = (_shrinking(ours, theirs) for ours, theirs in sides)
    return nn.Conv2d(channels, wanted, (height, width), (vertical, horizontal), (top, left), bias=False)


def _shrinking(ours: int, theirs: int) -> tuple[int, int, int]:
    """Kernel, stride and padding that make one side as long as the teacher's."""
    return (3, 2, 1) if ours == 2 * theirs else (1 + ours - theirs, 1, 0)


def _text(size: Sequence[int]) -> str:
    return "×".join(map(str, size))
