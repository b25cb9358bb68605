"""How RepDistiller and the authors of ICD train on CIFAR-100: SGD over 240 epochs. The rate depends on the network."""

from typing import Any

PROTOCOL: dict[str, Any] = {
    "data": "cifar100",
    "augment": "crop=4,flip",
    "epochs": 240,
    "batch_size": 64,
    "optimizer": "sgd",
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 5e-4,
    "decay_norm_and_bias": True,
    "schedule": "multistep",
    "milestones": [150, 180, 210],
    "gamma": 0.1,
    "warmup_epochs": 0,
    "precision": "fp32",
    "val_fraction": 0,
    "select": "last",
    "train_limit": None,
}
