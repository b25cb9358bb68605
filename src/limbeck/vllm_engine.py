"""Whole answers of a model by vLLM, inside of this process.

Imports vllm, so it is imported where one is asked for.
"""

from __future__ import annotations

import copy
import gc
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from limbeck.errors import SettingError
from limbeck.models.language.lora import plain_weights, unwrapped
from limbeck.policies import Wish, Written
from limbeck.random_state import RandomState
from limbeck.taps import evaluating
from limbeck.text_engine import Vllm

_GIB = 2**30
# A prompt of so many tokens, of which so many log-probabilities are compared at the start.
_CHECKED, _COMPARED = 16, 10
# Of what logits spread, and of what they are rounded to: bfloat16 is within a few percent.
_TOLERANCE, _ROUNDING = 0.2, 0.02


class VllmEngine:
    """A second copy of a model's weights in vLLM, brought up to date before each answer.

    vLLM computes in the type that autocast has where it is on, else in the weights' own. It draws with a generator of its own,
    so that texts are other ones than this library's from the same seed; each is a function of its seed alone, up to rounding.

    Args:
        model: of transformers, with or without adapters.
        asked: how.
        longest: tokens of a prompt with its answer, for which there must be memory; None for the model's context.
    """

    def __init__(self, model: nn.Module, asked: Vllm, longest: int | None = None) -> None:
        self._model, self._asked, self._longest = model, asked, longest
        self._engine: Any = None
        self._loaded = False

    def open(self) -> None:
        """Start vLLM, once. Raises SettingError where it cannot run the model."""
        if self._engine is None:
            # One that nobody holds would take the process groups of all others with it once it is collected.
            gc.collect()
            with _surroundings(), tempfile.TemporaryDirectory() as folder:
                self._write_config(folder)
                self._engine = self._start(folder)
            try:
                with _surroundings():
                    self._bring_up_to_date()
                    self._check_same()
            except Exception:
                self.close()
                raise

    def _write_config(self, folder: str) -> None:
        model = unwrapped(self._model)
        config = copy.deepcopy(model.config)
        config.architectures = [type(model).__name__]
        # vLLM (0.32) forgets that two layers share weights when it gets new ones; it is given them for both.
        config.tie_word_embeddings = config.get_text_config(decoder=True).tie_word_embeddings = False
        config.save_pretrained(folder)

    def _start(self, folder: str) -> Any:
        from vllm import LLM

        parameter = next(self._model.parameters())
        kind = parameter.device.type
        if parameter.device.index:
            raise SettingError(
                f"text_engine: vLLM takes the first GPU that it sees, and this run is on {parameter.device}; show the process "
                "that GPU alone (CUDA_VISIBLE_DEVICES)."
            )
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else parameter.dtype
        eager = self._asked.eager
        try:
            return LLM(
                model=folder,
                load_format="dummy",
                skip_tokenizer_init=True,
                generation_config="vllm",
                dtype=str(dtype).removeprefix("torch."),
                enforce_eager=kind == "cpu" if eager is None else eager,
                kv_cache_memory_bytes=int(self._asked.memory * _GIB),
                # A share of the whole GPU that must be free at the start, and is not read otherwise where bytes are given.
                gpu_memory_utilization=0.01,
                max_model_len=self._length,
                seed=0,
            )
        except Exception as error:  # vLLM has no class of errors of its own for what it cannot run
            _clean_up()
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> SettingError:
        reason = " ".join(str(error).split())
        more = " It gets more as in 'vllm(memory=8)'." if "memory" in reason.lower() else ""
        return SettingError(f"text_engine: vLLM cannot run {type(self._model).__name__}: {reason:.500}{more}")

    def _check_same(self) -> None:
        """Raise SettingError where vLLM does not compute what the model does: weights that it did not find would not show."""
        from vllm import SamplingParams

        prompt = [place % self._width for place in range(3, 3 + min(_CHECKED, (self._length or _CHECKED) - 1))]
        told = SamplingParams(max_tokens=1, temperature=0, logprobs=min(_COMPARED, self._width), detokenize=False)
        made = self._engine.generate([{"prompt_token_ids": prompt}], told, use_tqdm=False)[0].outputs[0].logprobs[0]
        theirs = torch.tensor([each.logprob for each in made.values()])
        parameter: Any = next(self._model.parameters())
        with evaluating(self._model), torch.no_grad():
            logits = self._model(input_ids=torch.tensor([prompt], device=parameter.device)).logits[0, -1].float().cpu()
        apart = (logits.log_softmax(-1)[list(made)] - theirs).abs().mean()
        if apart > _TOLERANCE * logits.std() + _ROUNDING:
            raise SettingError(
                f"text_engine: vLLM does not compute what {type(self._model).__name__} does here: the log-probabilities of the "
                f"most likely tokens are {float(apart):.2g} apart, where logits spread by {float(logits.std()):.2g}. Leave "
                "text_engine out."
            )

    def write(self, prompts: Sequence[Sequence[int]], wish: Wish) -> list[Written]:
        """Answers to prompts of token ids."""
        from vllm import SamplingParams

        self.open()
        with _surroundings():
            self._bring_up_to_date()
            wishes = [SamplingParams(**sampling_arguments(wish, seed, self._width)) for seed in wish.seeds]
            asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
            made = self._engine.generate(asked, wishes, use_tqdm=False)
        answers = [each.outputs[0] for each in made]
        # NaN for an answer of which one logit was.
        return [Written(list(each.token_ids), not math.isnan(each.cumulative_logprob)) for each in answers]

    def _bring_up_to_date(self) -> None:
        learns = any(parameter.requires_grad for parameter in self._model.parameters())
        if self._loaded and not learns:
            return
        try:
            with torch.no_grad():
                weights = {"weights_iterator": plain_weights(self._model)}
                self._engine.collective_rpc("reload_weights", kwargs=weights)
        except Exception as error:  # such as a name or a shape that vLLM's form of the model has not
            raise self._refused(error) from error
        # What was kept of a prompt's beginning is the old weights'.
        self._engine.reset_prefix_cache()
        self._loaded = True

    def close(self) -> None:
        """Stop vLLM. It has process groups for all of its engines, so that these are closed together."""
        if self._engine is not None:
            self._engine.llm_engine.engine_core.shutdown()
            self._engine, self._loaded = None, False
            _clean_up()

    @property
    def _length(self) -> int | None:
        """None for what vLLM makes of the configuration."""
        context = getattr(self._text_config, "max_position_embeddings", None)
        return self._longest if self._longest is None or not context else min(int(context), self._longest)

    @property
    def _width(self) -> int:
        return int(self._text_config.vocab_size)

    @property
    def _text_config(self) -> Any:
        model: Any = self._model
        return model.config.get_text_config(decoder=True)


