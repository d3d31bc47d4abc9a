"""What does a page show of the toy runs: places, power, operators, weights and what works when, derived by hand."""

from __future__ import annotations

import base64
from math import inf
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_what_does_inference_cost_on_one_gpu import PREFILL, decoding
from toy import HERE, INFERENCE, LORA, MODEL, TRAINING, run

import tierform
from tierform.chip.component import Cost, Roof
from tierform.simulation.page_heat import heat_over_time
from tierform.simulation.page_limits import _sentence
from tierform.simulation.page_operators import bound_by
from tierform.simulation.page_timeline import PIECES, _row, _runs, _Work, covered, union
from tierform.simulation.page_view import _writes
from tierform.simulation.traffic import Traffic
from tierform.workload.operator import Kind
from tierform.workload.parallel import Parallelism


def view(task: Any, chip: str, **options: Any) -> dict[str, Any]:
    given = {"thermal": "none", "mapping": "plain", "micro_batches": 1, **options}
    return tierform.simulate(MODEL, task, HERE / f"{chip}.yaml", **given).view()


# -- operators ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changed", "bound"),
    [
        ({}, "compute"),  # its unit 4 s
        ({"read_B": 50.0}, "memory"),  # 5 s of 10 bytes a second
        ({"sent_B": 45.0}, "network"),  # 4.5 s of 0.1 s a byte
        ({"written_s": 6.0}, "writing weights"),
        ({"component": "interconnect"}, "network"),
        (
            {"component": "gpu", "operations": 300.0, "own_B": 20.0},
            "compute",
        ),  # 3 s, 2 s
        ({"component": "gpu", "operations": 100.0, "own_B": 20.0}, "memory"),  # 1 s, 2 s: half of its time
        ({"component": "gpu", "operations": 190.0, "own_B": 19.0}, "neither"),  # 1.9 s each, of 4
        (
            {"component": "gpu", "operations": 30.0, "own_B": 20.0, "kind": Kind.SOFTMAX},
            "compute",
        ),  # 3 s of 10 a second
    ],
)
def test_what_bounds_an_operator(changed: dict[str, Any], bound: str) -> None:
    given = {"component": "cells", "read_B": 0.0, "sent_B": 0.0, "written_s": 0.0, "operations": 0.0, "own_B": 0.0}
    given |= {"kind": Kind.MATMUL, **changed}
    roof = SimpleNamespace(roof=lambda: Roof({"bf16": 100.0}, 10.0, 10.0))
    made: Any = SimpleNamespace(
        chip=SimpleNamespace(can=SimpleNamespace(roofed={"gpu": roof})),
        memory=SimpleNamespace(busy_s=lambda moved: moved.total_B / 10.0),
    )
    item: Any = SimpleNamespace(
        component=given["component"],
        operator=SimpleNamespace(widest="bf16", kind=given["kind"]),
        cost=Cost(4.0, 4.0, operations=given["operations"], memory_read_B=given["own_B"]),
        traffic=Traffic(given["read_B"]),
        moves=[SimpleNamespace(size_B=given["sent_B"], route=SimpleNamespace(seconds_per_B=0.1))],
        programming=Cost(given["written_s"], given["written_s"]),
    )
    assert bound_by(made, item) == bound


# -- places and power -----------------------------------------------------------------------------------------------
def test_where_are_four_tiles_and_what_do_they_draw() -> None:
    page = view(INFERENCE, "toy-tiles")
    tiles, (die,) = page["tiles"], page["dies"]
    assert (tiles["die"], tiles["x"], tiles["y"]) == ([0] * 4, [0, 1, 0, 1], [0, 0, 1, 1])
    assert tiles["holds"] == [[["systolic", 1], ["vector", 1]]] * 4 and die["holds"] == [["systolic", 1], ["vector", 1]]
    assert (die["grid"], die["at"], die["origin_m"], die["limit_K"]) == ([2, 2], None, [0.0, 0.0], None)
    assert (page["package"], page["sink"], page["ambient_K"]) == ("planar", "all", 318.15)
    assert page["components"]["systolic"] == {"type": "systolic", "units": 4, "area_m2": 8e-6, "tiles": 4}
    assert page["memories"] == [{"device": "hbm2", "count": 1, "attached": "systolic", "ports": [0, 1, 2, 3]}]
    # 20 + 2 mW at 300 K, twice as much at the 330 K that are taken without heat.
    assert tiles["temperature_K"] is None and tiles["power_W"]["leakage"] == pytest.approx([44e-3] * 4)
    # All tiles do the same; routers leak a fourth of their sum each.
    result = run(INFERENCE, "toy-tiles")
    spent = [sum(tiles["energy_J"][stage][tile] for stage in ("prefill", "decode")) for tile in range(4)]
    assert spent == pytest.approx(result.energy_J_by_tile) and set(tiles["energy_J"]) == {"prefill", "decode"}
    routers = result.energy_J_by_part["network: idle and leakage"] / result.latency_s
    power = [joules / result.latency_s + routers / 4 for joules in spent]
    assert tiles["power_W"]["dynamic"] == pytest.approx(power)
    assert tiles["writes_per_cell"] == [0.0] * 4


