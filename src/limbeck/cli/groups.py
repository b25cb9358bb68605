"""Under which heading of a verb's help a setting stands. A setting that is not named here stands under 'options'."""

from __future__ import annotations

GROUPS: dict[str, tuple[str, ...]] = {
    "main": (
        "config",
        "model",
        "models",
        "data",
        "teacher",
        "student",
        "objective",
        "objectives",
        "about",
        "seeds",
        "epochs",
        "batch_size",
        "split",
        "name",
    ),
    "data": (
        "data_dir",
        "val_fraction",
        "train_limit",
        "test_limit",
        "label_noise",
        "imbalance",
        "image_size",
        "augment",
        "views",
        "download",
        "skip_unreadable",
        "workers",
    ),
    "text": (
        "tokenizer",
        "max_length",
        "too_long",
        "chat",
        "columns",
        "separator",
        "packing",
        "token_budget",
        "policy",
        "student_sampling",
        "teacher_sampling",
        "mixed_targets",
        "student_lora",
        "max_new_tokens",
        "answers",
        "answer",
    ),
    "search": ("negatives", "mining", "test_fraction", "split_seed"),
    "evaluation": (
        "parts",
        "all",
        "transfer",
        "transfer_protocol",
        "transfer_epochs",
        "ood",
        "robustness_limit",
        "cifar_c",
    ),
    "comparison": ("baselines", "independent_order", "group_size"),
    "distillation": (
        "taps",
        "teacher_classifier",
        "student_classifier",
        "teacher_size",
        "teacher_key",
        "allow_weak_teacher",
        "teacher_budget",
        "assistants",
        "assistant_objective",
        "taught_by",
    ),
    "cache": ("teacher_cache", "cache_dtype", "cache_logits", "cache_features", "cache_check"),
    "training": (
        "label_smoothing",
        "optimizer",
        "lr",
        "momentum",
        "nesterov",
        "weight_decay",
        "decay_norm_and_bias",
        "schedule",
        "milestones",
        "gamma",
        "warmup_epochs",
        "clip_norm",
        "accumulation",
        "ema",
        "seed",
        "order_seed",
        "select",
    ),
    "device": ("device", "precision", "compile", "channels_last", "gradient_checkpointing"),
    "run": (
        "runs_dir",
        "resume",
        "overwrite",
        "checkpoint_epochs",
        "checkpoint_steps",
        "validate_epochs",
        "log_steps",
        "trackers",
        "plugins",
    ),
    "output": ("as_json", "quiet", "verbose"),
}
_ORDER = {name: place for place, name in enumerate(name for names in GROUPS.values() for name in names)}


def heading(setting: str) -> str | None:
    """The heading of a setting, or None."""
    return next((title for title, names in GROUPS.items() if setting in names), None)


def rank(setting: str) -> int:
    """The place of a setting in help; those without a heading come first, in the order of their type."""
    return _ORDER.get(setting, -1)
