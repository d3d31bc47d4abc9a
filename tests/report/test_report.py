"""Are tables made of the result's own numbers, and does the trace hold the schedule?"""

from __future__ import annotations

import pytest

import tierform
from tierform.report import tables, trace
from tierform.simulation import Result


@pytest.fixture(scope="module")
def results() -> list[Result]:
    task = tierform.FineTuning(tierform.LoRA(8), batch=2, sequence=64)
    return [tierform.simulate("bert-base", task, chip, timeline=True) for chip in ("atleus", "a100")]


def test_does_every_trace_event_have_a_named_thread(results: list[Result]) -> None:
    made = trace.events(results[0])
    names = {(event["pid"], event["tid"]) for event in made if event["name"] == "thread_name"}
    assert {(event["pid"], event["tid"]) for event in made if event["ph"] == "X"} == names
    without = tierform.simulate("bert-base", tierform.Inference(sequence=16), "a100")
    with pytest.raises(tierform.TierformError, match="no timeline"):
        trace.events(without)


def test_do_tables_have_the_cells_that_their_heads_name(results: list[Result]) -> None:
    made = [*tables.all_tables(results[0]), *tables.all_tables(results[1]), tables.operators(results[0])]
    made += [tables.comparison(results), tables.assumptions(results[0].assumptions)]
    for table in made:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.head)}
    side = {row[0]: row[1:] for row in tables.comparison(results).rows}
    assert side["speed-up over a100"][1] == "1x"


def test_does_to_table_give_plain_rows(results: list[Result]) -> None:
    for kind in ("operator", "component", "class", "stage", "part", "tile", "limit", "assumption"):
        assert results[0].to_table(kind)
    with pytest.raises(tierform.TierformError, match="no such table"):
        results[0].to_table("crossbar")
