"""Do strategies find the front of a known space, and does a study lose nothing when it is killed?

``tables/chips288.csv``: 288 chips evaluated exhaustively by version 0.1.0, a table to try strategies on.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tierform.errors import TierformError
from tierform.exploration import results_base
from tierform.exploration.evaluator import JobEvaluator, Outcome, TableEvaluator
from tierform.exploration.front import front_of, hypervolume, knee_of
from tierform.exploration.results_base import ResultsBase
from tierform.exploration.space import Bound, Objective, Parameter, Space, Values, evaluate, point_text, splits
from tierform.exploration.space_file import load_space
from tierform.exploration.strategies import STRATEGIES, History
from tierform.exploration.study import Plan, Study, explore

TABLE = Path(__file__).parent / "tables" / "chips288.csv"
NAMES = ("reram", "sm", "width", "memory", "columns")
WANTED = ("latency_s", "energy_J", "area_m2")


def _rows() -> list[dict[str, float]]:
    with TABLE.open() as file:
        return [{k: int(v) if k in NAMES else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


ROWS = _rows()


def _space(wanted: tuple[str, ...] = WANTED, limits: tuple[Bound, ...] = ()) -> Space:
    parameters = tuple(
        Parameter(name, f"chip.{name}", choices=tuple(sorted({int(row[name]) for row in ROWS}))) for name in NAMES
    )
    return Space("table", parameters, tuple(Objective(figure) for figure in wanted), limits)


def _share(values: NDArray[np.float64]) -> float:
    every = np.array([[row[name] for name in WANTED] for row in ROWS])
    reference = every.max(axis=0) + 0.1 * (every.max(axis=0) - every.min(axis=0))
    return hypervolume(values, reference) / hypervolume(every, reference)


def _brute_front(values: NDArray[np.float64]) -> set[int]:
    beaten = ((values[None] <= values[:, None]).all(2) & (values[None] < values[:, None]).any(2)).any(1)
    return set(np.flatnonzero(~beaten).tolist())


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_is_the_front_that_of_all_pairs_compared(objectives: int) -> None:
    values = np.random.default_rng(objectives).random((60, objectives))
    assert set(front_of(values).tolist()) == _brute_front(values)


def test_is_the_hypervolume_that_of_boxes_counted() -> None:
    """Two boxes from (1, 2, 3) and (2, 1, 3) to (4, 4, 4): 6 + 6 less the 4 that both cover."""
    assert hypervolume(np.array([[1.0, 2, 3], [2, 1, 3]]), np.array([4.0, 4, 4])) == pytest.approx(8.0)
    points, corner = np.random.default_rng(1).random((12, 3)), np.ones(3)
    drawn = np.random.default_rng(2).random((40_000, 3))
    counted = (points[None] <= drawn[:, None]).all(2).any(1).mean()
    assert hypervolume(points, corner) == pytest.approx(counted, abs=0.01)
    assert knee_of(np.array([[0.0, 1], [0.1, 0.1], [1, 0]])) == 1


def test_does_the_surrogate_cover_the_known_front_with_few_points(tmp_path: Path) -> None:
    shares = []
    for seed in range(2):
        space = _space()
        made = explore(
            space, study=tmp_path / f"{seed}.db", budget=40, strategy="surrogate", seed=seed,
            evaluator=TableEvaluator(space, ROWS),
        )  # fmt: skip
        shares.append(_share(made.base.values(3)[1]))
    assert np.median(shares) >= 0.98 and min(shares) >= 0.95


def test_is_the_optimum_found_where_four_fifths_are_infeasible(tmp_path: Path) -> None:
    limits = (Bound("area_m2", most=0.00028), Bound("energy_J", most=13.5))
    feasible = [row for row in ROWS if all(bound.violation(row[bound.figure]) <= 0 for bound in limits)]
    assert 0.15 < len(feasible) / len(ROWS) < 0.2
    best, hits = min(row["latency_s"] for row in feasible), 0
    for seed in range(4):
        space = _space(("latency_s",), limits)
        made = explore(
            space, study=tmp_path / f"{seed}.db", budget=40, strategy="surrogate", seed=seed,
            evaluator=TableEvaluator(space, ROWS),
        )  # fmt: skip
        hits += made.front()[0].outcome.figures["latency_s"] == best if made.front() else 0
    assert hits >= 3


@pytest.mark.parametrize("name", [name for name in STRATEGIES.names() if name not in ("nsga2", "nsga3", "tpe")])
def test_does_a_strategy_keep_its_contract(name: str, tmp_path: Path) -> None:
    """Never a known point, never one twice, the same answer to the same question, no end before the space's."""
    space = Space(
        "small",
        (Parameter("a", "chip.a", choices=(1, 2, 3)), Parameter("b", "chip.b", low=0, high=3, whole=True)),
        (Objective("f"), Objective("g")),
    )
    base = ResultsBase(tmp_path / "s.db")
    study = Study(space, base, Plan(name, 100, 5, 4), _Sums())
    seen: list[Values] = []
    while asked := study.ask(4):
        assert asked == study.ask(4) and len(asked) <= 4
        assert all(point not in seen for point in asked)
        seen += asked
        study.tell(asked, study.evaluator(asked))
    assert len(seen) == 12