def test_which_links_join_two_tiers_of_two_tiles() -> None:
    page = view(LORA, "toy-stack")
    links, tiles = page["links"], page["tiles"]
    # Tiles 0 and 1 below 2 and 3; 256 bits a nanosecond each way.
    ends = {(a, b): kind for a, b, kind in zip(links["from"], links["to"], links["kind"], strict=True)}
    across = {(0, 1), (1, 0), (2, 3), (3, 2)}
    assert ends == {**dict.fromkeys(across, "planar"), **dict.fromkeys([(0, 2), (2, 0), (1, 3), (3, 1)], "vertical")}
    assert links["B_per_s"] == [32e9] * 8
    assert (tiles["die"], tiles["x"], tiles["y"]) == ([0, 0, 1, 1], [0, 1, 0, 1], [0] * 4)
    assert [die["name"] for die in page["dies"]] == ["arrays", "cells"] and page["sink"] == "last"
    moved = run(LORA, "toy-stack").link_bytes
    assert [sum(parts) for parts in zip(*links["B"].values(), strict=True)] == pytest.approx(moved)


def test_where_do_the_weights_of_the_stack_sit() -> None:
    """Seven crossbars a tile: six matrices of a layer, each in one, the table of words beside those of the second."""
    weights = view(LORA, "toy-stack")["weights"]
    names = ["attention.q", "attention.k", "attention.v", "attention.o", "ffn.up", "ffn.down"]
    shown = [(row["block"], row["weight"], row["replicas"]) for row in weights["matrices"]]
    # One crossbar of the first tile is spare: attention's result has a second copy.
    first = [("layer[0]", name, 2 if name == "attention.o" else 1) for name in names]
    assert shown == [*first, *(("layer[1]", name, 1) for name in names), ("head", "embedding.word", 1)]
    assert all((row["component"], row["layers"], row["learns"]) == ("reram", 1, False) for row in weights["matrices"])
    assert weights["tile"] == [2] * 6 + [3] * 7 and weights["matrix"] == list(range(13))
    assert weights["crossbars"] == [1, 1, 1, 2, 1, 1] + [1] * 7 and weights["layer"] == [0] * 13


def test_what_do_cells_that_learn_write() -> None:
    """Ten crossbars of four cells on tiles 1 and 2, 5 each; one weight of two layers, 3 crossbars in all, learns.

    In two steps each of its crossbars is written twice, those of layer 0 in tile 1, of layer 1 in both tiles.  Of 100
    cells written in a step 200 are; 24 of them are the weight's, the others are spread over both tiles.
    """
    part = SimpleNamespace(cells_per_crossbar=4, crossbars=10)
    placement = SimpleNamespace(
        component="cells", trainable=True, resident=True, total_crossbars=3, layers=2, tiles=((1,), (1, 2))
    )
    frozen = SimpleNamespace(**{**vars(placement), "trainable": False})
    made: Any = SimpleNamespace(
        chip=SimpleNamespace(
            tiles=[None] * 4,
            can=SimpleNamespace(wearing={"cells": part, "others": part}),
            tiles_of=lambda name: (1, 2) if name == "cells" else (),
        ),
        ledger=SimpleNamespace(cell_writes={"cells": 100}),
        mapping=SimpleNamespace(placements=(placement, frozen)),
        steps=2,
        pipeline=1,
    )
    # Writes of crossbars: layer 0 1.5 x 2 in tile 1; layer 1 half of 3 in each; the rest 200 / 4 - 6, half in each.
    assert _writes(made) == pytest.approx([0, (3 + 1.5 + 22) / 5, (1.5 + 22) / 5, 0])
    made.pipeline = 2  # cells written by both groups
    assert _writes(made) == pytest.approx([0, (3 + 1.5 + 9.5) / 5, (1.5 + 9.5) / 5, 0])


