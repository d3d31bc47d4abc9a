"""Is the least of each number of a tile of crossbars taken, and less refused with its key?"""

from __future__ import annotations

from typing import Any

import pytest

from tierform.chip.description import load_component
from tierform.errors import TierformError

COUNTS = (
    "crossbars",
    "rows",
    "cell_bits",
    "dac_bits",
    "crossbars_per_macro",
    "active_rows",
    "max_weight_bits",
    "max_input_bits",
    "columns_per_adc",
    "adc_bits",
)


def refused(**changes: Any) -> list[tuple[str, str]]:
    """The key and the reason of each problem; empty where the tile is taken."""
    try:
        load_component("tile", 1, "isaac-tile-32nm", changes)
    except TierformError as error:
        return [(str(problem.key), problem.what) for problem in error.problems]
    return []


@pytest.mark.parametrize("key", COUNTS)
def test_is_one_enough_and_none_too_few(key: str) -> None:
    assert refused(**{key: 1}) == []
    assert refused(**{key: 0}) == [(key, "must be at least 1")]


@pytest.mark.parametrize(("encoding", "guards", "least"), [("offset", 0, 1), ("differential", 0, 2), ("offset", 3, 4)])
def test_does_a_weight_need_its_columns(encoding: str, guards: int, least: int) -> None:
    given = {"encoding": encoding, "guard_columns": guards}
    assert refused(columns=least, **given) == []
    for fewer in range(1, least):
        ((key, what),) = refused(columns=fewer, **given)
        assert key.endswith("columns") and what == f"a weight takes at least {least} columns"
    # None at all is one mistake, not two.
    ((key, what),) = refused(columns=0, **given)
    assert key.endswith("columns") and "at least 1" in what


def test_may_all_rows_be_active_and_no_more() -> None:
    assert refused(rows=64, active_rows=64) == []
    ((key, what),) = refused(rows=64, active_rows=65)
    assert key.endswith("active_rows") and what == "an array has 64 rows"


def test_do_converters_fit_what_they_convert() -> None:
    def at_once(number: float) -> list[tuple[str, str]]:
        return refused(parallel_writes={"value": str(number), "kind": "assumed", "note": "toy"})

    assert at_once(1) == [] and at_once(0.5)[0][1] == "must be at least 1"
    ((key, _),) = refused(adc_kind="integrating")
    assert key.endswith("neuron")
    ((key, what),) = refused(domain="digital")
    assert key.endswith("adc_kind") and what == "a digital array has no converter"
    assert refused(domain="digital", adc_kind="none") == []
    # All mistakes at once.
    assert len(refused(domain="digital", rows=64, active_rows=65)) == 2
