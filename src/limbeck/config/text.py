"""How text becomes tokens, and batches of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from limbeck.config.base import Settings


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