def test_what_do_operators_of_a_page_take() -> None:
    page = view(INFERENCE, "toy-gpu")
    tables = {"prefill": PREFILL, "decode[4]": decoding(4), "decode[5]": decoding(5)}
    shown = {(row["stage"], f"{row['block']}/{row['name']}"): row for row in page["operators"]}
    assert [row["id"] for row in page["operators"]] == list(range(len(shown)))
    for stage, table in tables.items():
        for name, row in table.items():
            found = shown[stage, name]
            assert found["times"] == row.times and found["memory_B"] == row.times * (row.read_B + row.write_B)
            assert found["busy_s"] * 1e12 == pytest.approx(row.times * row.ps)
            assert found["energy_J"] * 1e12 == pytest.approx(row.times * row.pJ)
            assert (found["component"], found["tiles"], found["network_B"], found["kernel"]) == ("gpu", [0], 0, "")
            assert found["operations"] == row.times * row.operations
            arithmetic_ps = row.operations * (1 if row.product else 10)
            bound = "compute" if arithmetic_ps > 10 * (row.read_B + row.write_B) else "memory"
            assert found["bound_by"] == bound, name
    # 384 operations of a norm take 3,840 ps, its 224 bytes 2,240.
    assert shown["prefill", "layer/attention_norm"]["bound_by"] == "compute"
    # Of two groups of chips it is the mean, of three steps the sum.
    two = view(INFERENCE, "toy-gpu", parallelism=Parallelism(pipeline=2))
    alone = sum(row["energy_J"] for row in page["operators"])
    assert sum(row["energy_J"] for row in two["operators"]) == pytest.approx(alone / 2)
    three = view(tierform.FineTuning(tierform.Full(), batch=2, sequence=3, steps=3), "toy-gpu")
    once = view(TRAINING, "toy-gpu")
    for more, less in zip(three["operators"], once["operators"], strict=True):
        for what in ("times", "busy_s", "energy_J", "memory_B"):
            assert more[what] == pytest.approx(3 * less[what])


def test_what_do_operators_of_a_page_send() -> None:
    """What crosses the network for each operator of the stack, as its row in the table says."""
    result = run(LORA, "toy-stack")
    shown = result.view()["operators"]
    assert [row["network_B"] for row in shown] == [row.network_B for row in result.operators]
    assert sum(row["network_B"] for row in shown) == pytest.approx(result.network_B) and result.network_B > 0


# -- over time ------------------------------------------------------------------------------------------------------
def test_which_times_do_overlapping_intervals_cover() -> None:
    """1-3, 2-4 and 4-5 meet; 1-3 hides 1.5-2; 7-8 stands alone."""
    start, end = np.array([2.0, 7.0, 1.0, 1.5, 4.0]), np.array([4.0, 8.0, 3.0, 2.0, 5.0])
    starts, ends = union(start, end)
    assert (starts.tolist(), ends.tolist()) == ([1.0, 7.0], [5.0, 8.0])
    # Of ten seconds in five pieces: 1 of 0-2, all of 2-4, 1 of 4-6, 1 of 6-8, none of 8-10.
    assert covered(starts, ends, 10.0, 5).tolist() == pytest.approx([0.5, 1.0, 0.5, 0.5, 0.0])
    assert covered(np.array([0.0]), np.array([10.0]), 10.0, 4).tolist() == [1.0] * 4
    assert covered(np.array([2.5]), np.array([2.75]), 5.0, 2).tolist() == pytest.approx([0.0, 0.1])


def test_how_are_equal_neighbours_told() -> None:
    assert _runs(np.array([3, 3, -1, 4, 4, 4])) == [3, 2, -1, 1, 4, 3]
    assert _runs(np.array([7])) == [7, 1]


def test_what_does_a_row_of_two_layers_show() -> None:
    """In 2000 s, a piece a second: layer 0 does a in 0-1000 s, layer 1 b in 500-600.25 s and a in 1500.5-1501 s."""
    work = _Work([0.0, 500.0, 1500.5], [1000.0, 600.25, 1501.0], [0, 1, 1], ["a", "b", "a"], [0, 1, 1], [0, 0, 1])
    row = _row("cells", work, ["b", "a"], [0, 1], 2000.0)
    assert PIECES == 2000 and (row["resource"], row["lanes"]) == ("cells", 2)
    assert row["busy_s"] == pytest.approx((1000 + 100.25 + 0.5) / 2)
    share = np.frombuffer(base64.b64decode(row["share"]), dtype=np.uint8)
    # 255 stand for all of a piece: one layer of two 127.5, which rounds to even; both all of it; a quarter more 159.4.
    assert (share[0], share[500], share[599], share[600], share[999]) == (128, 255, 255, 159, 128)
    assert (share[1000], share[1500], share[1501]) == (0, 64, 0)
    # Most work where both do something equally much: the name that comes first.  a is number 1.
    assert row["operator"] == [1, 500, 0, 100, 1, 400, -1, 500, 1, 1, -1, 499]
    # Layer 0 for 1000 pieces (both equally for 100 of them), layer 1 in one; the last work is of micro-batch 1.
    assert row["layer"] == row["micro_batch"] == [0, 1000, -1, 500, 1, 1, -1, 499]


