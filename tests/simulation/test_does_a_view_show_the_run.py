"""Does the view hold what the run found: by tile, by link, over time, and along the critical path?"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tierform
from tierform import Job, Result, TierformError, load_chip, simulate
from tierform.simulation.elasticity import elasticities
from tierform.simulation.job_file import load_job
from tierform.simulation.page_timeline import PIECES
from tierform.simulation.schedule import schedule_stage
from tierform.simulation.schedule_critical import Span
from tierform.simulation.schedule_layers import BLOCK_INPUT, Edge, Layer, ScheduledOperator

GOLDEN = Path(__file__).parent / "golden" / "view.json"
View = dict[str, Any]
TUNE = tierform.FineTuning(tierform.LoRA(8), batch=2, sequence=64)
FULL = tierform.FineTuning(tierform.Full(), batch=2, sequence=64, steps=3)
ASK = tierform.Inference(batch=2, sequence=64, decode=8)
RUNS: dict[str, tuple[str, Any, str, dict[str, Any]]] = {
    "3d": ("bert-base", TUNE, "atleus", {"thermal": "transient"}),
    "2.5d": ("bert-base", FULL, "atleus-2.5d", {}),
    "planar": ("bert-base", tierform.Inference(batch=1, sequence=32), "x-former", {}),
    "gpu": ("gpt2", ASK, "h100", {}),
    "cold": ("gpt2", ASK, "atleus", {"thermal": "none"}),
}


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest) -> tuple[Result, View]:
    model, task, chip, options = RUNS[request.param]
    result = simulate(model, task, chip, **options)
    return result, result.view()


def summed(by_stage: dict[str, list[float]], number: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return sum((np.array(values) for values in by_stage.values()), np.zeros(number))


def test_do_arrays_agree_in_length_and_go_through_json(run: tuple[Result, View]) -> None:
    _, view = run
    assert json.loads(json.dumps(view, allow_nan=False)) == view
    tiles, links = view["tiles"], view["links"]
    number = len(tiles["die"])
    for values in (tiles["x"], tiles["y"], tiles["holds"], *tiles["power_W"].values(), *tiles["energy_J"].values()):
        assert len(values) == number
    assert number == sum(die["grid"][0] * die["grid"][1] for die in view["dies"])
    for values in (links["to"], links["kind"], links["B_per_s"], *links["B"].values()):
        assert len(values) == len(links["from"])
    assert len({len(view["weights"][key]) for key in ("tile", "matrix", "layer", "crossbars")}) == 1


def test_are_power_and_energy_of_the_tiles_those_of_the_run(run: tuple[Result, View]) -> None:
    result, view = run
    tiles = view["tiles"]
    assert summed(tiles["energy_J"], len(tiles["die"])) == pytest.approx(np.array(result.energy_J_by_tile), rel=1e-9)
    if result.thermal is None:
        assert tiles["temperature_K"] is None and view["dies"][0]["power_W"] is None
        return
    power = np.array(tiles["power_W"]["dynamic"]) + np.array(tiles["power_W"]["leakage"])
    assert power == pytest.approx(np.array(result.thermal["tile_power_W"]), rel=1e-9)
    for index, die in enumerate(view["dies"]):
        mine = np.array(tiles["die"]) == index
        assert power[mine].sum() == pytest.approx(die["power_W"], rel=1e-9)
        assert np.array(tiles["temperature_K"])[mine].max() == pytest.approx(die["peak_K"])


def test_do_links_join_neighbours_and_carry_what_was_sent(run: tuple[Result, View]) -> None:
    result, view = run
    tiles, links = view["tiles"], view["links"]
    assert summed(links["B"], len(links["from"])) == pytest.approx(np.array(result.link_bytes), rel=1e-9)
    pairs = set(zip(links["from"], links["to"], strict=True))
    for one, other, kind in zip(links["from"], links["to"], links["kind"], strict=True):
        assert (other, one) in pairs  # both directions
        apart = [abs(tiles[axis][one] - tiles[axis][other]) for axis in ("die", "x", "y")]
        if kind == "planar":
            assert apart in ([0, 1, 0], [0, 0, 1])
        elif kind == "vertical":
            assert apart == [1, 0, 0]
        else:
            assert apart[0] > 0 and view["package"] == "2.5d"


def test_do_weights_sit_on_tiles_that_hold_their_component(run: tuple[Result, View]) -> None:
    result, view = run
    weights, holds = view["weights"], view["tiles"]["holds"]
    for tile, row in zip(weights["tile"], weights["matrix"], strict=True):
        assert weights["matrices"][row]["component"] in [name for name, _ in holds[tile]]
    assert sum(weights["crossbars"]) == pytest.approx((result.crossbars or {"used": 0})["used"])


def test_are_operators_those_of_the_result(run: tuple[Result, View]) -> None:
    result, view = run
    assert len(view["operators"]) == len(result.operators)
    for shown, row in zip(view["operators"], result.operators, strict=True):
        assert (shown["name"], shown["stage"], shown["component"]) == (row.name, row.stage, row.component)
        for what in ("times", "busy_s", "energy_J", "operations", "memory_B", "network_B"):  # of one chip, which is all
            assert shown[what] == pytest.approx(getattr(row, what)), what
        if row.component in view["components"]:
            held = [[name for name, _ in view["tiles"]["holds"][tile]] for tile in shown["tiles"]]
            assert all(row.component in names for names in held)


def test_does_the_critical_path_sum_to_the_time(run: tuple[Result, View]) -> None:
    result, view = run
    path = view["limits"]["critical_path_s"]
    assert sum(path.values()) == pytest.approx(result.latency_s, rel=1e-9)
    assert min(path.values()) > 0
    most = max(path, key=lambda name: path[name])
    stages = view["limits"]["stages"]
    assert max(limit["gains_s"].get(most, 0.0) for limit in stages) > 0  # what takes most of the path limits somewhere


def test_are_writes_those_of_the_ledger() -> None:
    """Three steps rewrite every learning weight three times: passes times cells are the cells written."""
    result = simulate("bert-base", FULL, "atleus-2.5d")
    view, part = result.view(), load_chip("atleus-2.5d").components["reram"]
    tiles = load_chip("atleus-2.5d").tiles_of("reram")
    each = part.crossbars * part.cells_per_crossbar / len(tiles)  # type: ignore[attr-defined]
    assert sum(view["tiles"]["writes_per_cell"]) * each == pytest.approx(result.wear.cell_writes, rel=1e-9)
    assert result.wear.cell_writes > 0


def test_are_temperatures_over_time_those_of_the_transient() -> None:
    model, task, chip, options = RUNS["3d"]
    result = simulate(model, task, chip, **options)
    view = result.view()
    heat = view["heat"]["temperature_K"]
    coded = np.frombuffer(base64.b64decode(heat["int16"]), dtype="<i2").reshape(heat["shape"])
    kelvin = heat["offset"] + heat["scale"] * coded
    assert result.thermal is not None
    for index, die in enumerate(view["dies"]):
        mine = np.array(view["tiles"]["die"]) == index
        told = result.thermal["transient"]["peak_K_by_die"][die["name"]]
        assert kelvin[:, mine].max(axis=1) == pytest.approx(np.array(told), abs=heat["scale"] / 2 + 1e-9)


def test_can_the_job_of_a_view_be_run_again(tmp_path: Path) -> None:
    job = Job("bert-base", TUNE, "atleus", micro_batches=2)
    first = job.simulate()
    (tmp_path / "job.json").write_text(json.dumps(first.view()["job"]))
    assert load_job(tmp_path / "job.json") == job
    assert first.view()["job_lacks"] == []


def test_does_the_view_of_a_varied_chip_hold_it_whole(tmp_path: Path) -> None:
    varied = load_chip("atleus").vary({"components.reram.adc_bits": 6, "name": "mine <b>"})
    view = simulate("bert-base", TUNE, varied).view()
    assert view["chip"] == "mine <b>" and view["job_lacks"] == ["chip"]
    from ruamel.yaml import YAML

    with (tmp_path / "mine.yaml").open("w") as file:
        YAML().dump({"schema": "tierform.chip/1", **view["job"]["chip"]}, file)
    assert load_chip(tmp_path / "mine.yaml") == varied


def test_is_influence_there_when_asked_for() -> None:
    job = Job("bert-base", tierform.Inference(batch=1, sequence=64), "atleus", thermal="none")
    paths = ["components.reram.parts.adc.energy", "network.width"]
    view = job.simulate().view(elasticities(job, paths))
    assert {one["constant"] for one in view["influence"]} == set(paths)
    width = next(one for one in view["influence"] if one["constant"] == "network.width")
    assert (width["value"], width["unit"]) == (256, "bit") and width["latency"] <= 0
    assert job.simulate().view()["influence"] == []


def test_has_a_pipeline_a_view_without_limits_that_goes_through_a_file(tmp_path: Path) -> None:
    split = tierform.Parallelism(pipeline=2)
    result = simulate("gpt2", ASK, "h100", parallelism=split)
    assert result.view()["limits"] is None and result.view()["chips"] == 2
    result.save(tmp_path / "run.json")
    assert Result.load(tmp_path / "run.json").view() == result.view()


def test_has_a_file_of_an_older_version_no_view(tmp_path: Path) -> None:
    result = simulate("gpt2", ASK, "h100")
    content = result.content()
    assert content["view"] == result.view()
    del content["view"]
    again = Result.from_content(content)
    assert not again.has_view and again.content()["view"] is None
    with pytest.raises(TierformError, match="where the simulation ran"):
        again.view()


def test_are_the_dies_of_a_quick_view_those_of_the_view(tmp_path: Path) -> None:
    result = simulate("gpt2", ASK, "atleus")
    assert result.quick_view() == {"dies": result.view()["dies"]} and len(result.view()["dies"]) == 4
    result.save(tmp_path / "run.json")
    assert Result.load(tmp_path / "run.json").quick_view()["dies"] == result.view()["dies"]


# -- the critical path by hand ------------------------------------------------------------------------------------
def path_of(*steps: ScheduledOperator, count: int = 1, micro: int = 1) -> tuple[float, dict[str, float]]:
    made = schedule_stage([[(Layer("layer", steps), count)]], (micro,), 1, record=True)
    return made.makespan_s, made.critical()


def test_is_the_path_of_a_chain_all_of_it() -> None:
    """a (2 s, and 0.5 s until its result is there), a transfer of 1 s, b (3 s): 6.5 s on a, network, b."""
    first = ScheduledOperator("a", "a", 2.0, tail_s=0.5, after=(Edge(BLOCK_INPUT),))
    second = ScheduledOperator("b", "b", 3.0, after=(Edge(0, path="way", transfer_s=1.0),))
    assert path_of(first, second) == (6.5, {"b": 3.0, "network": 1.0, "a": 2.5})


def test_goes_the_path_over_the_busy_resource() -> None:
    """Four micro-batches through a (1 s) and b (3 s): a once, then b four times, 13 s; a's tail hides behind b."""
    first = ScheduledOperator("a", "a", 1.0, after=(Edge(BLOCK_INPUT),))
    second = ScheduledOperator("b", "b", 3.0, after=(Edge(0),))
    assert path_of(first, second, micro=4) == (13.0, {"b": 12.0, "a": 1.0})


