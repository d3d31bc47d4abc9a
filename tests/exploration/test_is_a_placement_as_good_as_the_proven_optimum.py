"""Do the placement engines reach proven optima and published designs, with costs that are theirs?

``tables/qaplib.json``: QAPLIB (Burkard, Karisch and Rendl 1997).  ``tables/placeit.json``: costs and designs published
with PlaceIT (Iff et al., arXiv 2502.01449), whose best of ten runs of an hour is 7.9792.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tierform.exploration.chiplet_placement import FIGURES, ChipletCase, chiplet_cost, place_chiplets
from tierform.exploration.placement import assign, cost_of, manhattan

TABLES = Path(__file__).parent / "tables"
QAPLIB: dict[str, Any] = json.loads((TABLES / "qaplib.json").read_text())["cases"]
PLACEIT: dict[str, Any] = json.loads((TABLES / "placeit.json").read_text())


@pytest.mark.parametrize("name", QAPLIB)
def test_is_the_proven_optimum_reached_from_ten_seeds(name: str) -> None:
    case = QAPLIB[name]
    flow, distance = np.array(case["flow_upper_or_full"], float), manhattan(*case["tiles"])
    known = np.array(case["module_at_tile_of_optimum"])
    assert cost_of(flow, distance, known) == case["optimum"]
    costs = [assign(flow, distance, target=case["optimum"], steps=200_000, seed=seed).cost for seed in range(10)]
    assert sum(cost == case["optimum"] for cost in costs) >= 9


def test_is_a_small_placement_equal_to_all_permutations_tried() -> None:
    rng = np.random.default_rng(3)
    flow, distance = rng.integers(0, 9, (6, 6)).astype(float), rng.random((6, 6))
    best = min(cost_of(flow, distance, np.array(p)) for p in itertools.permutations(range(6)))
    assert assign(flow, distance, steps=5_000).cost == pytest.approx(best, rel=1e-12)


def test_do_tiles_stay_within_their_group() -> None:
    rng = np.random.default_rng(4)
    group = np.array([0, 0, 0, 1, 1, 1])
    place = assign(rng.random((6, 6)), rng.random((6, 6)), group=group, steps=2_000).place
    assert set(place[:3]) == {0, 1, 2} and set(place[3:]) == {3, 4, 5}


def _chiplets() -> ChipletCase:
    given = PLACEIT["parameters"]
    weights, normalizers = (
        np.array([given[key][f] for f in FIGURES], float) for key in ("cf_weights", "cf_normalizers")
    )
    return ChipletCase(4, 10, (32, 4, 4), (10, 12, 1), weights, normalizers)


@pytest.mark.parametrize("name", PLACEIT["designs"])
def test_is_the_published_cost_of_a_chiplet_design_met(name: str) -> None:
    design = PLACEIT["designs"][name]
    assert chiplet_cost(_chiplets(), design["grid"], design["ports"]).cost == pytest.approx(design["cost"], rel=1e-12)


def test_is_the_chiplet_search_as_good_as_hours_of_the_published_one() -> None:
    costs = [place_chiplets(_chiplets(), steps=250_000, seed=seed).cost for seed in range(2)]
    assert max(costs) <= 7.9792
