"""Who runs a model that writes whole answers in training: this library, or an engine beside it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

from torch import nn

from limbeck.config import TeacherSettings
from limbeck.distributed import world_size
from limbeck.errors import MissingExtraError, SettingError, check_flag, check_number, unknown_name
from limbeck.expression import parse_call
from limbeck.policies import Engine, Policy, Sampling, TeacherText, parse_policy, parse_sampling
from limbeck.servers import parse_server

SETTING = "text_engine"
OWN = "own"
_WRITERS = frozenset({"student", "teacher"})
_TEMPERATURES = 0.01, 2.0


@dataclass(frozen=True)
class Vllm:
    """vLLM (arXiv 2309.06180) in this process, as a setting asks for it.

    Args:
        memory: GiB for keys and values of what is being written, for each model; its weights are held once more beside them.
        eager: run the model as it is, without compiling it first; None compiles everywhere but on a CPU.

    Raises:
        SettingError: a value out of its range.
    """

    memory: float = 4.0
    eager: bool | None = None

    def __post_init__(self) -> None:
        check_number("memory", self.memory, low=0, open_low=True)
        if self.eager is not None:
            check_flag("eager", self.eager)

    def check(self, sampling: Sampling) -> None:
        """Raise SettingError for a sampling that vLLM alters or refuses."""
        coldest, hottest = _TEMPERATURES
        if sampling.temperature and not coldest <= sampling.temperature <= hottest:
            raise SettingError(
                f"temperature is {sampling.temperature:g}, and vLLM draws at 0 and at {coldest:g} to {hottest:g}."
            )

    def of(self, model: nn.Module, longest: int | None = None) -> Engine:
        """An engine that writes with this model texts of at most ``longest`` tokens, prompts included; None for its context."""
        from limbeck.vllm_engine import VllmEngine

        return VllmEngine(model, self, longest)


def parse_text_engine(text: str) -> Vllm | None:
    """The engine that ``vllm`` or ``vllm(memory=8)`` asks for; None for ``own``. No code is run.

    Raises:
        SettingError: it cannot be read, or names what does not exist.
        MissingExtraError: vLLM is not installed.
    """
    call = parse_call(text, SETTING)
    if call.name not in (OWN, "vllm"):
        raise SettingError(f"{SETTING}: {unknown_name('engine', call.name, (OWN, 'vllm'))}")
    accepted = [] if call.name == OWN else [item.name for item in fields(Vllm)]
    given: dict[str, Any] = dict(call.arguments)
    for name in given:
        if name not in accepted:
            raise SettingError(f"{SETTING}: {unknown_name(f'argument of {call.name}', name, accepted)}")
    if call.operands:
        raise SettingError(f"{SETTING}: arguments are given by name, as in 'vllm(memory=8)', got {text!r}.")
    if call.name == OWN:
        return None
    try:
        asked = Vllm(**given)
    except SettingError as error:
        raise SettingError(f"{SETTING}: {error}") from None
    if find_spec("vllm") is None:
        raise MissingExtraError("vllm", "vllm", "text_engine 'vllm'")
    return asked


def writes_whole(policy: Policy) -> bool:
    """Whether there is something in a policy for an engine to write: whole answers of one model."""
    return bool(policy.needs & _WRITERS) and not policy.in_turns


def check_text_engine(settings: TeacherSettings) -> None:
    """Before anything is loaded: whether the engine that the settings name can write what their policy asks for.

    Raises:
        SettingError: it cannot.
        MissingExtraError: it is not installed.
    """
    engine, policy = parse_text_engine(settings.text_engine), parse_policy(settings.policy)
    if engine is None:
        return
    told = f"text_engine: {settings.text_engine}"
    if not policy.needs & _WRITERS:
        raise SettingError(f"{told} writes for a policy such as student or teacher, and with {policy} no model writes.")
    if policy.in_turns:
        raise SettingError(
            f"{told} writes whole answers, and with {policy} student and teacher write one text in turns; "
            "leave text_engine out."
        )
    if parse_server(settings.teacher) is not None and policy == TeacherText():
        raise SettingError(
            f"{told} runs a model in this process, and with {policy} the server writes; leave text_engine out."
        )
    for name in ("student_sampling", "teacher_sampling"):
        try:
            engine.check(parse_sampling(getattr(settings, name)))
        except SettingError as error:
            raise SettingError(f"{name}: {error}") from None
    if world_size() > 1:
        raise SettingError(
            f"{told} writes in runs of one process, and these are {world_size()}; leave text_engine out."
        )