def test_does_a_side_branch_leave_the_path() -> None:
    """b (5 s) and c (1 s) both wait for a (1 s), d (1 s) waits for both: a, b, d."""
    steps = (
        ScheduledOperator("a", "a", 1.0, after=(Edge(BLOCK_INPUT),)),
        ScheduledOperator("b", "b: weights", 5.0, after=(Edge(0),)),
        ScheduledOperator("c", "c", 1.0, after=(Edge(0),)),
        ScheduledOperator("d", "d", 1.0, fetch="memory", fetch_s=0.5, after=(Edge(1), Edge(2))),
    )
    assert path_of(*steps) == (7.0, {"d": 1.0, "b": 5.0, "a": 1.0})


def test_is_a_long_fetch_on_the_path() -> None:
    """d's 9 s of data are fetched while a and b work, from the start on: 9 s of memory, then 1 s of d."""
    steps = (
        ScheduledOperator("a", "a", 1.0, after=(Edge(BLOCK_INPUT),)),
        ScheduledOperator("d", "d", 1.0, fetch="memory", fetch_s=9.0, after=(Edge(0),)),
    )
    assert path_of(*steps) == (10.0, {"d": 1.0, "memory": 9.0})


def test_is_the_path_told_in_order_of_time() -> None:
    """a 2 s, and 0.5 s until its result is there; a transfer of 1 s; b 3 s: one unbroken chain."""
    first = ScheduledOperator("a", "a: weights", 2.0, tail_s=0.5, after=(Edge(BLOCK_INPUT),))
    second = ScheduledOperator("b", "b", 3.0, after=(Edge(0, path="way", transfer_s=1.0),))
    made = schedule_stage([[(Layer("layer", (first, second)), 1)]], (1,), 1, record=True)
    assert made.path() == [Span(0.0, 2.5, "a: weights"), Span(2.5, 3.5, "network"), Span(3.5, 6.5, "b")]


