from __future__ import annotations

import pytest
import torch

from limbeck.engine.meter import Meter
from limbeck.errors import NonFiniteError


def add(meter: Meter, step: int, **terms: float) -> None:
    meter.add({name: torch.tensor(value) for name, value in terms.items()}, torch.tensor(2), 4, step)


def test_means_since_the_last_fetch() -> None:
    meter = Meter(torch.device("cpu"))
    add(meter, 0, ce=1.0, kd=2.0)
    add(meter, 1, ce=3.0, kd=4.0)
    assert meter.fetch() == {"loss": 5.0, "ce": 2.0, "kd": 3.0, "train_accuracy": 0.5}
    assert meter.fetch() == {}
    add(meter, 2, ce=7.0, kd=0.0)
    assert meter.fetch()["ce"] == 7.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_the_first_bad_step_and_its_term_are_named(bad: float) -> None:
    meter = Meter(torch.device("cpu"))
    add(meter, 5, ce=1.0, kd=1.0)
    add(meter, 6, ce=1.0, kd=bad)
    add(meter, 7, ce=bad, kd=bad)
    with pytest.raises(NonFiniteError, match="term 'kd' became NaN or infinite at step 6"):
        meter.fetch()


def test_other_terms_start_anew_as_between_stages() -> None:
    meter = Meter(torch.device("cpu"))
    add(meter, 0, ce=1.0)
    meter.fetch()
    add(meter, 1, kd=2.0)
    assert meter.fetch() == {"loss": 2.0, "kd": 2.0, "train_accuracy": 0.5}


def test_its_state_can_be_saved_and_loaded() -> None:
    meter, other = Meter(torch.device("cpu")), Meter(torch.device("cpu"))
    add(meter, 0, ce=1.0)
    other.load_state_dict(meter.state_dict())
    add(meter, 1, ce=2.0)
    add(other, 1, ce=2.0)
    assert meter.fetch() == other.fetch()
