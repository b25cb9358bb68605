"""vLLM itself as the engine: run where it is installed, with  python -m pytest -m slow tests/test_vllm_engine.py"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from policies.tiny import END, network, prompts, ragged, texts, tied
from scipy.stats import chisquare
from text_training import SUMS, distilled, weights
from text_training import network as sums_network
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from limbeck.engine.callbacks import Callback
from limbeck.errors import NonFiniteError, SettingError
from limbeck.models.language import plain_weights, with_lora
from limbeck.policies import Draw, Sampling, Writer, generate
from limbeck.random_state import RandomState
from limbeck.text_engine import Vllm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (extra vllm)"),
    # Its own imports warn.
    pytest.mark.filterwarnings("default"),
]

DRAW = Draw(seed=4, step=2)
# vLLM's kernels for CPUs want heads of 32.
WIDTH = 64
ASKED = Vllm(memory=0.1)


def pair(family: str = "llama", *, seed: int = 1, width: int = WIDTH, **sampling: float) -> tuple[Writer, Writer]:
    """The same model with vLLM and without."""
    model = network(family, seed=seed, width=width)
    return with_vllm(model, **sampling), Writer(model, Sampling(**sampling))


def with_vllm(model: Any, **sampling: float) -> Writer:
    return Writer(model, Sampling(**sampling), engine=ASKED.of(model))


def answers(writer: Writer, given: Any, draw: Draw = DRAW) -> list[list[int]]:
    response = generate(writer, given, draw)
    return texts(response.tokens, response.mask)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_most_probable_text_is_this_librarys(family: str) -> None:
    given = ragged(max_new_tokens=20, end=[END, 4])
    by_vllm, own = pair(family, temperature=0)
    assert answers(by_vllm, given) == answers(own, given)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.7}, {"top_k": 3}, {"top_p": 0.95, "temperature": 2}])
def test_tokens_have_the_models_law(sampling: dict[str, float]) -> None:
    rows = 4000
    by_vllm, own = pair(**sampling)
    given = prompts(*[[3, 1, 2]] * rows, max_new_tokens=1)
    found = np.bincount([answer[0] for answer in answers(by_vllm, given)], minlength=8)
    logits = own.model(input_ids=torch.tensor([[3, 1, 2]])).logits[0, -1]
    # The law is read off this library's own choice at evenly spread numbers.
    uniforms = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    law = np.bincount(own.sampling.choose(logits.detach().expand(200_000, -1), uniforms)[0], minlength=8) / 200_000
    assert not found[law == 0].any()
    assert chisquare(found[law > 0], rows * law[law > 0] / law.sum()).pvalue > 1e-4


def test_a_text_depends_on_its_seed_step_and_row_alone() -> None:
    by_vllm, _ = pair()
    whole = ragged(max_new_tokens=20)
    first = answers(by_vllm, whole)
    assert answers(by_vllm, whole) == first
    assert answers(by_vllm, whole.select(torch.tensor([4, 1]))) == [first[4], first[1]]
    assert answers(by_vllm, whole, Draw(seed=4, step=3)) != first
    assert answers(with_vllm(by_vllm.model), whole) == first


def test_it_writes_with_the_weights_that_the_model_has_now() -> None:
    by_vllm, own = pair(seed=5, temperature=0)
    given = ragged(max_new_tokens=20)
    before = answers(by_vllm, given)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in own.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    after = answers(by_vllm, given)
    assert after == answers(own, given)
    assert after != before


def test_layers_that_share_weights_still_do() -> None:
    model = tied(width=WIDTH)
    by_vllm, own = with_vllm(model, temperature=0), Writer(model, Sampling(temperature=0))
    given = ragged(max_new_tokens=20)
    for scale in (1.0, -0.7):
        with torch.no_grad():
            model.lm_head.weight.mul_(scale)
        assert answers(by_vllm, given) == answers(own, given)


def test_it_writes_with_adapters() -> None:
    torch.manual_seed(0)
    model = with_lora(network(seed=6, width=WIDTH), 2)
    given = ragged(max_new_tokens=20)
    by_vllm, own = with_vllm(model, temperature=0), Writer(model, Sampling(temperature=0))
    before = answers(by_vllm, given)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=3.0)
    assert answers(by_vllm, given) == answers(own, given) != before


def test_tokens_beyond_the_vocabulary_are_never_drawn() -> None:
    by_vllm, _ = pair()
    narrow = Writer(by_vllm.model, vocabulary=5, engine=by_vllm.engine)
    given = prompts(*[[3, 1, 2]] * 200, max_new_tokens=6, end=4)
    assert {token for answer in answers(narrow, given) for token in answer} == {0, 1, 2, 3, 4}


def test_logits_that_are_not_finite_are_an_error() -> None:
    by_vllm, own = pair(seed=7)
    with torch.no_grad():
        own.model.lm_head.weight[2] = torch.nan
    with pytest.raises(NonFiniteError, match="rows 0, 1, 2, 3, 4 of the batch"):
        generate(by_vllm, ragged(), DRAW)


def test_the_process_is_left_as_it_was() -> None:
    by_vllm, _ = pair(seed=8)
    before, variables, threads = RandomState.now(), dict(os.environ), torch.get_num_threads()
    generate(by_vllm, ragged(), DRAW)
    assert torch.equal(RandomState.now().torch, before.torch)
    assert RandomState.now().python == before.python
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_LOGGING_LEVEL", "VLLM_CPU_OMP_THREADS_BIND"):
        assert os.environ.get(name) == variables.get(name)
    assert torch.get_num_threads() == threads


def test_a_model_that_it_cannot_run_is_an_error_that_says_so() -> None:
    class Unheard(LlamaForCausalLM):
        pass

    by_vllm = with_vllm(Unheard(network(width=WIDTH).config))
    with pytest.raises(SettingError, match="text_engine: vLLM cannot run Unheard"):
        generate(by_vllm, ragged(), DRAW)


def family(kind: str) -> Any:
    """A network of another family, of random weights that are large enough to matter."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "vocab_size": 8, "max_position_embeddings": 96, "initializer_range": 0.5}
    ids = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    own = {"head_dim": 32} if kind in ("qwen3", "qwen3_moe", "gemma3") else {}
    own |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": WIDTH} if kind == "qwen3_moe" else {}
    kind = {"gemma3": "gemma3_text"}.get(kind, kind)
    torch.manual_seed(12)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **ids, **own)).eval()


