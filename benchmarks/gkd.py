"""A step of generalised knowledge distillation beside TRL's GKD trainer: the same models, prompts, batch and tokens written.

In one process, in turn (A B A B …): optimizer steps of each, in every one of which the student answers a batch of prompts and
learns from the teacher by the generalised Jensen-Shannon divergence at β = 0.5. Models are Llamas with random weights, whose
answers hardly ever end before ``--new`` tokens. The figure is our seconds by TRL's in the same round, median and quartiles:
below 1, ours is faster. The first round warms up and is left out. Needs ``trl`` and ``datasets``.

    python benchmarks/gkd.py --threads 1 --rounds 4
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from _alone import parse
from _rounds import Bar, Spread, machine, print_bars, print_facts, write_json
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl.experimental.gkd import GKDConfig, GKDTrainer

import limbeck
from limbeck.data.text import Example, TextData
from limbeck.data.text.examples import Message

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} {{ message['content'] }} "
    "{% if message['role'] == 'assistant' %}<end> {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def main() -> None:
    """Measure, print the table, and write the JSON file."""
    options = _options()
    facts = machine(options.device, options.threads)
    print_facts(facts)
    tokenizer, chats = _chats(options)
    teacher, student = (_model(options, layers, width) for layers, width in (options.teacher, options.student))
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(options.rounds + 1):
        seconds = [
            way(options, tokenizer, chats, copy.deepcopy(teacher), copy.deepcopy(student)) for way in (_trl, _ours)
        ]
        if number:
            theirs.append(seconds[0])
            ours.append(seconds[1])
            print(
                f"round {number}: TRL {seconds[0] / options.steps:.3f} s a step, ours {seconds[1] / options.steps:.3f} s"
            )
    bars = [Bar.of("a GKD step: ours ÷ TRL's", Spread.of_ratios(ours, theirs), 1.0)]
    print_bars(bars)
    write_json(options.json, {"machine": facts, "bars": [bar.as_dict() for bar in bars]})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--new", type=int, default=32, help="tokens of each answer")
    parser.add_argument("--teacher", type=int, nargs=2, default=[6, 384], help="layers and width")
    parser.add_argument("--student", type=int, nargs=2, default=[3, 256], help="layers and width")
    parser.add_argument("--vocabulary", type=int, default=8192)
    return parse(parser, rounds=4)


def _model(options: argparse.Namespace, layers: int, width: int) -> LlamaForCausalLM:
    torch.manual_seed(layers)
    config = LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def _chats(options: argparse.Namespace) -> tuple[PreTrainedTokenizerFast, list[list[dict[str, str]]]]:
    words = {"<pad>": 0, "<end>": 1, "<unk>": 2, "user": 3, "assistant": 4}
    words |= {f"w{number}": number for number in range(len(words), options.vocabulary)}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")
    tokenizer.chat_template = TEMPLATE
    generator = torch.Generator().manual_seed(0)

    def text(count: int) -> str:
        return " ".join(f"w{n}" for n in torch.randint(5, options.vocabulary, (count,), generator=generator).tolist())

    chats = [
        [{"role": "user", "content": text(24)}, {"role": "assistant", "content": text(options.new)}]
        for _ in range(options.steps * options.batch)
    ]
    return tokenizer, chats


def _trl(options: argparse.Namespace, tokenizer: Any, chats: Any, teacher: Any, student: Any) -> float:
    with tempfile.TemporaryDirectory() as folder:
        settings = GKDConfig(
            output_dir=folder,
            use_cpu=options.device == "cpu",
            per_device_train_batch_size=options.batch,
            max_steps=options.steps,
            lmbda=1.0,
            beta=0.5,
            temperature=0.9,
            max_new_tokens=options.new,
            max_length=128,
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            gradient_checkpointing=False,
            bf16=False,
            report_to=[],
            save_strategy="no",
            logging_steps=50,
            disable_tqdm=True,
            dataloader_num_workers=0,
        )
        trainer = GKDTrainer(
            model=student,
            teacher_model=teacher,
            args=settings,
            train_dataset=Dataset.from_list([{"messages": chat} for chat in chats]),
            processing_class=tokenizer,
        )
        return float(trainer.train().metrics["train_runtime"])


def _ours(options: argparse.Namespace, tokenizer: Any, chats: Any, teacher: Any, student: Any) -> float:
    examples = [Example(i, messages=tuple(Message(**turn) for turn in chat)) for i, chat in enumerate(chats)]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(Path(folder) / "tokenizer")
        done = limbeck.distill(
            teacher,
            student,
            TextData("chats", "chat", examples, None, None),
            "jsd(beta=0.5)",
            policy="mixed(student, fixed, share=1.0, per='batch')",
            student_sampling="temperature=0.9",
            tokenizer=f"hf:{Path(folder) / 'tokenizer'}",
            epochs=1,
            batch_size=options.batch,
            max_length=128,
            max_new_tokens=options.new,
            optimizer="adamw",
            lr=1e-4,
            schedule="constant",
            clip_norm=1.0,
            device=options.device,
            allow_weak_teacher=True,
            answers=0,
        )
    return done.result.seconds


if __name__ == "__main__":
    main()
