"""How a batch of images meets the teacher and the student."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limbeck.signals import Batch


@dataclass(frozen=True)
class VisionTask:
    """The two networks' own preprocessing of the same view.

    student_preprocess, teacher_preprocess: modules from uint8 (B, C, H, W) to what the network wants. When they are one and
    the same module the work is done once.
    """

    student_preprocess: nn.Module
    teacher_preprocess: nn.Module
    channels_last: bool = False

    def student_input(self, batch: Batch) -> Tensor:
        """The batch as the student sees it."""
        return self._arrange(self.student_preprocess(batch.inputs))

    def teacher_input(self, batch: Batch) -> Tensor:
        """The batch as the teacher sees it."""
        return self._arrange(self.teacher_preprocess(batch.inputs))

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Both, from the same view."""
        student = self.student_input(batch)
        same = self.teacher_preprocess is self.student_preprocess
        return student, student if same else self.teacher_input(batch)

    def _arrange(self, images: Tensor) -> Tensor:
        if self.channels_last and images.ndim == 4:
            return images.contiguous(memory_format=torch.channels_last)
        return images
