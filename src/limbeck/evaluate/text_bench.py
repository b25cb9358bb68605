"""Networks on text: classifiers of it, and language models that tell the next token."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from limbeck.config import RunSettings
from limbeck.data.text import EvalTokenBatches, TokenData, TokenSplit
from limbeck.errors import LimbeckError, NonFiniteError, SettingError
from limbeck.evaluate.bench import SPLITS, TEACHER, Bench, ClassBench, Figures
from limbeck.evaluate.collect import Read
from limbeck.evaluate.cost import costs
from limbeck.evaluate.record import Scored
from limbeck.evaluate.text import TokenScore, TokenScorer
from limbeck.evaluate.text.figures import TokenFigures
from limbeck.evaluate.text.writing import writing_costs
from limbeck.networks import Network
from limbeck.progress import Watched
from limbeck.signals import Batch, Signals
from limbeck.token_taps import TokenTapped, language_classifier
from limbeck.tokens import Tokens

_LARGEST = 1e15
_LOGITS = 2**28


@dataclass(frozen=True)
class TextClassBench(ClassBench):
    """Networks that tell the classes of texts."""

    kind = "classification"
    data: TokenData = field(kw_only=True)

    @property
    def name(self) -> str:
        return self.data.name

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.text.classes

    def has(self, split: str) -> bool:
        return getattr(self.data, SPLITS[split]) is not None

    def samples_of(self, split: str) -> Iterable[Batch]:
        # In the order of the split, in which examples are told apart.
        rows = text_split(self.data, split)
        batches = EvalTokenBatches(rows, self.batch_size, by_length=False, device=self.device)
        return Watched(batches, math.ceil(len(rows) / self.batch_size), self.progress)

    def read(self, network: Network) -> Read:
        def read(batch: Batch) -> Signals:
            found: Signals = network.tapped(batch.inputs)
            return found

        return read

    def costs(self, files: Mapping[str, Path | None]) -> Figures:
        return {"cost": _costs(self, text_split(self.data, self.split), files)}

    def tap(self, parts: Collection[str], classifiers: Mapping[str, str]) -> None:
        first = next(iter(self.samples_of(self.split))).inputs[:2]
        for who, network in self.networks.items():
            module, classifier = network.tapped.network, classifiers.get(who)
            try:
                classifier = classifier or language_classifier(module, first, causal=False)
            except LimbeckError as error:
                self.say(f"{who}: no embedding: {error}")
            network.tapped.close()
            made = TokenTapped(module, causal=False, classifier=classifier)
            self.networks[who] = replace(network, tapped=made.eval())


@dataclass(frozen=True)
class LanguageBench(Bench):
    """Causal language models. settings: how many answers are written, and how long they get."""

    kind = "language"
    data: TokenData = field(kw_only=True)
    settings: RunSettings = field(kw_only=True)

    @property
    def name(self) -> str:
        return self.data.name

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    @property
    def rows(self) -> TokenSplit:
        """The split that is evaluated, as tokens."""
        return text_split(self.data, self.split)

    def costs(self, files: Mapping[str, Path | None]) -> Figures:
        models = {who: network.tapped.network for who, network in self.networks.items()}
        writing = writing_costs(
            models,
            self.rows,
            vocabulary=self.data.vocabulary,
            most=self.settings.max_new_tokens,
            batch_size=self.batch_size,
            device=self.device,
            teacher=TEACHER,
        )
        return {"cost": _costs(self, self.rows, files), "writing": writing}

    def _rows_at_a_time(self) -> int:
        """So many that one network's logits of the longest rows are no more than a gigabyte."""
        longest = int(self.rows.lengths.max())
        return max(1, min(self.batch_size, _LOGITS // (longest * self.data.vocabulary)))

    def tap(self, parts: Collection[str], classifiers: Mapping[str, str]) -> None:
        """Nothing is tapped: no part looks at hidden states."""

    def scores(self) -> tuple[dict[str, Scored], Figures]:
        taught = TEACHER in self.networks
        scorers = {who: TokenScorer(with_teacher=taught and who != TEACHER) for who in self.networks}
        with torch.no_grad():
            at_once = self._rows_at_a_time()
            batches = EvalTokenBatches(self.rows, at_once, device=self.device)
            for batch in Watched(batches, math.ceil(len(self.rows) / at_once), self.progress):
                teacher = _logits(self.networks[TEACHER], batch) if taught else None
                for who, scorer in scorers.items():
                    if who == TEACHER:
                        assert teacher is not None
                        scorer.add(teacher, batch.labels)
                    else:
                        scorer.add(_logits(self.networks[who], batch), batch.labels, teacher)
        found = {who: _score(who, scorer) for who, scorer in scorers.items()}
        scored = {
            who: Scored(count=each.tokens, accuracy=each.accuracy, nll=each.nll, agreement=each.agreement, kl=each.kl)
            for who, each in found.items()
        }
        return scored, {
            "tokens": {
                who: TokenFigures(each.perplexity if each.perplexity <= _LARGEST else None, each.reverse_kl)
                for who, each in found.items()
            }
        }


def text_split(data: TokenData, name: str) -> TokenSplit:
    """A split by its name. Raises SettingError, naming those that are there."""
    splits: dict[str, TokenSplit | None] = {each: getattr(data, attribute) for each, attribute in SPLITS.items()}
    split = splits.get(name)
    if split is None:
        there = ", ".join(each for each, found in splits.items() if found is not None)
        raise SettingError(f"split is '{name}', and {data.name} has none; it has {there}.")
    return split


def _logits(network: Network, batch: Batch) -> Tensor:
    logits: Tensor | None = network.tapped(batch.inputs).logits
    assert logits is not None
    return logits


def _score(who: str, scorer: TokenScorer) -> TokenScore:
    try:
        found = scorer.score()
    except NonFiniteError as error:
        raise NonFiniteError(f"{who}: {error}") from None
    if not math.isfinite(found.nll):
        raise NonFiniteError(f"{who}: a token that comes next has probability 0, so the likelihood is not finite.")
    return found


class _Reads(nn.Module):
    """A network that takes rows of tokens (B, L) int64 without any that are filled up."""

    def __init__(self, tapped: nn.Module) -> None:
        super().__init__()
        self.tapped = tapped

    def forward(self, tokens: Tensor) -> None:
        whole = torch.ones_like(tokens, dtype=torch.bool)
        places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        self.tapped(Tokens(tokens, whole, places))


def _costs(bench: Bench, rows: TokenSplit, files: Mapping[str, Path | None]) -> object:
    """Costs on one text of the median length."""
    lengths = rows.lengths
    place = int(lengths.argsort()[len(lengths) // 2])
    end = int(rows.ends[place])
    tokens = rows.tokens[end - int(lengths[place]) : end].long()[None].to(bench.device)
    modules: dict[str, tuple[nn.Module, Tensor]] = {
        who: (_Reads(network.tapped), tokens) for who, network in bench.networks.items()
    }
    return costs(modules, batch_size=bench.batch_size, files=files, teacher=TEACHER)
