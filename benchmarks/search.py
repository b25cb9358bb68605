"""Encoding and distilling encoders beside sentence-transformers: the same networks, texts, batches and lengths.

In one process, in turn (A B A B …): all documents through an encoder, ours beside ``SentenceTransformer.encode``, both from
text; and an epoch of distillation by squared differences of margins. Ours has the teacher in the loop and compares all
documents of a batch; ``SentenceTransformerTrainer`` with ``MarginMSELoss`` compares one other document of each query, with
margins that the teacher makes before, each text once, which is in its time. All that either does is timed: tokenising,
checks, loading, training. The figure is our seconds by theirs in the same round, median and quartiles: below 1, ours is
faster. The first round warms up and is left out. Needs ``sentence-transformers`` and ``datasets``. Without ``--teacher`` and
``--student`` the encoders are made in place, of random weights.

    python benchmarks/search.py --threads 1 --rounds 4
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from typing import Any

import torch
from _alone import parse, seconds_of
from _rounds import Bar, Spread, machine, print_bars, print_facts, write_json
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MarginMSELoss
from sentence_transformers.util import pairwise_cos_sim

import limbeck
from limbeck.data.search import Example, SearchData, Texts, Tokenising, word_tokenizer
from limbeck.evaluate.search import embed
from limbeck.models.encoders import Encoder, create_encoder, open_encoder

WORDS = 4000


def main() -> None:
    """Measure, print the table, and write the JSON file."""
    options = _options()
    facts = machine(options.device, options.threads)
    print_facts(facts)
    data = _collection(options)
    teacher, student = (_encoder(options, data, which) for which in ("teacher", "student"))
    found: dict[str, list[list[float]]] = {"encode": [[], []], "train": [[], []]}
    for number in range(options.rounds + 1):
        ways = {
            "encode": (_encode_ours, _encode_theirs),
            "train": (_train_ours, _train_theirs),
        }
        for name, pair in ways.items():
            seconds = [
                seconds_of(
                    lambda way=way: way(options, data, copy.deepcopy(teacher), copy.deepcopy(student)), options.device
                )
                for way in pair
            ]
            if number:
                for place, each in enumerate(seconds):
                    found[name][place].append(each)
                print(
                    f"round {number}, {name}: ours {seconds[0]:.2f} s, sentence-transformers {seconds[1]:.2f} s",
                    flush=True,
                )
    words = {"encode": "encoding documents", "train": "an epoch of distillation"}
    bars = [
        Bar.of(f"{words[name]}: ours ÷ sentence-transformers'", Spread.of_ratios(*pair), 1.0)
        for name, pair in found.items()
    ]
    print_bars(bars)
    write_json(options.json, {"machine": facts, "seconds": found, "bars": [bar.as_dict() for bar in bars]})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--length", type=int, default=64, help="tokens of the longest text; documents are half of it to all"
    )
    parser.add_argument("--documents", type=int, default=2000, help="that are encoded; repeated where there are fewer")
    parser.add_argument("--teacher", metavar="FOLDER", help="an encoder, instead of one that is made in place")
    parser.add_argument("--student", metavar="FOLDER")
    return parse(parser, rounds=4)


def _collection(options: argparse.Namespace) -> SearchData:
    """Documents of random words, queries of a few of them, and an example for each query with one other document.

    It has the documents of its examples and no others, as a file of examples has.
    """
    generator = torch.Generator().manual_seed(0)
    queries = options.steps * options.batch
    lengths = torch.randint(options.length // 2, options.length - 1, (queries,), generator=generator).tolist()
    rows = [torch.randint(0, WORDS, (length,), generator=generator).tolist() for length in lengths]
    documents = [" ".join(f"w{word}" for word in row) for row in rows]
    asked = [" ".join(f"w{word}" for word in row[:8]) for row in rows]
    examples = tuple(Example(place, place, ((place + 1) % queries,)) for place in range(queries))
    return SearchData(
        "random",
        Texts(tuple(f"d{place}" for place in range(queries)), tuple(documents)),
        Texts(tuple(f"q{place}" for place in range(queries)), tuple(asked)),
        {},
        examples,
    )


def _encoder(options: argparse.Namespace, data: SearchData, which: str) -> Encoder:
    folder = getattr(options, which)
    if folder is not None:
        encoder = open_encoder(folder)
    else:
        torch.manual_seed(len(which))
        text = {"teacher": "bert(layers=6, width=256, heads=4)", "student": "bert(layers=2, width=128, heads=4)"}[which]
        tokenizer = word_tokenizer([*data.documents.texts, *data.queries.texts])
        encoder = create_encoder(text, tokenizer=tokenizer, max_length=options.length).encoder
    encoder.model.max_seq_length = min(options.length, encoder.max_length)
    return encoder.to(options.device).eval()


def _encoded(options: argparse.Namespace, data: SearchData) -> list[str]:
    known = data.documents.texts
    return [known[place % len(known)] for place in range(options.documents)]


def _encode_ours(options: argparse.Namespace, data: SearchData, teacher: Encoder, student: Encoder) -> None:
    texts = _encoded(options, data)
    rows = Tokenising(student.tokenizer, student.max_length, student.prompt("document"))(texts)
    embed(student, rows, batch_size=options.batch, device=options.device)


def _encode_theirs(options: argparse.Namespace, data: SearchData, teacher: Encoder, student: Encoder) -> None:
    texts = _encoded(options, data)
    student.model.encode(texts, batch_size=options.batch, show_progress_bar=False, convert_to_tensor=True)


def _train_ours(options: argparse.Namespace, data: SearchData, teacher: Encoder, student: Encoder) -> None:
    limbeck.distill(
        teacher,
        student,
        data,
        "margin_mse",
        negatives=1,
        epochs=1,
        batch_size=options.batch,
        max_length=options.length,
        val_fraction=0.0,
        optimizer="adamw",
        lr=1e-4,
        schedule="constant",
        clip_norm=1.0,
        device=options.device,
        allow_weak_teacher=True,
    )


def _train_theirs(options: argparse.Namespace, data: SearchData, teacher: Encoder, student: Encoder) -> None:
    model = student.model
    with tempfile.TemporaryDirectory() as folder:
        settings = SentenceTransformerTrainingArguments(
            output_dir=folder,
            use_cpu=options.device == "cpu",
            per_device_train_batch_size=options.batch,
            num_train_epochs=1,
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            report_to=[],
            save_strategy="no",
            logging_steps=50,
            disable_tqdm=True,
            dataloader_num_workers=0,
        )
        trainer = SentenceTransformerTrainer(
            model=model,
            args=settings,
            train_dataset=_margins(options, data, teacher.model),
            loss=MarginMSELoss(model, similarity_fct=pairwise_cos_sim),
        )
        trainer.train()


def _margins(options: argparse.Namespace, data: SearchData, teacher: SentenceTransformer) -> Dataset:
    """Queries, their documents and others, with the teacher's margins, for which it encodes each text once."""

    def vectors(texts: Any) -> torch.Tensor:
        found: torch.Tensor = teacher.encode(
            list(texts), batch_size=options.batch, show_progress_bar=False, convert_to_tensor=True
        )
        return found

    used = sorted({place for example in data.examples for place in (example.positive, *example.negatives)})
    rows = {place: row for row, place in enumerate(used)}
    documents, queries = vectors(data.documents.texts[place] for place in used), vectors(data.queries.texts)
    positive = torch.tensor([rows[example.positive] for example in data.examples])
    other = torch.tensor([rows[example.negatives[0]] for example in data.examples])
    margins = pairwise_cos_sim(queries, documents[positive]) - pairwise_cos_sim(queries, documents[other])
    return Dataset.from_dict(
        {
            "query": list(data.queries.texts),
            "positive": [data.documents.texts[example.positive] for example in data.examples],
            "negative": [data.documents.texts[example.negatives[0]] for example in data.examples],
            "label": margins.tolist(),
        }
    )


if __name__ == "__main__":
    main()
