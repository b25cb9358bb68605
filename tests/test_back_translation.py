"""Texts once more, as two models translate them; here models that have learnt nothing, and one that says a letter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_text_runs import classified, films
from text_training import weights

from limbeck import back_translation
from limbeck.back_translation import back_translated, parse_back_translation
from limbeck.data.text import Example, TextData
from limbeck.errors import CacheError, SettingError, WeightsError

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model over bytes that answers every text with 'a', whatever it reads."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    sizes = {"vocab_size": 384, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    config = transformers.T5Config(**sizes, decoder_start_token_id=0, tie_word_embeddings=False)
    network = transformers.T5ForConditionalGeneration(config)
    with torch.no_grad():
        # A decoder that looks at its last token alone: after the start an a, after an a the end.
        for parameter in network.parameters():
            parameter.zero_()
        letter = ord("a") + 3
        # The same at both ends, since such models share them.
        table = torch.zeros(384, 16)
        table[0, 0], table[letter, 0], table[letter, 1], table[1, 1] = 1.0, 2.0, 1.0, 6.0
        network.decoder.final_layer_norm.weight.fill_(1.0)
        for weights_ in (network.shared.weight, network.decoder.embed_tokens.weight, network.lm_head.weight):
            weights_.copy_(table)
    network.save_pretrained(folder)
    transformers.ByT5Tokenizer().save_pretrained(folder)
    return str(folder)


def asked(model: str, keep: Path | None = None) -> str:
    return f"there='{model}', back='hf:{model}'" + ("" if keep is None else f", keep='{keep}'")


THREE = [Example(3, "good", label=1), Example(7, "a", label=0), Example(9, "b" * 90, label=0)]
TEXTS = TextData("texts", "classification", THREE, None, None, ("n", "p"))


def test_texts_come_back_under_their_label_and_are_kept(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    found = back_translated(TEXTS, parse_back_translation(asked(model, tmp_path / "k.jsonl")), 64, "cpu", said.append)
    assert found.train == [*TEXTS.train, Example(13, "a", label=1)]
    assert said[-1].strip() == "1 texts more, translated there and back; 2 came back empty, too long or unchanged"
    monkeypatch.setattr(back_translation, "_Translator", None)
    again = back_translated(TEXTS, parse_back_translation(asked(model, tmp_path / "k.jsonl")), 64, "cpu", said.append)
    assert again == found
    with pytest.raises(CacheError, match="translations of other texts, or by other models"):
        back_translated(films(), parse_back_translation(asked(model, tmp_path / "k.jsonl")), 64, "cpu", said.append)


def test_a_run_sees_them(model: str, tmp_path: Path) -> None:
    given = {"augment": "auto", "objective": "ce + kd", "epochs": 1}
    one = classified(**given)
    other = classified(back_translation=asked(model, tmp_path / "k.jsonl"), **given)
    assert not all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("there='a'", "name both models"),
        ("there='a', back='b', kept='c'", "did you mean 'keep'"),
        ("there=1, back='b'", "there must be a text"),
        ("there=", "Expected there='FOLDER'"),
    ],
)
def test_what_cannot_be_asked_for(text: str, told: str) -> None:
    with pytest.raises(SettingError, match=f"back_translation: .*{told}"):
        parse_back_translation(text)


def test_texts_and_models_that_do_not_fit(model: str, tmp_path: Path) -> None:
    sums = TextData("sums", "prompt", [Example(0, "1+1=", "2")], None, None)
    with pytest.raises(SettingError, match="for texts that are classified"):
        back_translated(sums, parse_back_translation(asked(model)), 64, "cpu", print)
    pairs = TextData("pairs", "classification", [Example(0, "a", pair="b", label=0)], None, None, ("n", "p"))
    with pytest.raises(SettingError, match="has pairs"):
        back_translated(pairs, parse_back_translation(asked(model)), 64, "cpu", print)
    (tmp_path / "none").mkdir()
    with pytest.raises(WeightsError, match="is no translation model"):
        back_translated(TEXTS, parse_back_translation(asked(str(tmp_path / "none"))), 64, "cpu", print)
