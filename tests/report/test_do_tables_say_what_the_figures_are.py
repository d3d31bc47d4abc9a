"""Does every table say the figures of a made-up result, with shares and sums done by hand?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tierform.report import tables


def result(**changes: Any) -> Any:
    """Two seconds, ten joules, four chips."""
    figures: dict[str, Any] = {
        "chip": "made-up",
        "latency_s": 2.0,
        "energy_J": 10.0,
        "energy_delay_product_Js": 20.0,
        "average_power_W": 5.0,
        "area_m2": 1e-4,
        "chips": 4,
        "parallelism": {"tensor": 2, "pipeline": 1, "data": 2},
        "operations": 1e12,
        "parameters": 4_000_000,
        "trainable_parameters": 1_000_000,
        "throughput": {"training_tokens_per_s": 50.0},
        "flops_utilization": {"model": 0.4, "hardware": 0.5},
        "communication": {"busy_s": 1.0, "exposed_s": 0.5},
        "crossbars": {"available": 200, "used": 50, "streamed": 7},
        "operation_share": {"cells": 0.9, "arrays": 0.1},
        "energy_J_by_part": {"arrays: mac": 1.0, "cells: crossbar": 2.0},
        "operations_by_component": {"cells": 3e11, "arrays": 1e11},
        "energy_J_by_component": {"arrays": 4.0, "memory": 6.0},
        "utilization": {"arrays": 0.25},
        "operations_by_operator": {"matmul": 3e11},
        "energy_J_by_operator": {"softmax": 1.0, "matmul": 9.0},
        "memory_footprint_B": {"weights": 3000, "kv_cache": 0, "master_weights": 1000},
        "memory_placement_B": {"weights": {"gpu": 2000, "ddr": 1000}},
        "memory_read_B": 300.0,
        "memory_write_B": 100.0,
        "memory_spill_B": {"ddr": 50.0},
        "crossbar_writes": 0,
        "wear": SimpleNamespace(
            cell_writes=600, writes_per_cell=2.0, endurance_writes=1e6, lifetime_tasks=5e5, lifetime_s=86400.0
        ),
        "thermal": None,
    }
    return SimpleNamespace(**{**figures, **changes})


def rows(table: tables.Table) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in table.rows}


def test_what_does_the_summary_say() -> None:
    found = rows(tables.summary(result()))
    assert found["chips"] == ("4 (tensor 2, data 2)",)
    assert found["model FLOPs utilization"] == ("40.0% (50.0% with what is run again)",)
    assert found["communication exposed"] == ("500 ms, 25.0% of the time (a chip's links work 1 s)",)
    assert found["crossbars"] == ("50 of 200 hold weights (25.0%); 7 are streamed",)
    assert found["share of operations in crossbars"] == ("90.00% (as published for Atleus: forward, layers)",)
    assert found["parameters"][0].endswith("(1 M learn)")
    alone = result(
        chips=1,
        communication={},
        crossbars={"available": 3, "used": 3, "streamed": 0},
        flops_utilization={"model": 0.4, "hardware": 0.4},
        trainable_parameters=0,
    )
    found = rows(tables.summary(alone))
    assert "chips" not in found and "communication exposed" not in found
    assert found["crossbars"] == ("3 of 3 hold weights (100.0%)",)
    assert found["model FLOPs utilization"] == ("40.0%",)
    assert found["parameters"][0].endswith("(none learn)")
    asked = rows(tables.summary(result(throughput={"decode_tokens_per_s": 8.0})))
    assert "model FLOPs utilization" not in asked and asked["decode rate"] == ("8 token/s",)


def test_are_decode_steps_one_line() -> None:
    def stage(name: str, repeat: int, seconds: float, joules: float) -> SimpleNamespace:
        return SimpleNamespace(name=name, repeat=repeat, latency_s=seconds, energy_J=joules)

    made = result(
        stages=[stage("prefill", 1, 0.5, 4.0), stage("decode[4]", 2, 0.5, 1.0), stage("decode[6]", 3, 1, 5.0)]
    )
    assert rows(tables.stages(made)) == {
        "prefill": ("1", "500 ms", "25.0%", "4 J", "40.0%"),
        "decode": ("5", "1.5 s", "75.0%", "6 J", "60.0%"),
    }


def test_what_do_components_and_classes_say() -> None:
    # The largest energy first; operations are shared among all of those that compute.
    table = tables.components(result())
    assert table.rows == (
        ("memory", "0 OP", "0.0%", "6 J", "60.0%", ""),
        ("arrays", "100 GOP", "25.0%", "4 J", "40.0%", "25.0%"),
    )
    assert tables.components(result(operations_by_component={})).rows[0][2] == ""
    assert tables.operator_classes(result()).rows == (
        ("matmul", "300 GOP", "9 J", "90.0%"),
        ("softmax", "0 OP", "1 J", "10.0%"),
    )


def test_what_do_memory_wear_and_heat_say() -> None:
    assert tables.memory(result()).rows == (
        ("weights", "3 kB", "gpu 2 kB, ddr 1 kB"),
        ("master weights", "1 kB", "on the chip"),
        ("total", "4 kB", ""),
        ("traffic", "400 B", "75.0% of it read"),
        ("spilled, traffic with ddr", "50 B", "did not fit nearer"),
    )
    worn = rows(tables.wear(result()))
    assert worn["most writes of one cell"] == ("2",) and worn["endurance"] == ("1e+06 writes",)
    assert worn["lifetime at this rate"] == ("5e+05 tasks, 1 days",)
    short = SimpleNamespace(**{**vars(result().wear), "lifetime_s": 60.0})
    assert rows(tables.wear(result(wear=short)))["lifetime at this rate"] == ("5e+05 tasks, 60 s",)
    unworn = SimpleNamespace(**{**vars(result().wear), "lifetime_s": None, "lifetime_tasks": None})
    assert rows(tables.wear(result(wear=unworn)))["lifetime at this rate"] == ("0 tasks, 0 s",)
    fresh = SimpleNamespace(**{**vars(result().wear), "cell_writes": 0})
    assert rows(tables.wear(result(wear=fresh))) == {"cell writes": ("0: no crossbar is written during the task",)}
    assert tables.wear(result(crossbars={})).rows == () == tables.heat(result()).rows
    assert tables.holder(result()) == "cells" and tables.holder(result(energy_J_by_part={"gpu: memory": 1.0})) == ""


def test_which_operators_are_the_busiest() -> None:
    def row(stage: str, name: str, times: int, busy: float) -> SimpleNamespace:
        return SimpleNamespace(stage=stage, name=name, component="gpu", times=times, busy_s=busy, energy_J=2 * busy)

    made = result(operators=[row("decode[4]", "q", 2, 1.0), row("decode[5]", "q", 3, 2.0), row("prefill", "q", 1, 4.0)])
    table = tables.operators(made)
    assert table.rows == (("prefill", "q", "gpu", "1", "4 s", "8 J"), ("decode", "q", "gpu", "5", "3 s", "6 J"))
    assert table.title.endswith("(of 2)") and tables.operators(made, 1).rows == table.rows[:1]
    many = result(operators=[row("prefill", f"op{n}", 1, 20.0 - n) for n in range(13)])
    assert [line[1] for line in tables.operators(many).rows] == [f"op{n}" for n in range(12)]


def test_are_ratios_against_the_last() -> None:
    fast, base = result(chip="fast", latency_s=0.5, energy_J=20.0, energy_delay_product_Js=10.0), result(chip="base")
    found = rows(tables.comparison([fast, base]))
    assert found["speed-up over base"] == ("4x", "1x")
    assert found["energy saving over base"] == ("0.5x", "1x")
    assert found["energy-delay gain over base"] == ("2x", "1x")
    assert rows(tables.comparison([result(latency_s=0.0), base]))["speed-up over base"] == ("-", "1x")
