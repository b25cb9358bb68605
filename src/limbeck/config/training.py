"""Training, with a teacher and without."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from limbeck.config.base import _NETWORKS, Settings, not_named
from limbeck.config.data import DataSettings
from limbeck.config.search import SearchSettings
from limbeck.config.text import TextSettings
from limbeck.errors import SettingError


class StageSettings(Settings):
    """A stage that comes before the main one: what trains, on which objective, for how long."""

    objective: str = Field(description="Expression of this stage.")
    epochs: int = Field(ge=1, description="Passes over the training data.")
    trains: list[Literal["student", "objective"]] = Field(
        default=["student", "objective"], min_length=1, description="What learns in this stage."
    )
    lr: float | None = Field(default=None, gt=0, description="Learning rate; the run's when not given.")
    schedule: Literal["multistep", "cosine", "constant"] | None = Field(
        default=None, description="Learning rate over time; the run's when not given."
    )


class RunSettings(DataSettings, TextSettings, SearchSettings):
    """Everything about training that train and distill share."""

    augment: str = Field(
        default="auto",
        description="Views, as in 'crop=4,flip,cutout=8,randaugment=2', 'none' or 'auto'; 'A | B' for one of each. "
        "For text that is classified, as in 'none | mixup=0.4'.",
    )

    views: int | None = Field(
        default=None, ge=1, description="Each sample cycles through so many fixed views; drawn anew each epoch without."
    )
    epochs: int | None = Field(
        default=None, ge=1, description="Passes over the training data; the data set's usual number."
    )
    batch_size: int = Field(
        default=64, ge=1, description="Images, texts or queries a step, over all processes and micro-batches."
    )
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="Optimizer.")
    lr: float | None = Field(default=None, gt=0, description="Learning rate; 0.05 for sgd, 0.001 for adamw.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of sgd.")
    nesterov: bool = Field(default=False, description="Nesterov momentum.")
    weight_decay: float = Field(default=5e-4, ge=0, description="Weight decay.")
    decay_norm_and_bias: bool = Field(
        default=True, description="Weight decay on biases and normalisation too, as the benchmark."
    )
    schedule: Literal["multistep", "cosine", "constant"] = Field(
        default="multistep", description="Learning rate over time."
    )
    milestones: list[float] = Field(
        default=[0.625, 0.75, 0.875],
        description="Where multistep decays: epochs, or shares of the run when below 1 (150, 180, 210 of 240).",
    )
    gamma: float = Field(default=0.1, gt=0, le=1, description="Factor of each multistep decay.")
    warmup_epochs: float = Field(default=0.0, ge=0, description="Epochs over which the learning rate rises from 0.")
    clip_norm: float | None = Field(default=None, gt=0, description="Largest norm of the gradient.")
    accumulation: int = Field(
        default=1, ge=1, description="Micro-batches a step; refused for objectives that couple the batch."
    )
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="Decay of an exponential moving average of the student."
    )

    device: str = Field(default="auto", description="auto, cpu, cuda or mps.")
    precision: Literal["fp32", "bf16", "fp16", "auto"] = Field(
        default="fp32",
        description="Precision of the networks; losses are fp32. auto is bf16 where that is measured faster.",
    )
    compile: bool = Field(default=False, description="Compile student, objective and teacher with torch.compile.")
    channels_last: bool | None = Field(
        default=None, description="Channels-last memory order of images and convolutions; measured when not given."
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Trade time for memory in networks that support it."
    )

    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Seed of weights, order and views.")
    order_seed: int | None = Field(
        default=None, ge=0, le=2**32 - 1, description="Seed of order and views alone; the seed when not given."
    )
    name: str | None = Field(
        default=None, description="Name of the run's folder; made from the settings when not given."
    )
    runs_dir: Path = Field(default=Path("runs"), description="Where run folders are.")
    resume: bool = Field(default=False, description="Go on with the run of this name from its last checkpoint.")
    overwrite: bool = Field(default=False, description="Delete the run folder of this name first.")
    checkpoint_epochs: int = Field(default=1, ge=1, description="Epochs between checkpoints.")
    checkpoint_steps: int | None = Field(default=None, ge=1, description="Steps between checkpoints within an epoch.")
    validate_epochs: int = Field(default=1, ge=1, description="Epochs between validations.")
    log_steps: int = Field(default=50, ge=1, description="Steps between lines of metrics.jsonl.")
    select: Literal["best", "last"] = Field(
        default="best", description="Which weights become the result, by validation accuracy."
    )
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        default=[], description="Experiment trackers to write to."
    )
    plugins: list[str] = Field(
        default=[], description="Your own Python files or modules that add objectives, models or data."
    )

    def to_measure(self) -> set[str]:
        """Names of the settings that are left to be measured."""
        return {
            name for name, value in (("channels_last", None), ("precision", "auto")) if getattr(self, name) == value
        }

    may_lack: ClassVar[frozenset[str]] = frozenset()
    """Networks that need not be named."""

    def check_networks(self) -> None:
        """Raise SettingError for a network that must be named and is not."""
        for name in _NETWORKS:
            if name in type(self).model_fields and name not in self.may_lack and not getattr(self, name):
                raise SettingError(not_named(name))

    @property
    def data_seed(self) -> int:
        """The seed of the training data's order and views."""
        return self.seed if self.order_seed is None else self.order_seed


