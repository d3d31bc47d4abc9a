"""Are the heat's figures those of the tiles, with limits by die, and does every joule heat a tile for the whole time?

The toy stack has four tiles: 0 and 1 in the lower die, with arrays and vector units, 2 and 3 above, with crossbars.
"""

from __future__ import annotations

from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tierform
from tierform.chip.description import Chip
from tierform.simulation.heat import _figures, leakage_by_tile
from tierform.workload import model_from_config

GOLDEN = Path(__file__).parent / "golden"
LIMIT = {"value": "350 K", "kind": "assumed", "note": "toy"}
TASK = tierform.Inference(batch=2, sequence=3, decode=2)


@pytest.fixture(scope="module")
def stack() -> Chip:
    return tierform.load_chip(GOLDEN / "toy-stack.yaml").vary({"cooling.limits": {"reram": LIMIT}})


def figures(chip: Chip, *kelvin: float) -> dict[str, Any]:
    return _figures(chip, np.array(kelvin), np.array([1.0, 2.0, 4.0, 8.0]), 3, 0.5)


def test_are_dies_told_with_their_tiles_and_limits(stack: Chip) -> None:
    found = figures(stack, 310.0, 330.0, 320.0, 345.5)
    lower, upper = found["dies"]
    assert (lower["mean_K"], lower["peak_K"], lower["power_W"]) == (320.0, 330.0, 3.0)
    assert (upper["mean_K"], upper["peak_K"], upper["power_W"]) == (332.75, 345.5, 12.0)
    assert lower["map_K"] == [[310.0, 330.0]] and upper["map_K"] == [[320.0, 345.5]]
    # Only what holds crossbars has a limit.
    assert (lower["limit_K"], lower["limit_text"]) == (None, "")
    assert (upper["limit_K"], upper["limit_text"]) == (350.0, "76.9 °C (4.5 K below)")
    assert found["within_limits"] is True
    assert found["hottest_tile"] == {"number": 3, "die": "cells", "x": 1, "y": 0} and found["peak_K"] == 345.5


def test_is_a_limit_that_is_exceeded_told(stack: Chip) -> None:
    # The lower die is hotter, and has no limit.
    found = figures(stack, 400.0, 330.0, 353.0, 345.5)
    assert found["dies"][1]["limit_text"] == "76.9 °C (EXCEEDED by 3.0 K)"
    assert found["within_limits"] is False
    assert found["hottest_tile"] == {"number": 0, "die": "arrays", "x": 0, "y": 0}
    at_it = figures(stack, 300.0, 300.0, 350.0, 300.0)
    assert at_it["within_limits"] is True and at_it["dies"][1]["limit_text"] == "76.9 °C (0.0 K below)"


def test_does_every_joule_heat_a_tile(stack: Chip) -> None:
    model = model_from_config(
        {
            **{"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 2, "n_inner": 16, "n_positions": 16},
            **{"vocab_size": 10, "activation_function": "relu"},
        },
        "toy",
    )
    result = tierform.simulate(model, TASK, stack, mapping="plain")
    heat = result.thermal
    assert heat is not None
    # What operators spend on tiles and what leaks there, over the whole time; memory stands beside the chip.
    leaked = fsum(v for k, v in result.energy_J_by_part.items() if k.endswith("idle and leakage"))
    tiles_J = fsum(heat["tile_power_W"]) * result.latency_s
    assert tiles_J == pytest.approx(fsum(result.energy_J_by_tile) + leaked, rel=1e-6)
    kelvin = np.array(heat["tile_temperature_K"])
    # A component's leakage at its tiles' temperatures, an equal share on each; two components on each lower tile.
    leakage = leakage_by_tile(stack, kelvin)
    parts = stack.components
    systolic, vector = (float(np.mean(np.asarray(parts[n].leakage_W(kelvin[:2])))) for n in ("systolic", "vector"))
    assert leakage[:2].sum() == pytest.approx(systolic + vector)
    assert leakage[2:].sum() == pytest.approx(float(np.mean(np.asarray(parts["reram"].leakage_W(kelvin[2:])))))
    # Warmer than the surroundings, the farther from the sink the warmer.
    assert min(heat["tile_temperature_K"]) > 318.15 - 1e-9


def test_is_a_chip_with_a_worse_sink_hotter_by_its_power() -> None:
    chip = tierform.load_chip("atleus")
    cooled = {"value": "0.1 K/W", "kind": "assumed", "note": "toy"}
    worse = {"value": "0.2 K/W", "kind": "assumed", "note": "toy"}
    task = tierform.Inference(batch=1, sequence=64)
    runs = [
        tierform.simulate("bert-base", task, chip.vary({"cooling.sink_resistance": value})) for value in (cooled, worse)
    ]
    powers = [fsum(run.thermal["tile_power_W"]) for run in runs if run.thermal]
    means = [float(np.mean(run.thermal["tile_temperature_K"])) for run in runs if run.thermal]
    # Each watt passes the sink, 0.1 or 0.2 K for each, and the dies, as many kelvin for each in both.
    inside = (means[0] - 318.15) / powers[0] - 0.1
    assert inside > 0
    assert means[1] - 318.15 == pytest.approx((0.2 + inside) * powers[1], rel=0.01)
    assert powers[1] > powers[0]