def sampling_arguments(wish: Wish, seed: int, width: int) -> Mapping[str, Any]:
    """What vLLM is told of one answer. ``width``: how many logits the model has."""
    return {
        "temperature": wish.sampling.temperature,
        "top_p": wish.sampling.top_p,
        "top_k": wish.sampling.top_k,
        "seed": seed,
        "max_tokens": wish.longest,
        "stop_token_ids": list(wish.ends),
        # The model's own idea of an end may be another than the tokenizer's.
        "ignore_eos": True,
        "detokenize": False,
        # Of the token itself alone, which shows logits that are not finite.
        "logprobs": 0,
        # What is allowed would be a list of the whole vocabulary for each answer; what is not is short.
        **({"logit_bias": dict.fromkeys(range(wish.vocabulary, width), -100.0)} if wish.vocabulary < width else {}),
    }


def _clean_up() -> None:
    """Take down what an engine left in the process, also one that could not start."""
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()
    gc.collect()


@contextmanager
def _surroundings() -> Iterator[None]:
    """Inside the block vLLM runs in this process, quietly; random generators and variables are afterwards as before."""
    told = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    for name, value in (("VLLM_LOGGING_LEVEL", "ERROR"), ("VLLM_CPU_OMP_THREADS_BIND", "nobind")):
        told[name] = os.environ.get(name, value)
    before = {name: os.environ.get(name) for name in told}
    random = RandomState.now()
    os.environ.update(told)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old
        random.restore()