@pytest.mark.parametrize("name", ["nsga2", "nsga3", "tpe"])
def test_does_an_optuna_strategy_ask_for_new_points(name: str, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    space = _space()
    made = explore(
        space, study=tmp_path / "s.db", budget=24, strategy=name, evaluator=TableEvaluator(space, ROWS)
    )  # fmt: skip
    assert made.base.counts() == (0, 0, 24)


class _Sums:
    """Two opposed figures of a point."""

    def __call__(self, points: list[Values]) -> list[Outcome]:
        return [Outcome({"f": float(p["a"] or 0) + float(p["b"] or 0), "g": -float(p["a"] or 0)}) for p in points]


def test_is_a_small_space_enumerated_and_said_to_be(tmp_path: Path) -> None:
    space = _space()
    made = explore(space, study=tmp_path / "s.db", budget=300, evaluator=TableEvaluator(space, ROWS))
    assert made.claim().startswith("enumerated") and made.base.counts() == (0, 0, 288)
    assert {row.outcome.figures["latency_s"] for row in made.front()} == {
        ROWS[i]["latency_s"] for i in _brute_front(np.array([[row[name] for name in WANTED] for row in ROWS]))
    }


SPACE = """\
schema: tierform.space/1
job: {model: bert-base, task: {kind: inference, batch: 1, sequence: 64}, chip: hetrax,
      mapping: plain, micro_batches: 1, thermal: none}
parameters:
  width: {path: chip.network.width, values: [64 bit, 128 bit, 256 bit]}
  sequence: {path: task.sequence, from: 32, to: 43, whole: true}
objectives: [latency_s, energy_J]
"""


def test_is_nothing_lost_when_processes_are_killed(tmp_path: Path) -> None:
    """Killed at random again and again, a study ends with every point once and the undisturbed front."""
    (tmp_path / "space.yaml").write_text(SPACE)
    calm = explore(tmp_path / "space.yaml", study=tmp_path / "calm.db", budget=100)
    wild, rng = tmp_path / "wild.db", np.random.default_rng(1)
    command = [sys.executable, "-m", "tierform", "explore", str(tmp_path / "space.yaml"), "--study", str(wild)]
    for _ in range(3):
        process = subprocess.Popen([*command, "--workers", "2"], stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(float(rng.uniform(1.0, 3.0)))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    made = explore(tmp_path / "space.yaml", study=wild)
    assert made.base.counts() == (0, 0, 36)
    assert [row.chosen for row in made.front()] == [row.chosen for row in calm.front()]


def _interrupted(tmp_path: Path, seconds: float, workers: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tierform", "explore", str(tmp_path / "space.yaml"), "--workers", workers]
    command += ["--study", str(tmp_path / "s.db")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if (tmp_path / "s.db").exists() and ResultsBase(tmp_path / "s.db").counts()[2] >= 3:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=120)
    return process.returncode, told


@pytest.mark.parametrize("workers", ["1", "2"])
def test_finishes_an_interrupted_study_what_is_at_work_and_tells_the_front(workers: str, tmp_path: Path) -> None:
    """Nothing stays leased, what was done is kept, and the same command goes on."""
    (tmp_path / "space.yaml").write_text(SPACE.replace("to: 43", "to: 331"))
    code, told = _interrupted(tmp_path, 60.0, workers)
    base = ResultsBase(tmp_path / "s.db")
    _, leased, done = base.counts()
    assert code == 130 and f"interrupted: {done} of 200 points are kept" in told and "on the front" in told
    assert leased == 0 and 3 <= done < 200
    attempts = base._base.execute("SELECT max(attempts) FROM points").fetchone()[0]
    assert attempts == 1


def test_is_a_lease_of_a_dead_process_given_to_another(tmp_path: Path) -> None:
    base = ResultsBase(tmp_path / "s.db")
    base.add([{"a": 1}, {"a": 2}, {"a": 1}])
    base.worker = base.worker.replace(str(os.getpid()), "999999999")
    assert [point for _, point in base.lease(5)] == [{"a": 1}, {"a": 2}]
    other = ResultsBase(tmp_path / "s.db")
    assert [point for _, point in other.lease(5)] == [{"a": 1}, {"a": 2}]
    assert other.give([(1, Outcome({"f": 1.0}), [1.0])]) == 1
    assert base.give([(1, Outcome({"f": 9.0}), [9.0])]) == 0
    assert other.rows()[0].outcome.figures == {"f": 1.0}


@pytest.mark.parametrize("many", [7, 10_000])
def test_is_a_point_kept_once_however_many_are_told(many: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few points go through the index of keys, many are compared in memory: the same rows, none twice."""
    monkeypatch.setattr(results_base, "MANY", many)
    base = ResultsBase(tmp_path / "s.db")
    assert base.write_done([({"a": 1}, Outcome({"f": 1.0}), [1.0]), ({"a": 2}, Outcome({"f": 2.0}), [2.0])]) == 2
    told = [({"a": number % 40}, Outcome({"f": float(number)}), [float(number)]) for number in range(60)]
    assert base.write_done(told) == 38
    assert base.write_done(told) == 0
    rows = ResultsBase(tmp_path / "s.db").rows()
    assert [row.chosen["a"] for row in rows] == [1, 2, 0, *range(3, 40)]
    assert [row.outcome.figures["f"] for row in rows] == [1.0, 2.0, 0.0, *map(float, range(3, 40))]
    # The index is there again: a point that waits cannot be added twice either.
    assert base.add([{"a": 39}, {"a": 40}, {"a": 40}]) == 1


def test_is_the_text_of_a_point_its_json() -> None:
    """Written piece by piece for speed: the keys of older studies must stay."""
    for values in (
        {"b": 1, "a": True, "c": None, "d": '\u00e9"x', "e": 1e-300, "g": 0.1, "h": -7},
        {"n": float("nan"), "i": float("inf")},
        {},
    ):
        assert point_text(values) == json.dumps(values, sort_keys=True)


def test_are_all_mistakes_of_a_space_told_at_once(tmp_path: Path) -> None:
    wrong = SPACE.replace("path: chip.network.width", "path: chips.network.width").replace("latency_s", "latncy_s")
    (tmp_path / "space.yaml").write_text(wrong + "limit: {area_m2: 1}\n")
    with pytest.raises(TierformError) as caught:
        load_space(tmp_path / "space.yaml")
    told = {(problem.line, problem.nearest) for problem in caught.value.problems}
    assert told >= {(7, "latency_s"), (5, "chip"), (8, "limits")}


def test_are_mistakes_of_a_spaces_job_and_paths_told_at_once_with_the_rest(tmp_path: Path) -> None:
    """Told before anything is evaluated, each with its line and the nearest name; values that may be are not."""
    wrong = """\
schema: tierform.space/1
job:
  model: bert-bse
  task: {kind: inference, batch: 1, sequnce: 64}
  chip: hetrax
parameters:
  width: {path: chip.network.widht, values: [64 bit, 128 bit]}
  reram: {path: chip.package.dies.reramm.holds.reram, values: [24, 36]}
  adc: {path: chip.components.reram.adc_bit, values: [5, 6]}
  batch: {path: task.batc, values: [1, 2]}
  clock: {path: chip.network.clock, values: [1 GHz, -1 GHz]}
derived: {chip.memory.0.cuont: batch + 1}
objectives: [latncy_s]
"""
    (tmp_path / "space.yaml").write_text(wrong)
    with pytest.raises(TierformError) as caught:
        load_space(tmp_path / "space.yaml")
    told = [(problem.line, problem.nearest) for problem in caught.value.problems]
    names = ["bert-base", "sequence", "width", "reram", "adc_bits", "batch", "count", "latency_s"]
    assert told == list(zip([3, 4, 7, 8, 9, 10, 12, 13], names, strict=True))
    # A value that cannot be is one point's, not the file's.
    right = wrong.replace("bert-bse", "bert-base").replace("sequnce", "sequence").replace("widht", "width")
    right = right.replace("reramm", "reram").replace("adc_bit,", "adc_bits,").replace("batc,", "batch,")
    right = right.replace("cuont", "count").replace("latncy", "latency")
    (tmp_path / "space.yaml").write_text(right)
    assert load_space(tmp_path / "space.yaml").size == 32


@pytest.mark.parametrize("over", ["[tensor, {a: 1}]", "[tensor, [1]]", "[tensor, tensors]", "{tensor: 2}", "7"])
def test_are_wrong_ways_to_split_refused(tmp_path: Path, over: str) -> None:
    (tmp_path / "space.yaml").write_text(SPACE + f"splits: {{devices: 8, over: {over}}}\n")
    with pytest.raises(TierformError) as caught:
        load_space(tmp_path / "space.yaml")
    assert caught.value.problems[0].key in ("splits.over", "splits.over.tensor")


def test_do_conditions_derived_values_and_splits_act() -> None:
    when = Parameter("b", "chip.b", choices=(1, 2), when=("a", (2,)))
    space = Space(
        "s", (Parameter("a", "chip.a", choices=(1, 2)), when), (Objective("f"),), derived=(("chip.c", "a * 3"),)
    )
    assert len(list(space.every())) == 3
    assert space.changes({"a": 2, "b": 1}) == {"chip.a": 2, "chip.b": 1, "chip.c": 6}
    halved = Space("s", (Parameter("a", "chip.a", choices=(2, 3)),), (Objective("f"),), derived=(("chip.c", "a / 2"),))
    assert [repr(halved.changes({"a": a})["chip.c"]) for a in (2, 3)] == ["1", "1.5"]
    with pytest.raises(TierformError):
        evaluate("__import__('os')", {"a": 1})
    chosen, pruned = splits(8, {"tensor": [1, 2, 4], "data": []})
    assert chosen == [{"tensor": 1, "data": 8}, {"tensor": 2, "data": 4}, {"tensor": 4, "data": 2}]
    assert pruned[-1].startswith("1 ")


def test_are_the_executions_of_a_split_counted_as_by_hand() -> None:
    """GPT-3 175B on 64 chips: splits that divide 96 layers, micro-batches that divide 64 sequences, and what acts then.

    The sub-space that calculon was asked for has 1,026 executions.
    """
    space = load_space(Path(__file__).parent / "tables" / "gpt3_64gpu.yaml")
    points = list(space.every())
    count = 0
    for tensor in (1, 2, 4, 8):
        for pipeline in range(1, 65):
            if 64 % (tensor * pipeline) or 96 % pipeline:
                continue
            data = 64 // (tensor * pipeline)
            micro = sum(64 % (data * size) == 0 for size in (1, 2, 4))
            count += 3 * micro * (1 + (pipeline > 1)) * (1 + (data > 1)) * (1 + (tensor > 1))
    assert count == len(points) == len({point_text(point) for point in points}) == 1026
    for point in points[::50]:
        told, ways = space.changes(point), space.names(point)
        assert int(told["micro_batches"]) * int(ways["data"]) * int(point["micro_batch"]) == 64  # type: ignore[arg-type]
        assert 96 % (int(told["parallelism.interleave"]) * int(ways["pipeline"])) == 0  # type: ignore[arg-type]
        assert ("parallelism.zero" in told) == (ways["data"] != 1)
    # No strategy asks for what does not fit.
    base = History(space, np.zeros((0, 6)), np.zeros((0, 1)), np.zeros(0), frozenset(), np.zeros((0, 0)))
    asked = STRATEGIES.get("sobol")(base, 200, 0)
    assert len(asked) == 200 and all(space.fits(point) for point in asked)


def test_is_a_task_without_room_a_number_of_bytes() -> None:
    """Full training of 175 billion parameters on 64 chips without sharding: what is missing is told, not timed."""
    space = load_space(Path(__file__).parent / "tables" / "gpt3_64gpu.yaml")
    point = next(p for p in space.every() if space.names(p)["data"] == 64 and p["recomputation"] == "full")
    (told,) = JobEvaluator(space)([point])
    # 175 billion parameters with 16 bytes or more each, on 80 GB.
    assert told.figures["bytes_missing"] > 175e9 * 16 - 90e9
    assert told.violation == pytest.approx(1 + told.figures["bytes_missing"] / 85e9, rel=0.02)
    assert "does not fit" in told.reason


@pytest.mark.slow
def test_are_executions_ranked_as_another_model_ranks_them() -> None:
    """GPT-3 175B on 64 A100: the 138 executions that calculon (Isaev et al., SC 2023) finds room for, and its seconds.

    Two models of their own: they need not agree on a time or on what fits (with Megatron's main gradients in fp32, two
    more bytes a parameter, 77 find room here), but on which execution is faster.
    """
    space = load_space(Path(__file__).parent / "tables" / "gpt3_64gpu.yaml")
    with (Path(__file__).parent / "tables" / "calculon_gpt3_64gpu.csv").open() as file:
        known = {tuple(row[key] for key in EXECUTION): float(row["seconds"]) for row in csv.DictReader(file)}
    points = {_execution(space, point): point for point in space.every()}
    assert set(known) <= set(points) and len(known) == 138
    outcomes = JobEvaluator(space)([points[key] for key in known])
    both = [
        (outcome.figures["latency_s"], seconds, key)
        for (key, seconds), outcome in zip(known.items(), outcomes, strict=True)
        if outcome.violation <= 0
    ]
    assert len(both) >= 75
    ours, its = (np.argsort(np.argsort([row[column] for row in both])) for column in (0, 1))
    assert np.corrcoef(ours, its)[0, 1] >= 0.95
    best_five = [key for _, _, key in sorted(both)[:5]]
    assert min(known, key=lambda key: known[key]) in best_five


EXECUTION = ("tensor", "pipeline", "data", "micro_batch", "interleave", "recomputation", "zero", "sequence")


def _execution(space: Space, point: Values) -> tuple[str, ...]:
    told = {"parallelism.zero": 0, "parallelism.sequence": False, **space.changes(point)}
    ways, sequence = space.names(point), int(bool(told["parallelism.sequence"]))
    split = (ways["tensor"], ways["pipeline"], ways["data"], point["micro_batch"])
    rest = (told["parallelism.interleave"], point["recomputation"], told["parallelism.zero"], sequence)
    return tuple(str(value) for value in (*split, *rest))
