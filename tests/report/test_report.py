"""Are tables and pictures made of the result's own numbers, and does the trace hold the schedule?"""

from __future__ import annotations

import pytest

import tierform
from tierform.report import numbers, tables, trace
from tierform.simulation import Result


@pytest.fixture(scope="module")
def results() -> list[Result]:
    task = tierform.FineTuning(tierform.LoRA(8), batch=2, sequence=64)
    return [tierform.simulate("bert-base", task, chip, timeline=True) for chip in ("atleus", "a100")]


def test_do_stacked_bars_sum_to_the_result(results: list[Result]) -> None:
    for made, totals in (
        (numbers.energy_by_component(results), [r.energy_J for r in results]),
        (numbers.energy_by_operator(results), [r.energy_J for r in results]),
        (numbers.time_by_stage(results), [r.latency_s for r in results]),
    ):
        for group, total in enumerate(totals):
            assert sum(values[group] for values in made.values) == pytest.approx(total, rel=1e-9)
        assert made.groups == ("atleus", "a100")


def test_does_the_roofline_bound_every_gpu_operator(results: list[Result]) -> None:
    roof = numbers.roofline(results[1])
    assert roof.names
    for intensity, rate in zip(roof.intensity_per_B, roof.rate_per_s, strict=True):
        # Operands that stay in the cache can make traffic look smaller, never the peak larger.
        assert rate <= max(roof.peak_per_s.values())
        assert intensity > 0


def test_does_the_timeline_keep_to_the_task(results: list[Result]) -> None:
    for result in results:
        bars = numbers.timeline(result, most=10**9)
        ends = [start + length for start, length in zip(bars.start_s, bars.length_s, strict=True)]
        assert max(ends) <= result.latency_s * (1 + 1e-9)
        assert min(bars.start_s) >= -1e-12
        assert bars.left_out == 0
        assert numbers.timeline(result, most=5).left_out == len(result.timeline) - 5


def test_are_heat_maps_those_of_the_tiles(results: list[Result]) -> None:
    maps = numbers.heat_maps(results[0])
    assert maps is not None
    assert maps.names == ("systolic", "reram-1", "reram-2", "reram-3")
    assert all(len(one) == 4 and len(one[0]) == 4 for one in maps.maps_C)
    thermal = results[0].thermal
    assert thermal is not None
    assert max(v for one in maps.maps_C for row in one for v in row) == pytest.approx(thermal["peak_K"] - 273.15)


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


def test_does_the_page_hold_both_results(results: list[Result]) -> None:
    pytest.importorskip("plotly")
    from tierform.report.page import render

    text = render(results)
    assert text.count("plotly.js v") <= 1
    for word in ("bert-base on atleus", "bert-base on a100", "Side by side", "nvidia-a100"):
        assert word in text