def test_is_the_path_of_a_timeline_that_of_the_limits() -> None:
    """By piece, the row that leads; so short spans between long ones go, and what leads by the limits leads here."""
    view = simulate("bert-base", TUNE, "atleus", timeline=True).view()
    told, spent = view["timeline"], view["limits"]["critical_path_s"]
    assert sum(told["critical"][1::2]) == PIECES and max(told["critical"][::2]) < len(told["rows"])
    found: dict[str, float] = {}
    for row, pieces in zip(told["critical"][::2], told["critical"][1::2], strict=True):
        name = told["rows"][row]["resource"].partition(":")[0] if row >= 0 else ""
        found[name] = found.get(name, 0.0) + pieces / PIECES * told["end_s"]
    first = max(spent, key=lambda name: spent[name])
    assert max(found, key=lambda name: found[name]) == first
    assert found[first] == pytest.approx(spent[first], rel=0.05)


def test_does_something_work_all_the_time() -> None:
    """A schedule's critical path has no gap; a row of crossbars alone would say less, being a mean over layers."""
    told = simulate("bert-base", TUNE, "atleus", timeline=True).view()["timeline"]
    share = np.frombuffer(base64.b64decode(told["any"]), dtype=np.uint8)
    rows = [np.frombuffer(base64.b64decode(row["share"]), dtype=np.uint8) for row in told["rows"]]
    assert len(share) == PIECES and (share >= np.max(rows, axis=0)).all()
    assert share.mean() / 255 > 0.97 > np.max(rows, axis=0).mean() / 255


