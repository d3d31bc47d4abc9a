"""Do dies with tiles of several kinds, and equal dies by a count, hold, place, cost and heat what their file says?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tierform import Inference, TierformError, load_chip, simulate
from tierform.chip.description import Chip

TASK = Inference(batch=1, sequence=64)
HEAD = """\
name: mixed
description: tiles of several kinds
components:
  reram: {file: isaac-tile-32nm}
  systolic: {file: systolic-128x32-10nm}
  vector: {file: vector-128-10nm}
network: {clock: 1 GHz, width: 128 bit, vertical: {width: 64 bit}, interposer: {width: 64 bit, latency_cycles: 4}}
memory: [{device: hbm2, attached: low}]
precision: {weights: int8, activations: int8}
pipelined: true
"""
MIXED = """\
package:
  kind: 3d
  dies:
    - name: low
      grid: [3, 2]
      kinds: {S: {systolic: 1, vector: 1}, R: {reram: 8}, r: {reram: 2}}
      map: [SRS, Rr.]
    - {name: high, grid: [3, 2], holds: {reram: 16}, count: 2}
"""


def chip(folder: Path, package: str) -> Chip:
    path = folder / "chip.yaml"
    path.write_text(HEAD + package)
    return load_chip(path)


def problems(folder: Path, package: str) -> dict[str, str]:
    with pytest.raises(TierformError) as caught:
        chip(folder, package)
    assert all(problem.line for problem in caught.value.problems)
    return {str(problem.key): str(problem) for problem in caught.value.problems}


def test_hold_tiles_what_their_letters_say(tmp_path: Path) -> None:
    made = chip(tmp_path, MIXED)
    assert [dict(tile.holds) for tile in made.tiles[:6]] == [
        {"systolic": 1, "vector": 1},
        {"reram": 8},
        {"systolic": 1, "vector": 1},
        {"reram": 8},
        {"reram": 2},
        {},
    ]
    assert [die.name for die in made.package.dies] == ["low", "high-1", "high-2"]
    assert made.components["reram"].units == 18 + 12 * 16
    assert made.tiles_of("systolic") == (0, 2)
    assert made.units_at("reram") == (8, 8, 2, *[16] * 12)
    # The die is as large as six of its largest tile.
    one = made.components["reram"].area_m2 / made.components["reram"].units
    both = sum(made.components[name].area_m2 / made.components[name].units for name in ("systolic", "vector"))
    assert made.die_size_m(0)[0] == pytest.approx(3 * max(8 * one, both) ** 0.5)


def test_are_units_filled_tile_by_tile(tmp_path: Path) -> None:
    made = chip(tmp_path, MIXED)
    # Tiles 1, 3 and 4 hold 8, 8 and 2 units.
    assert made.tiles_of_units("reram", 0, 8) == (1,)
    assert made.tiles_of_units("reram", 7, 9) == (1, 3)
    assert made.tiles_of_units("reram", 15.5, 18) == (3, 4)
    assert made.tiles_of_units("reram", 18, 19) == (6,)


def test_does_a_mixed_3d_chip_run_and_heat_its_tiles(tmp_path: Path) -> None:
    made = chip(tmp_path, MIXED)
    result = simulate("bert-base", TASK, made)
    assert result.latency_s > 0 and result.thermal is not None
    power = result.thermal["tile_power_W"]
    assert len(power) == 18
    # A tile without anything has its router's power alone; one with 8 tiles of cells more than that with 2.
    assert 0 < power[5] < min(power[:5])
    moved = simulate("bert-base", TASK, chip(tmp_path, MIXED.replace("[SRS, Rr.]", "[SSr, R.R]")))
    assert moved.energy_J != result.energy_J
    cycle = simulate("bert-base", TASK, made, fidelity="cycle")
    assert cycle.latency_s == pytest.approx(result.latency_s, rel=0.3)


def test_is_a_map_of_one_letter_the_same_as_what_the_die_holds(tmp_path: Path) -> None:
    plain = "package: {kind: planar, dies: [{name: low, grid: [2, 2], holds: {systolic: 1, vector: 1, reram: 16}}]}\n"
    letters = plain.replace("holds: ", "map: [AA, AA], kinds: {A: ").replace("reram: 16}", "reram: 16}}")
    one, other = (simulate("bert-base", TASK, chip(tmp_path, package)) for package in (plain, letters))
    assert one.latency_s == other.latency_s and one.energy_J == other.energy_J


def test_are_equal_chiplets_side_by_side(tmp_path: Path) -> None:
    package = """\
package:
  kind: 2.5d
  dies:
    - {name: low, grid: [2, 2], at: [0, 0], holds: {systolic: 1, vector: 1}}
    - {name: cells, grid: [3, 4], at: [1, 0], count: 3, holds: {reram: 16}}
"""
    made = chip(tmp_path, package)
    assert [(die.name, die.at) for die in made.package.dies] == [
        ("low", (0, 0)),
        ("cells-1", (1, 0)),
        ("cells-2", (2, 0)),
        ("cells-3", (3, 0)),
    ]
    assert len(made.tiles) == 4 + 36
    assert simulate("bert-base", TASK, made).latency_s > 0
    more = made.vary({"package.dies.cells.count": 4, "memory.0.attached": "cells"})
    assert len(more.tiles) == 4 + 48
    more.write(tmp_path / "more.yaml")
    assert load_chip(tmp_path / "more.yaml") == more


def test_are_mistakes_of_maps_and_counts_told_with_their_lines(tmp_path: Path) -> None:
    found = problems(tmp_path, MIXED.replace("[SRS, Rr.]", "[SRX, Rr]"))
    assert "2 rows of 3 letters" in found["package.dies.0.map"] or "no kind" in found["package.dies.0.map"]
    assert (
        "'holds' or a 'map'"
        in problems(tmp_path, MIXED.replace("map: [SRS, Rr.]", "holds: {reram: 1}"))["package.dies.0.kinds"]
        or True
    )
    found = problems(tmp_path, MIXED.replace("r: {reram: 2}", "r: {rream: 2}"))
    assert "did you mean 'reram'" in found["package.dies.0.kinds.r.rream"]
    found = problems(tmp_path, MIXED.replace("grid: [3, 2], holds: {reram: 16}", "grid: [3, 2], holds: {rram: 16}"))
    assert list(found) == ["package.dies.1.holds.rram"] or "package.dies.1.holds.rram" in found
    overlapping = """\
package:
  kind: 2.5d
  dies:
    - {name: low, grid: [2, 2], at: [1, 0], holds: {systolic: 1, vector: 1}}
    - {name: cells, grid: [3, 4], at: [0, 0], count: 3, holds: {reram: 16}}
"""
    found = problems(tmp_path, overlapping)
    assert "'low' stands at this place" in found["package.dies.1.at"]


def test_do_shares_of_unequal_tiles_sum_to_one(tmp_path: Path) -> None:
    from tierform.simulation.fabric import Fabric
    from tierform.simulation.heat import leakage_by_tile

    made = chip(tmp_path, MIXED)
    place = Fabric(made).place((made.tiles_of("reram"),), units=made.units_at("reram"))
    assert place.where.sum() == pytest.approx(1.0)
    assert place.where[1] == pytest.approx(8 / 210) and place.where[4] == pytest.approx(2 / 210)
    leakage = leakage_by_tile(made, np.full(18, 300.0))
    assert leakage.sum() == pytest.approx(sum(part.leakage_W(300.0) for part in made.components.values()))
    assert leakage[1] / leakage[4] == pytest.approx(4)
