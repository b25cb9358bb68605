"""Many students in one pass."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from limbeck.config.base import Settings
from limbeck.config.training import DistillSettings, StageSettings, TeacherSettings, TrainSettings


class MemberSettings(Settings):
    """A student of a comparison, and what is its own; the comparison's settings where nothing is given."""

    objective: str = Field(description="Preset or expression; 'alone' for labels alone.")
    student: str | None = Field(default=None, description="Student network.")
    optimizer: Literal["sgd", "adamw"] | None = Field(default=None, description="Optimizer.")
    lr: float | None = Field(default=None, gt=0, description="Learning rate.")
    momentum: float | None = Field(default=None, ge=0, lt=1, description="Momentum of sgd.")
    nesterov: bool | None = Field(default=None, description="Nesterov momentum.")
    weight_decay: float | None = Field(default=None, ge=0, description="Weight decay.")
    schedule: Literal["multistep", "cosine", "constant"] | None = Field(
        default=None, description="Learning rate over time."
    )
    warmup_epochs: float | None = Field(default=None, ge=0, description="Epochs of warm-up.")
    clip_norm: float | None = Field(default=None, gt=0, description="Largest norm of the gradient.")
    ema: float | None = Field(default=None, gt=0, lt=1, description="Decay of the moving average of the student.")
    policy: str | None = Field(default=None, description="Text that student and teacher see.")
    text_engine: str | None = Field(default=None, description="What runs a model that writes whole answers.")
    student_lora: str | None = Field(default=None, description="Adapters that alone learn, as in 'rank=8'.")
    documents: Literal["own", "teacher"] | None = Field(
        default=None, description="Documents that the student searches."
    )
    stages: list[StageSettings] = Field(default=[], description="Stages before the main one.")

    def own(self) -> dict[str, Any]:
        """What differs from the comparison's settings."""
        values = self.model_dump(exclude={"objective", "student"}, exclude_none=True)
        return values if values["stages"] else {name: value for name, value in values.items() if name != "stages"}


class CompareSettings(TeacherSettings):
    """Teach many students of one teacher at once, and tell which differences are real."""

    may_lack = frozenset({"teacher"})  # contest.py looks whether an objective needs one

    student: list[str] = Field(default=[], description="Student networks ('limbeck list models').")
    objectives: list[str] | None = Field(
        default=None,
        description="Presets or expressions, with commas between them; a list for an argument is one student for each. When "
        "not given icd and icd+kd (search: embed_distill and a part of it), or none where a recipe gives members.",
    )
    seeds: int = Field(default=3, ge=1, description="Students of each kind, with the seeds from --seed on.")
    baselines: bool = Field(
        default=True, description="Add the student alone and kd (search: contrastive + listwise_kl)."
    )
    independent_order: bool | None = Field(
        default=None,
        description="Each seed has its own order of the data, and a pass of its own over it; so it is for students that start "
        "from weights, which otherwise may be the same for every seed.",
    )
    group_size: int | None = Field(
        default=None, ge=1, description="Most students that share a pass; found from the free memory."
    )
    members: list[MemberSettings] = Field(default=[], description="Students with settings of their own (recipes only).")

    def check_networks(self) -> None:
        # A recipe's members may bring their students along.
        brought = bool(self.members) and all(member.student for member in self.members)
        named = self.model_copy(update={"student": ["a member's own"]}) if brought and not self.student else self
        super(CompareSettings, named).check_networks()

    @field_validator("student", "objectives", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


def defaults_of_runs() -> dict[str, Any]:
    """Every setting that a run may have, as it is where the run's file does not tell it, since an older limbeck wrote it."""
    kinds: tuple[type[Settings], ...] = (TrainSettings, CompareSettings, DistillSettings)
    fields = {name: info for kind in kinds for name, info in kind.model_fields.items()}
    return {
        name: info.get_default(call_default_factory=True) for name, info in fields.items() if not info.is_required()
    }