class TrainSettings(RunSettings):
    """Train one network without a teacher, for example on labels alone to be one."""

    model: str | None = Field(
        default=None, description="Network ('limbeck list models'), with @FILE to start from weights."
    )
    objective: str | None = Field(
        default=None,
        description="Preset or expression that needs no teacher, such as dml; else cross-entropy (search: contrastive).",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="Label smoothing of the cross-entropy.")


class TeacherSettings(RunSettings):
    """Everything about learning from a teacher that distill and compare share."""

    teacher: str | None = Field(
        default=None,
        description="Teacher network with its weights, as in resnet32x4@FILE; for text also server:URL?model=NAME.",
    )
    teacher_key: str | None = Field(
        default=None, description="Environment variable with the key that a server as teacher wants."
    )
    policy: str = Field(
        default="fixed",
        description="Text that both see: fixed, student, teacher, speculative(top_k=25), mixed or two_stage ('limbeck list "
        "policies').",
    )
    student_sampling: str = Field(
        default="temperature=1",
        description="How the student's tokens are drawn: temperature, top_p and top_k.",
    )
    teacher_sampling: str = Field(default="temperature=1", description="How the teacher's tokens are drawn.")
    text_engine: str = Field(
        default="own",
        description="What runs a model that writes whole answers in training: own, or vllm, as in 'vllm(memory=8)'.",
    )
    mixed_targets: bool = Field(
        default=False,
        description="A control of mixup: the teacher's answers to both texts, mixed, and not its answer to the mixture.",
    )
    taps: dict[str, str] = Field(
        default={}, description="Feature maps to compare: student module path to teacher module path."
    )
    teacher_classifier: str | None = Field(
        default=None, description="Teacher layer whose input is the embedding; found by itself."
    )
    student_classifier: str | None = Field(
        default=None, description="Student layer whose input is the embedding; found by itself."
    )
    teacher_size: int | None = Field(
        default=None, ge=1, description="Image side the teacher sees; the data's when not given."
    )
    documents: Literal["own", "teacher"] = Field(
        default="own", description="Documents that the student searches: its own, or the teacher's, for queries alone."
    )
    allow_weak_teacher: bool = Field(default=False, description="Go on although the teacher is near chance.")
    teacher_budget: int | None = Field(
        default=None,
        ge=1,
        description="Train on at most this many images, stratified, and ask the teacher once about each and never more.",
    )
    teacher_cache: Path | None = Field(
        default=None, description="Folder in which the teacher's answers are kept; written first when it is empty."
    )
    cache_dtype: Literal["fp16", "fp32"] = Field(default="fp16", description="How the cache keeps numbers.")
    cache_logits: str = Field(default="dense", description="How it keeps logits: dense, topk(K) or sampled(N).")
    cache_features: bool = Field(default=False, description="Whether it keeps the feature maps that objectives need.")
    cache_check: int = Field(default=16, ge=0, description="Entries that are computed again and compared at the start.")


class DistillSettings(TeacherSettings):
    """Distil a teacher into a student."""

    student: str | None = Field(default=None, description="Student network ('limbeck list models').")
    objective: str | None = Field(
        default=None,
        description="Preset or expression ('limbeck list objectives'); icd+kd when not given (search: embed_distill).",
    )
    assistants: list[str] = Field(
        default=[],
        description="Networks from large to small between teacher and student; each learns from the one before it.",
    )
    assistant_objective: str | None = Field(
        default=None, description="Their preset or expression; the student's when not given."
    )
    taught_by: str = Field(
        default="chain",
        description="Who teaches the student: 'chain' for the last assistant, or teacher and assistants by a rule, as in "
        "'routed(pacing=0.5)' or 'mean'.",
    )
    stages: list[StageSettings] = Field(default=[], description="Stages before the main one (recipes only).")
