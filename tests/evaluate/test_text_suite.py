"""Language models and classifiers of text: every figure against the same by hand, and what is refused."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from text_training import STUDENT, SUMS, TEACHER, network

from limbeck.cli.figures import tables
from limbeck.config import TrainSettings
from limbeck.data.text import Example, TextData, TokenData, load_text, tokenised
from limbeck.data.text.corpus import small_tokenizer
from limbeck.errors import MissingExtraError, SettingError
from limbeck.evaluate.bench import Options
from limbeck.evaluate.record import Evaluation, read_evaluation
from limbeck.evaluate.suite import evaluate_networks
from limbeck.models.language import create_language_model
from limbeck.report.evaluation import evaluation_sections
from limbeck.text_feeds import check_same_tokens

SETTINGS = TrainSettings(data=SUMS, max_length=12, max_new_tokens=6, answers=8, batch_size=16)


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Times are taken over moments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("limbeck.evaluate.cost._SECONDS", 0.02)
        yield


@pytest.fixture(scope="module")
def sums() -> TokenData:
    text = load_text(SUMS)
    every = [example for split in (text.train, text.val, text.test) for example in split or ()]
    return tokenised(text, *small_tokenizer("characters", every), max_length=12)


@pytest.fixture(scope="module")
def pair(sums: TokenData) -> Evaluation:
    return evaluate_networks(
        {"small": network(STUDENT, 2)},
        sums,
        teacher=network(TEACHER, 1),
        options=Options(("answers", "cost")),
        settings=SETTINGS,
        batch_size=5,
    )


def test_figures_of_tokens_are_those_by_hand(pair: Evaluation, sums: TokenData) -> None:
    assert sums.test is not None
    student, teacher = network(STUDENT, 2).eval().double(), network(TEACHER, 1).eval().double()
    rows = sums.test.tokens.long().split(sums.test.lengths.tolist())
    found: list[tuple[float, bool, bool, float, float]] = []
    for row, prompt in zip(rows, sums.test.prompts.tolist(), strict=True):
        with torch.no_grad():
            ours, theirs = (each(input_ids=row[None]).logits[0, :, : sums.vocabulary] for each in (student, teacher))
        for place in range(prompt - 1, len(row) - 1):
            p, q = theirs[place].softmax(0), ours[place].softmax(0)
            wanted, first = int(row[place + 1]), int(q.argmax())
            kl = sum(float(a * (a.log() - b.log())) for a, b in zip(p, q, strict=True))
            reverse = sum(float(b * (b.log() - a.log())) for a, b in zip(p, q, strict=True))
            found.append((-math.log(q[wanted]), first == wanted, first == int(p.argmax()), kl, reverse))
    nll, right, same, kl, reverse = (sum(column) / len(found) for column in zip(*found, strict=True))
    small = pair.networks["small"]
    assert (pair.kind, pair.classes, small.count, small.top5) == ("language", (), len(found), None)
    assert small.nll == pytest.approx(nll, rel=1e-5)
    assert small.accuracy == pytest.approx(right)
    assert small.agreement == pytest.approx(same)
    assert small.kl == pytest.approx(kl, rel=1e-4)
    assert pair.tokens is not None
    assert pair.tokens["small"].perplexity == pytest.approx(math.exp(nll), rel=1e-5)
    assert pair.tokens["small"].reverse_kl == pytest.approx(reverse, rel=1e-4)
    assert pair.tokens["teacher"].reverse_kl is None


def test_answers_and_costs(pair: Evaluation) -> None:
    assert pair.answers is not None
    assert pair.writing is not None
    assert pair.cost is not None
    assert (pair.failures, pair.remarks) == ({}, ())
    answered = pair.answers.networks["small"]
    rights = [each.right["small"] for each in pair.answers.samples]
    assert (answered.count, len(rights)) == (8, 8)
    assert answered.exact_match == sum(rights) / 8
    assert sorted(each.index for each in pair.answers.samples) == [each.index for each in pair.answers.samples]
    one, several = pair.writing.networks["small"]
    assert (one.batch, several.batch, one.new_tokens) == (1, 5, 6)
    assert pair.writing.ratios is not None
    assert pair.writing.ratios["small"][1] == pytest.approx(
        several.tokens_per_second / pair.writing.networks["teacher"][1].tokens_per_second
    )
    (length,) = pair.cost.networks["small"].input
    assert 0 < length <= 12
    assert pair.cost.networks["teacher"].macs > pair.cost.networks["small"].macs > 0


def test_it_is_written_read_and_shown(pair: Evaluation, tmp_path: Path) -> None:
    pair.write(tmp_path / "evaluation.json")
    assert read_evaluation(tmp_path / "evaluation.json") == pair
    console = Console(width=140, file=io.StringIO())
    for table in tables(pair):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert all(word in said for word in ("tokens of test", "perplexity", "exact match", "tokens/s, 1 answer of 6"))
    page = {section.name: section for section in evaluation_sections(pair)}
    assert {"evaluation-overview", "evaluation-answers", "evaluation-writing", "evaluation-cost"} <= set(page)
    assert "tokens" in page["evaluation-overview"].lead
    assert "image" not in page["evaluation-cost"].html + page["evaluation-cost"].lead


def test_what_names_no_network_of_the_answers_is_no_evaluation(pair: Evaluation, tmp_path: Path) -> None:
    value: dict[str, Any] = json.loads(json.dumps(pair.as_dict()))
    value["answers"]["samples"][0]["given"]["nobody"] = "5"
    (tmp_path / "evaluation.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"answers\.samples: there is no network 'nobody'"):
        read_evaluation(tmp_path / "evaluation.json")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"options": Options(("robustness",))},
            "'robustness' is for images, and this is text for language models; there",
        ),
        ({"split": "dev"}, "split is 'dev', and arithmetic has none; it has train, validation, test"),
        ({"models": "llama(layers=1, width=16, heads=2)"}, "names no weights, so the network would be random"),
        ({"models": "runs/nothing"}, "there is no run folder or weights file runs/nothing"),
        ({"teacher": "mean(runs/one, runs/two)"}, "several networks, which are evaluated on images alone"),
        ({"options": Options(("tasks",))}, "tasks: name some of lm-eval's"),
    ],
)
def test_what_cannot_be_done_is_refused(sums: TokenData, given: dict[str, Any], said: str) -> None:
    known = {"models": network(STUDENT, 2), "settings": SETTINGS, **given}
    models = known.pop("models")
    with pytest.raises(SettingError, match=re.escape(said)):
        evaluate_networks(models, sums, **known)


def test_lm_eval_is_asked_for_by_the_line_that_installs_it(sums: TokenData) -> None:
    options = Options(("tasks",), tasks=("arc_easy",))
    if find_spec("lm_eval") is None:
        with pytest.raises(MissingExtraError, match=re.escape("pip install 'limbeck[lm-eval]'")):
            evaluate_networks(network(STUDENT, 2), sums, options=options)
    else:
        found = evaluate_networks(network(STUDENT, 2), sums, options=options)
        assert "takes tokenizers of Hugging Face" in found.failures["tasks"]


def test_plain_text_has_no_prompts(sums: TokenData) -> None:
    whole = TextData(
        "story", "text", (Example(0, completion="1+1=2" * 9),), None, (Example(0, completion="2+2=4" * 9),)
    )
    data = tokenised(whole, sums.tokenizer, sums.tokenizer_facts, max_length=12)
    found = evaluate_networks(network(STUDENT, 2), data, options=Options(("answers", "cost")), settings=SETTINGS)
    assert found.answers is None
    assert found.remarks == ("answers are left out: story is plain text, which has no prompts to answer.",)
    assert found.writing is not None
    assert found.failures == {}


def test_networks_with_other_tokens_are_not_compared(sums: TokenData, monkeypatch: pytest.MonkeyPatch) -> None:
    other, facts = small_tokenizer("bytes")
    monkeypatch.setattr("limbeck.text_feeds._of_network", lambda network: (other, facts))
    with pytest.raises(SettingError, match=r"runs/other has a tokenizer of its own, with 258 tokens.*--teacher none"):
        check_same_tokens(sums, ["runs/other"])
    monkeypatch.setattr("limbeck.text_feeds._of_network", lambda network: (sums.tokenizer, sums.tokenizer_facts))
    check_same_tokens(sums, ["runs/same"])


def test_classifiers_of_text_have_the_parts_of_classes() -> None:
    examples = [Example(i, prompt="ab"[i % 2] * (3 + i % 4), label=i % 2) for i in range(40)]
    text = TextData("letters", "classification", examples[:20], examples[20:30], examples[30:], ("a", "b"))
    data = tokenised(text, *small_tokenizer("characters", examples), max_length=8)

    def made(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return create_language_model(
            "bert(layers=1, width=16, heads=2)",
            task="classification",
            vocabulary=data.vocabulary,
            num_classes=2,
            context=8,
            pad=0,
            end=1,
        ).network

    options = Options(("accuracy", "calibration", "fidelity", "retrieval", "cost"))
    found = evaluate_networks(made(0), data, teacher=made(1), options=options, batch_size=4)
    assert (found.kind, found.classes, found.failures, found.remarks) == ("classification", ("a", "b"), {}, ())
    assert found.classification is not None
    assert found.classification["model"].top1 == pytest.approx(found.networks["model"].accuracy)
    assert found.fidelity is not None
    assert found.fidelity["model"].aligned_on == "10 texts of the validation split"
    assert found.fidelity["model"].cka_embedding is not None
    assert found.retrieval is not None
