from __future__ import annotations

import pytest
import torch

from limbeck.errors import NonFiniteError
from limbeck.evaluate import score
from limbeck.signals import Batch


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_logit_that_is_not_finite_is_no_score(value: float) -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    logits[2, 1] = value
    batch = Batch(torch.zeros(6), torch.zeros(6, dtype=torch.int64))
    with pytest.raises(NonFiniteError, match="for 1 of 6 predictions"):
        score(lambda batch: logits, [batch])


def test_only_minus_infinity_stands_where_a_class_is_excluded() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    excluded = torch.zeros(6, 3, dtype=torch.bool)
    excluded[2, 1] = True
    batch = Batch(torch.zeros(6), torch.zeros(6, dtype=torch.int64), excluded=excluded)
    logits[2, 1] = -torch.inf
    assert score(lambda batch: logits, [batch]).count == 6
    logits[2, 1] = torch.nan
    with pytest.raises(NonFiniteError):
        score(lambda batch: logits, [batch])