class Stop(Callback):
    def on_log(self, loop: Any, metrics: dict[str, float]) -> None:
        if loop.position.step >= 8:
            loop.save()
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "settings",
    [{"policy": "student"}, {"policy": "mixed(teacher, student)"}, {"policy": "student", "student_lora": "rank=2"}],
)
def test_a_run_with_it_is_repeatable_and_resumes(settings: dict[str, str], tmp_path: Path) -> None:
    networks = {"teacher": "llama(layers=2, width=64, heads=2)", "student": "llama(layers=1, width=64, heads=2)"}

    def run(name: str, **more: Any) -> Any:
        made = {who: sums_network(text, len(who)) for who, text in networks.items()}
        given = {"runs_dir": tmp_path, "log_steps": 1, "checkpoint_steps": 1, **settings, **made, **more}
        return distilled(data=SUMS, name=name, text_engine="vllm(memory=0.1)", **given)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("stopped", callbacks=[Stop()])
    resumed = run("stopped", resume=True)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    own = distilled(data=SUMS, **settings, **{w: sums_network(t, len(w)) for w, t in networks.items()})
    learnt = (name for name in weights(own) if "q_proj" in name)
    assert any(not torch.equal(weights(own)[name], weights(whole)[name]) for name in learnt)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "gemma3", "mistral", "phi3"])
def test_other_families_write_this_librarys_text(kind: str) -> None:
    model = family(kind)
    by_vllm, own = with_vllm(model, temperature=0), Writer(model, Sampling(temperature=0))
    given = ragged(max_new_tokens=12)
    assert answers(by_vllm, given) == answers(own, given)


def test_a_mixture_of_experts_is_written_for_or_refused() -> None:
    model = family("qwen3_moe")
    given = ragged(max_new_tokens=12)
    try:
        found = answers(with_vllm(model, temperature=0), given)
    except SettingError:
        return
    assert found == answers(Writer(model, Sampling(temperature=0)), given)


def test_weights_that_vllm_does_not_take_over_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.vllm_engine.plain_weights", lambda model: iter(list(plain_weights(model))[:2]))
    by_vllm, _ = pair(seed=11)
    with pytest.raises(SettingError, match="does not compute what LlamaForCausalLM does here"):
        generate(by_vllm, ragged(), DRAW)


def test_engines_can_be_closed_and_opened_again() -> None:
    first, own = pair(temperature=0)
    second = with_vllm(network(seed=3, width=WIDTH), temperature=0)
    given = ragged(max_new_tokens=8)
    expected = answers(own, given)
    assert answers(first, given) == expected
    answers(second, given)
    for writer in (first, second):
        assert writer.engine is not None
        writer.engine.close()
    assert answers(first, given) == expected
