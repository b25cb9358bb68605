"""Text of one model: against a model that has no cache and no batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import MambaConfig, MambaForCausalLM, T5Config, T5ForConditionalGeneration

from limbeck.errors import DataError, NonFiniteError, SettingError, TeacherError
from limbeck.policies import Draw, Sampling, Source, Stream, Writer, generate

from .reference import all_logits, drawn
from .tiny import CONTEXT, END, PAD, Watched, network, prompts, ragged, student, teacher, texts

DRAW = Draw(seed=4, step=2)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.8, 0.7), Sampling(0)])
def test_each_row_is_what_the_model_writes_alone_and_without_a_cache(family: str, sampling: Sampling) -> None:
    writer, given = Writer(network(family, seed=1), sampling), ragged(max_new_tokens=14)
    response = generate(writer, given, DRAW)
    table = DRAW.uniforms(Stream.STUDENT, given.names, 14)
    answers = texts(response.tokens, response.mask)
    for row, answer in enumerate(answers):
        prompt = given.tokens[row][given.mask[row]].tolist()
        after = all_logits(writer.model, prompt + answer)[len(prompt) - 1 :]
        assert answer == [drawn(after[at], sampling, float(table[row, at])) for at in range(len(answer))]
        assert END not in answer[:-1]
        assert answer[-1] == END or len(answer) == 14


def test_the_padding_of_answers_and_the_source() -> None:
    response = generate(teacher(), ragged(), DRAW, Stream.TEACHER)
    assert (response.tokens[~response.mask] == PAD).all()
    assert response.mask[:, 0].all()
    assert len(set(response.mask.sum(-1).tolist())) > 1
    assert response.mask.any(0).all()
    assert response.source.dtype == torch.int8
    assert set(response.source[response.mask].tolist()) == {Source.TEACHER}
    assert set(response.source[~response.mask].tolist()) <= {Source.NONE}


def test_a_row_does_not_depend_on_its_batch_nor_on_its_place_in_it() -> None:
    whole = ragged(max_new_tokens=20)
    answers = texts(*(lambda r: (r.tokens, r.mask))(generate(student(), whole, DRAW)))
    for which in ([3], [4, 0], [2, 1, 3]):
        response = generate(student(), whole.select(torch.tensor(which)), DRAW)
        assert texts(response.tokens, response.mask) == [answers[row] for row in which]


def test_the_same_step_writes_the_same_and_another_step_another_text() -> None:
    first, again = (generate(student(), ragged(), DRAW) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    torch.rand(3)  # the global generators have no part in it
    before = torch.get_rng_state()
    other = generate(student(), ragged(), replace(DRAW, step=3))
    assert torch.equal(before, torch.get_rng_state())
    assert texts(first.tokens, first.mask) != texts(other.tokens, other.mask)


def test_several_ends_and_the_bound_are_kept_and_counted() -> None:
    given = ragged(end=(END, 3, 5), max_new_tokens=3)
    response = generate(student(), given, DRAW)
    answers = texts(response.tokens, response.mask)
    ended = [answer[-1] in (END, 3, 5) for answer in answers]
    assert not any(token in (END, 3, 5) for answer in answers for token in answer[:-1])
    assert all(len(answer) == 3 for answer, over in zip(answers, ended, strict=True) if not over)
    assert response.statistics.cut_off == ended.count(False)
    assert response.statistics.tokens == sum(map(len, answers)) == int(response.mask.sum())
    assert response.statistics.rows == 5
    assert 0 < response.statistics.cut_off < 5


def test_nothing_is_read_twice_and_rows_that_ended_are_not_read() -> None:
    writer = student()
    with Watched(writer.model) as watched:
        response = generate(writer, ragged(max_new_tokens=20), DRAW)
    prompt, *passes = watched.shapes
    lengths = response.mask.sum(-1)
    assert prompt == (5, 5)  # all of a prompt but its last token, which the first pass reads
    assert passes == [(int((lengths > place).sum()), 1) for place in range(int(lengths.max()))]
    assert response.statistics.student_passes == len(watched.shapes)


def test_dropout_is_off_and_modules_train_afterwards_as_before() -> None:
    model = network("gpt2", seed=1)
    model.train()
    model.transformer.h[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    noisy = generate(Writer(model), ragged(), DRAW)
    assert {name: module.training for name, module in model.named_modules()} == before
    model.eval()
    assert torch.equal(noisy.tokens, generate(Writer(model), ragged(), DRAW).tokens)
    assert not noisy.tokens.is_inference()


@pytest.mark.parametrize(
    ("stream", "error", "who"), [(Stream.STUDENT, NonFiniteError, "student"), (Stream.TEACHER, TeacherError, "teacher")]
)
def test_logits_that_are_nan_are_an_error_with_the_row(stream: Stream, error: type[Exception], who: str) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network(seed=1)
            self.config = self.inner.config

        def forward(self, **inputs: Any) -> Any:
            output = self.inner(**inputs)
            output.logits[1:2] = float("nan")
            return output

    given = ragged(rows=torch.tensor([10, 11, 12, 13, 14]))
    with pytest.raises(error, match=rf"the {who}'s logits are NaN .* row 1 of the batch \(of the data: row 11\)"):
        generate(Writer(Broken()), given, DRAW, stream)


def test_prompts_that_do_not_fit() -> None:
    fits = prompts([1] * 6, [1], max_new_tokens=CONTEXT - 6, end=(END,))
    generate(Writer(network("gpt2", seed=1), Sampling(0)), replace(fits, end=tuple(range(8))), DRAW)
    with pytest.raises(
        DataError, match=rf"context is {CONTEXT} tokens; a prompt of 6 and 91 new tokens need 97: row 0 of"
    ):
        generate(student(), replace(fits, max_new_tokens=91), DRAW)
    with pytest.raises(DataError, match="token ids outside of the student's vocabulary of 0 to 7: 9 in row 1"):
        generate(student(), prompts([1], [9]), DRAW)
    with pytest.raises(SettingError, match="the pad token id is 8, but the student's vocabulary ends at 7"):
        generate(student(), prompts([1], pad=8), DRAW)
    with pytest.raises(SettingError, match="the end-of-sequence token id is 50256"):
        generate(student(), prompts([1], end=50256), DRAW)


def test_padded_tables_are_cut_to_the_vocabulary() -> None:
    writer = Writer(network(seed=1), vocabulary=5)
    response = generate(writer, prompts([1, 2], [3], end=4), DRAW)
    assert int(response.tokens.max()) < 5
    with pytest.raises(SettingError, match="vocabulary is 9, but the model has 8 logits"):
        Writer(network(seed=1), vocabulary=9)


def test_a_model_whose_state_cannot_be_rolled_back_is_refused() -> None:
    config = MambaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, state_size=4)
    with pytest.raises(SettingError, match=r"MambaForCausalLM cannot write here: its cache .* cannot be rolled back"):
        generate(Writer(MambaForCausalLM(config)), ragged(), DRAW)
    with pytest.raises(SettingError, match="Linear is no Hugging Face language model"):
        Writer(nn.Linear(2, 2))
    seq2seq = T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(SettingError, match="T5ForConditionalGeneration is no causal language model: it has an encoder"):
        Writer(T5ForConditionalGeneration(seq2seq))