def test_is_the_least_work_still_seen() -> None:
    row = _row("r", _Work([0.0], [1e-9], [0], ["a"], [0], [0]), ["a"], [0], 2000.0)
    assert np.frombuffer(base64.b64decode(row["share"]), dtype=np.uint8)[:2].tolist() == [1, 0]


def test_when_does_the_toy_gpu_do_what() -> None:
    """Prefill 111.2 ns, the tokens 58.48 and 60.64 ns; the board works all the time."""
    page = view(INFERENCE, "toy-gpu", timeline=True)["timeline"]
    ends = [0.0, 111.2, 111.2 + 58.48, 230.32]
    stages = [(s["name"], s["start_s"] * 1e9, s["end_s"] * 1e9, s["repeat"]) for s in page["stages"]]
    for place, (stage, name) in enumerate(zip(stages, ("prefill", "decode[4]", "decode[5]"), strict=True)):
        assert stage[0] == name and stage[3] == 1
        assert stage[1:3] == pytest.approx((ends[place], ends[place + 1]))
    (row,) = page["rows"]
    assert row["resource"] == "gpu" and row["lanes"] == 1 and row["busy_s"] * 1e9 == pytest.approx(230.32)
    share = np.frombuffer(base64.b64decode(row["share"]), dtype=np.uint8)
    assert len(share) == page["pieces"] == 2000 and share.min() == 255
    # The first operators: look-ups of 1.92 and 0.96 ns, a sum of 2.4 ns, a norm of 3.84 ns; a piece is 0.11516 ns.
    runs = row["operator"]
    assert [page["names"][number] for number in runs[:8:2]] == [
        "embedding.word.lookup",
        "embedding.position.lookup",
        "embedding.position_add",
        "attention_norm",
    ]
    ends_at = np.cumsum(runs[1:8:2]) * 0.11516
    assert ends_at == pytest.approx(np.cumsum([1.92, 0.96, 2.4, 3.84]), abs=0.11516)
    assert sum(runs[1::2]) == 2000
    assert view(INFERENCE, "toy-gpu")["timeline"] is None


def test_are_temperatures_over_time_hundredths_of_a_degree() -> None:
    kelvin = np.array([[273.15, 373.154], [300.0, 1000.0]])
    heat = SimpleNamespace(over_time_K=kelvin, figures={"transient": {"time_s": [0.0, 1.0], "stage": ["a", "b"]}})
    made: Any = SimpleNamespace(heat=heat)
    told = heat_over_time(made)
    assert told is not None and (told["time_s"], told["stage"]) == ([0.0, 1.0], ["a", "b"])
    coded = told["temperature_K"]
    values = np.frombuffer(base64.b64decode(coded["int16"]), dtype="<i2").reshape(coded["shape"])
    assert values.tolist() == [[0, 10_000], [2_685, 32_767]]  # beyond 327 degrees the most that 16 bits hold
    assert (coded["offset"], coded["scale"], coded["shape"]) == (273.15, 0.01, [2, 2])
    assert heat_over_time(SimpleNamespace(heat=None)) is None  # type: ignore[arg-type]
    heat.over_time_K = None
    assert heat_over_time(made) is None


# -- what limits ----------------------------------------------------------------------------------------------------
def test_which_sentence_tells_what_limits() -> None:
    assert _sentence({"gpu": 3.0, "memory": 1.0}, 4.0) == "Without the time of gpu, 75% of the time would go away."
    # From a fiftieth of the time on.
    assert _sentence({"gpu": 0.02}, 1.0).endswith("2% of the time would go away.")
    for gains, seconds in (({"gpu": 0.0199}, 1.0), ({}, 1.0), ({"gpu": inf}, 0.0)):
        assert _sentence(gains, seconds).startswith("No single resource limits")


def test_what_is_the_critical_path_of_three_steps() -> None:
    page = view(tierform.FineTuning(tierform.Full(), batch=2, sequence=3, steps=3), "toy-gpu")
    assert page["limits"]["critical_path_s"] == pytest.approx({"gpu": page["latency_s"]})
    assert [stage["bound_by"] for stage in page["limits"]["stages"]] == ["gpu"] * 3
    assert page["limits"]["sentence"] == "Without the time of gpu, 100% of the time would go away."
