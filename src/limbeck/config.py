"""The settings of a run: the same types for Python, YAML recipes and the command line. Imports no torch."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from limbeck.errors import SettingError, unknown_name

S = TypeVar("S", bound="Settings")

_NETWORKS = {"model": "resnet8x4", "teacher": "resnet32x4@teacher.safetensors", "student": "resnet8x4"}


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, and every error names the key, the value and what is accepted."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, validate_default=True)

    @classmethod
    def make(cls, values: dict[str, Any], source: str = "settings") -> Self:
        """Settings from plain values, or SettingError with one sentence for each value that does not fit."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingError("\n".join(_sentence(cls, source, problem) for problem in error.errors())) from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Settings from a YAML file. Only plain YAML is read; tags that make objects are refused."""
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
            raise SettingError(f"there is no recipe {path}." + (f" Did you mean {near[0]}?" if near else "")) from None
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: not UTF-8, or no such date
            raise SettingError(f"the recipe {path} cannot be read: {str(error).replace(chr(10), ' ')}") from None
        if not isinstance(values, dict):
            raise SettingError(f"the recipe {path} must hold 'name: value' lines, got {type(values).__name__}.")
        return cls.make(values, source=str(path))

    def dump(self) -> str:
        """The settings as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def not_named(network: str) -> str:
    """The sentence for a "teacher", "student" or "model" that is not given."""
    return f"{network} is not given; name a network, as in --{network} {_NETWORKS[network]} ('limbeck list models')."


def _sentence(cls: type[BaseModel], source: str, problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "settings"
    if problem["type"] == "extra_forbidden":
        *outer, name = problem["loc"]
        place = f"{source}: {'.'.join(map(str, outer))}" if outer else source
        return f"{place}: {unknown_name('setting', str(name), _fields_at(cls, outer))}"
    return f"{source}: {where}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {problem['input']!r}."


def _fields_at(cls: type[BaseModel], loc: list[str | int]) -> list[str]:
    for part in loc:
        if isinstance(part, str):
            annotation = cls.model_fields[part].annotation
            inner = (t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, BaseModel))
            cls = next(inner, cls)
    return list(cls.model_fields)


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


class DataSettings(Settings):
    """Which data, and how it is split and seen."""

    data: str = Field(
        default="digits",
        description="Data set name, image folder, FILE.npz, hf:NAME, text (FILE.jsonl, arithmetic(…), text:hf:NAME), or "
        "search:FOLDER ('limbeck list data').",
    )
    data_dir: Path | None = Field(default=None, description="Where data sets are, or are downloaded to.")
    val_fraction: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of the training images held out when the data has no validation split.",
    )
    train_limit: int | None = Field(
        default=None, ge=1, description="Use at most this many training samples, stratified."
    )
    test_limit: int | None = Field(default=None, ge=1, description="Use at most this many test samples, stratified.")
    # None and not 0 and 1, so that folders of runs that know nothing of these can be resumed and compared.
    label_noise: float | None = Field(
        default=None, ge=0, lt=1, description="Share of the training labels replaced, each by one of the other classes."
    )
    imbalance: float | None = Field(
        default=None,
        ge=1,
        allow_inf_nan=False,
        description="Long tail: training images of the first class over those of the last, exponential between.",
    )
    image_size: int | None = Field(
        default=None, ge=1, description="Side of the images in pixels; the data's own when not given."
    )
    download: bool = Field(default=True, description="Download the data set when it is not on disk.")
    skip_unreadable: bool = Field(
        default=False, description="Leave out images that cannot be read instead of stopping."
    )
    workers: int = Field(default=2, ge=0, description="Processes that decode images which are not held in memory.")


class TokenSettings(Settings):
    """How text becomes tokens, and what is written and looked at."""

    tokenizer: str | None = Field(
        default=None,
        description="Network whose tokenizer it is, as in hf:FOLDER, or 'characters' or 'bytes'; the teacher's or the "
        "student's own when not given.",
    )
    max_length: int = Field(default=512, ge=2, description="Tokens of the longest text that is trained on.")
    too_long: Literal["skip", "cut", "split"] | None = Field(
        default=None, description="Longer texts: left out, cut, or for plain text split into rows, as is usual there."
    )
    chat: bool | None = Field(
        default=None, description="Whether prompts and completions go through the chat template, as messages do."
    )
    columns: dict[str, str] = Field(
        default={}, description="Which column holds what, such as prompt and completion; found by their usual names."
    )
    separator: str | None = Field(default=None, description="What stands between prompt and completion.")
    answers: int = Field(
        default=200, ge=0, description="Test prompts that the student answers at the end, for exact match and ROUGE-L."
    )
    answer: Literal["whole", "marked", "last_number", "gsm8k"] = Field(
        default="whole", description="What of a completion is its answer, for exact match."
    )
    back_translation: str | None = Field(
        default=None,
        description="Have every training text with a label once more, translated there and back by two models, as in "
        "there='FOLDER', back='FOLDER', keep='FILE.jsonl'.",
    )
    student_lora: str | None = Field(
        default=None,
        description='Train adapters of low rank in the student and nothing else of it, as in "rank=8" or '
        "\"rank=8, alpha=16, targets=['q_proj', 'v_proj']\".",
    )
    max_new_tokens: int = Field(default=128, ge=1, description="Tokens of the longest answer that is written.")


class TextSettings(TokenSettings):
    """The same, and what a batch of text is made of."""

    packing: int | None = Field(
        default=None, ge=2, description="Tokens of a row into which several texts are put that do not see each other."
    )
    token_budget: int | None = Field(
        default=None, ge=2, description="Tokens of a batch, padding included, instead of batch_size texts."
    )


class QuerySettings(Settings):
    """How the queries of a collection are divided."""

    test_fraction: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="Share of the queries for the test, in a collection without training queries.",
    )
    split_seed: int = Field(
        default=0, ge=0, description="Seed of the division of the queries, and of random negatives."
    )


class SearchSettings(QuerySettings):
    """The same, what a batch of queries and documents is made of, and what is looked at in between."""

    negatives: int = Field(default=0, ge=0, description="Documents beside its own that each query brings into a batch.")
    mining: Literal["bm25", "teacher", "random"] = Field(
        default="bm25", description="Which, where the examples bring too few: what BM25 or the teacher finds, or any."
    )
    mining_margin: float | None = Field(
        default=None,
        ge=0,
        description="With mining=teacher: leave out what it scores above the positive less this, as unjudged answers.",
    )
    mining_share: float | None = Field(
        default=None, gt=0, le=1, description="The same, above this share of the positive's score; 0.95 is usual."
    )
    extra_queries: Path | None = Field(
        default=None,
        description="File of queries without judgements, for 'embed_match(extra=1)': a .txt, .jsonl or .tsv.",
    )
    embed_chunk: int | None = Field(
        default=None,
        ge=1,
        description="Texts that the student encodes at a time: a large batch in the memory of a small one (GradCache).",
    )
    validate_by: Literal["accuracy", "ndcg"] = Field(
        default="accuracy",
        description="What selects the best epoch: accuracy among a batch's documents, or nDCG@10 of a search of all documents, "
        "which are encoded at each validation.",
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
    batch_size: int = Field(default=64, ge=1, description="Images a step, over all processes and micro-batches.")
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
    objective: str = Field(default="icd+kd", description="Preset or expression ('limbeck list objectives').")
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
    objectives: list[str] = Field(
        default=["icd", "icd+kd"],
        description="Presets or expressions, with commas between them; a list for an argument is one student for each.",
    )
    seeds: int = Field(default=3, ge=1, description="Students of each kind, with the seeds from --seed on.")
    baselines: bool = Field(default=True, description="Add the student alone and kd.")
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


class ExportSettings(Settings):
    """Write a student in the formats that others deploy."""

    model: str | None = Field(
        default=None, description="Run folder, weights file that limbeck wrote, or network as in NAME@FILE."
    )
    to: list[Literal["safetensors", "torch", "onnx", "folder"]] | None = Field(
        default=None,
        min_length=1,
        description="Formats to write; all that it has when not given: safetensors, torch and onnx of networks on images, "
        "folder and onnx of encoders and classifiers of text, folder of language models.",
    )
    output: Path = Field(default=Path("exported"), description="Folder for the files and their README.md.")
    overwrite: bool = Field(default=False, description="Replace files of these names in the output folder.")
    include_preprocessing: bool = Field(
        default=False, description="Take uint8 images and normalise them inside, instead of normalised float images."
    )
    dynamic_batch: bool = Field(default=True, description="Take any number of images at once, instead of one.")
    tolerance: float = Field(
        default=1e-4,
        gt=0,
        lt=1,
        description="Largest difference to the network in PyTorch, as a share of its largest logit.",
    )
    data: str | None = Field(
        default=None, description="Data set whose classes and images the network is for; the file's when not given."
    )
    data_dir: Path | None = Field(default=None, description="Where data sets are, or are downloaded to.")
    classes: int | None = Field(default=None, ge=1, description="Number of classes, when the file does not say.")
    channels: int | None = Field(default=None, ge=1, description="Channels of the images, when the file does not say.")
    image_size: int | None = Field(
        default=None, ge=1, description="Side of the images in pixels; the file's when not given."
    )
    plugins: list[str] = Field(default=[], description="Your own Python files or modules that add models or data.")
    # Not 'json', which is a method of pydantic's models.
    as_json: bool = Field(default=False, description="Print the result as JSON.")


class DemoSettings(Settings):
    """Distil digits, a language model that adds, or an encoder: a teacher, a student alone, and one taught in three ways."""

    about: Literal["images", "text", "search"] = Field(
        default="images",
        description="Handwritten digits, a small language model that adds two numbers, or an encoder that finds documents.",
    )
    seeds: int | None = Field(default=None, ge=1, description="Seeds a method; 3, and 1 for text.")
    epochs: int | None = Field(
        default=None, ge=1, description="Passes over the data; 30 for digits, 5 for text, 16 for search."
    )
    teacher: str | None = Field(default=None, description="Network that teaches; the demo's own when not given.")
    student: str | None = Field(default=None, description="Network that learns; the demo's own when not given.")
    objectives: list[str] = Field(
        default=[], description="Presets or expressions beside the student alone; kd, icd and icd+kd for digits."
    )
    runs_dir: Path = Field(default=Path("runs"), description="Where the demo's folder goes; an older demo is kept.")
    as_json: bool = Field(default=False, description="Print the table as JSON.")


class PruneLayersSettings(Settings):
    """Make a student of a language model by keeping some of its layers."""

    model: str | None = Field(default=None, description="Language model, as in hf:FOLDER or hf:NAME.")
    keep: str | None = Field(default=None, description="Layers to keep, counted from 0, as in 0,4,8.")
    output: Path | None = Field(default=None, description="Folder for the network and its tokenizer.")
    task: Literal["causal", "classification", "encoder"] | None = Field(
        default=None, description="What the network answers with; as it was published."
    )
    overwrite: bool = Field(default=False, description="Replace an output folder that holds a language model.")
