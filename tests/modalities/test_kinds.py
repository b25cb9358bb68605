"""Which kind some data are of, and what follows of it alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import limbeck
from limbeck.data import load_data
from limbeck.data.search import load_search
from limbeck.data.text import load_text
from limbeck.modalities import Images, Modality, Search, Text, modality_of
from limbeck.objectives import CE, Contrastive

SUMS, SEARCHED = "arithmetic(digits=1, train=8, val=2, test=2)", "synonyms(train=40, val=8, test=8)"


def loaders() -> limbeck.Loaders:
    return limbeck.Loaders(DataLoader(TensorDataset(torch.zeros(4, 2), torch.zeros(4).long())))


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        ("digits", Images),
        ("some/folder", Images),
        ("text:some/folder", Text),
        ("sums.jsonl", Text),
        ("arithmetic(digits=2)", Text),
        (f"search:{SEARCHED}", Search),
        ("search:examples.jsonl", Search),
        ("search:some/examples.tsv", Search),
    ],
)
def test_a_setting_names_its_kind(setting: str, kind: type[Modality]) -> None:
    assert modality_of(None, setting) is kind


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (lambda: load_data("digits", train_limit=20, test_limit=10), Images),
        (loaders, Images),
        (lambda: load_text(SUMS), Text),
        (lambda: load_search(SEARCHED)[0], Search),
    ],
)
@pytest.mark.parametrize("setting", ["digits", "arithmetic(digits=2)", "search:synonyms()"])
def test_data_that_are_given_go_before_the_setting(made: Callable[[], Any], kind: type[Modality], setting: str) -> None:
    assert modality_of(made(), setting) is kind


def test_what_is_learnt_without_a_teacher() -> None:
    assert {kind: type(kind.alone()) for kind in (Images, Text, Search)} == {
        Images: CE,
        Text: CE,
        Search: Contrastive,
    }
