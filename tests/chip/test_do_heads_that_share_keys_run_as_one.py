"""Do heads of queries that share keys stream over the same stationary keys of a systolic array, as one product?

Llama 3.2 1B: 32 heads of queries share 8 heads of keys of width 64.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tierform import Inference, load_chip
from tierform.chip.systolic.component import SystolicArrays
from tierform.chip.systolic.folds import cycles
from tierform.workload import Operator, expand, load_model


def arrays() -> SystolicArrays:
    found = load_chip("tpu-3d").components
    (part,) = (item for item in found.values() if isinstance(item, SystolicArrays))
    return part


def scores(batch: int) -> Operator:
    workload = expand(load_model("llama-3.2-1b"), Inference(batch=batch, sequence=64, decode=1, prefill=False))
    return next(o for _, _, o, _ in workload.occurrences() if o.name == "attention.scores")


@pytest.mark.parametrize("batch", [1, 3])
def test_four_rows_of_a_group_are_one_product(batch: int) -> None:
    part, operator = arrays(), scores(batch)
    assert (operator.m, operator.batch) == (1, 32 * batch)
    joined = replace(operator, m=4, batch=8 * batch)
    mine, theirs = part.cost(operator), part.cost(joined)
    assert mine.latency_s == theirs.latency_s and mine.energy_J == theirs.energy_J
    assert mine.operations == operator.operations


def test_one_array_takes_a_quarter_of_the_folds() -> None:
    """Eight products (4 x 64) by (64 x 65) after each other, not thirty-two of one row."""
    part = replace(arrays(), units=1, parameters=arrays().parameters.model_copy(update={"dataflow": "ws"}))
    p = part.parameters
    one = cycles("ws", 4, 65, 64, p.rows, p.columns, p.overlap)
    assert part.cost(scores(1)).latency_s == pytest.approx(8 * one / p.clock.value, rel=0.25)
    apart = cycles("ws", 1, 65, 64, p.rows, p.columns, p.overlap)
    assert part.cost(scores(1)).latency_s < 0.3 * 32 * apart / p.clock.value


def test_keys_of_their_own_are_products_of_their_own() -> None:
    """GPT-2's heads share nothing."""
    workload = expand(load_model("gpt2"), Inference(batch=1, sequence=64, decode=1, prefill=False))
    operator = next(o for _, _, o, _ in workload.occurrences() if o.name == "attention.scores")
    part = arrays()
    wider = replace(operator, m=2, batch=operator.batch // 2)
    assert part.cost(operator).latency_s != part.cost(wider).latency_s