def by_piece(runs: list[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.repeat(runs[::2], runs[1::2])


def test_do_layers_follow_the_model_and_back() -> None:
    """GPT-2, one pass on one GPU: embedding, layers 0 to 11, head, one after the other.  Training goes back again."""
    told = simulate("gpt2", tierform.Inference(batch=1, sequence=64), "h100", timeline=True).view()["timeline"]
    (row,) = [row for row in told["rows"] if row["resource"] == "gpu"]
    met = list(dict.fromkeys(told["layers"][one] for one in row["layer"][::2] if one >= 0))
    assert met == ["embedding", *range(12), "head"]
    assert set(row["micro_batch"][::2]) <= {-1, 0}
    told = simulate("bert-base", TUNE, "atleus", timeline=True).view()["timeline"]
    assert sorted(one for one in told["layers"] if isinstance(one, int)) == list(range(12))
    start = {stage["name"]: stage["start_s"] / told["end_s"] * PIECES for stage in told["stages"]}
    (row,) = [row for row in told["rows"] if row["resource"] == "systolic"]
    numbers = np.array([one if isinstance(one, int) else -1 for one in told["layers"]] + [-1])[by_piece(row["layer"])]
    forward, backward = numbers[: int(start["backward"])], numbers[int(start["backward"]) + 1 : int(start["update"])]
    first = [np.flatnonzero(part == k)[0] for part in (forward, backward[::-1]) for k in range(12)]
    assert first[:12] == sorted(first[:12]) and first[12:] == sorted(first[12:])
    micro = by_piece(row["micro_batch"])
    assert len(micro) == len(numbers) == PIECES and {0, 1} <= set(micro.tolist()) <= {-1, 0, 1}


# -- the schema -----------------------------------------------------------------------------------------------------
def shape_of(value: Any) -> Any:
    """Keys and kinds of values; of lists and of objects by name only the first entry."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape_of(value[0])] if value else []
    return "null" if value is None else "number" if isinstance(value, int | float) else type(value).__name__


def test_is_the_layout_that_of_this_version() -> None:
    """What breaks this breaks pages: add keys, or give the schema a new number."""
    shapes = {}
    for name in ("3d", "gpu"):
        model, task, chip, options = RUNS[name]
        shapes[name] = shape_of(simulate(model, task, chip, timeline=name == "3d", **options).view())
        shapes[name]["job"] = "as in its file"
        shapes[name]["labels"] = list(shapes[name]["labels"].values())[:1]
    assert shapes == json.loads(GOLDEN.read_text())


def test_is_every_key_told() -> None:
    told = (Path(__file__).parents[2] / "docs" / "view.md").read_text()
    model, task, chip, options = RUNS["3d"]
    view = simulate(model, task, chip, **options).view()
    keys = {*view, *view["tiles"], *view["links"], *view["weights"], *view["weights"]["matrices"][0]}
    keys |= {*view["dies"][0], *view["operators"][0], *view["memories"][0], *view["heat"], *view["limits"]}
    assert {key for key in keys if f"`{key}`" not in told} == set()
