"""Is what can hold together told right, is the library's own design one of those tried, and is nothing tried twice?"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tierform.chip.description import load_chip
from tierform.errors import TierformError
from tierform.report.study_page import render
from tierform.studies import STUDIES, StudyOptions
from tierform.studies.must_hold import Kept, run, tried
from tierform.studies.must_hold_chips import ATLEUS_POINTS, atleus, figures_at, label, nothing, software
from tierform.studies.must_hold_hpt import hpt
from tierform.studies.must_hold_parts import Claim, Knob, Side, System, Tried, swings
from tierform.studies.sweep import run_point, slower_software


def toy() -> System:
    """A chip of 1, 2 or 4 units (own: 2) and a baseline that takes 8 or 16 s (own: 8); a unit takes 1 W.

    With u units the chip takes 8/u s and 8 J: ratios of time u or 2 u, so 1, 2, 4, 8.
    """
    chip = Side(
        "chip",
        (Knob("units", (1.0, 2.0, 4.0), 2.0), Knob("paint", ("red", "blue"), "red")),
        lambda d: {"s": 8 / float(d["units"]), "units": float(d["units"])},
    )
    base = Side("base", (Knob("seconds", (8.0, 16.0), 8.0),), lambda d: {"s": float(d["seconds"])})
    return System(
        "toy",
        (chip, base),
        (
            Claim("ratio of 8", 8.0, 7.0, 9.0, lambda f: f["base: s"] / f["chip: s"]),
            Claim("at most two units", "few", -math.inf, 2.0, lambda f: f["chip: units"]),
            Claim("ratio of 4 or more", "large", 4.0, math.inf, lambda f: f["base: s"] / f["chip: s"]),
            Claim("ratio of 100", 100.0, 90.0, 110.0, lambda f: f["base: s"] / f["chip: s"]),
            Claim("ratio of 8, otherwise", 8.0, 7.0, 9.0, lambda f: f["base: s"] / f["chip: s"] + 0, counts=False),
        ),
    )


@pytest.fixture(scope="module")
def found() -> Tried:
    return tried(toy(), Kept(None), StudyOptions())


def test_is_every_combination_looked_at(found: Tried) -> None:
    assert found.mask.shape == (6, 2)
    assert found.as_shipped[0] == 2.0
    assert [float(v.min()) for v in found.values[:1]] == [1.0] and float(found.values[0].max()) == 8.0


def test_are_the_sets_that_can_hold_those_worked_out_by_hand(found: Tried) -> None:
    """A ratio of 8 needs four units and 16 s, so that it goes with "large" and never with "few"; 100 is out of reach.
    "Few" and "large" go together: two units against 16 s have 4."""
    assert found.can((0, 2)) and found.can((1, 2)) and not found.can((0, 1)) and not found.can((3,))
    assert found.conflicts == [(3,), (0, 1)]
    assert sorted(found.largest) == [(0, 2), (1, 2)]


def test_is_what_is_needed_all_that_can_be(found: Tried) -> None:
    needed = found.needed((1, 2))
    assert needed == {("chip", "units"): [2.0], ("chip", "paint"): ["red", "blue"], ("base", "seconds"): [16.0]}
    nearest, steps = found.nearest((1, 2))
    assert nearest == {"chip": {"units": 2.0, "paint": "red"}, "base": {"seconds": 16.0}} and steps == 1
    assert found.nearest((0, 2))[1] == 2  # four units are one step, 16 s another


def test_does_another_reading_count_in_no_set(found: Tried) -> None:
    assert found.can((4,)) and all(4 not in claims for claims in (*found.largest, *found.conflicts))


def test_are_swings_sorted_and_without_what_does_nothing() -> None:
    system = toy()
    moved = swings(system, system.claims[0], lambda side, design: side.evaluate(design))
    # Units from 1 to 4 give 1 to 4, the baseline's seconds 2 to 4; paint changes nothing.
    assert [(swing.knob.name, swing.low, swing.high) for swing in moved] == [("units", 1, 4), ("seconds", 2, 4)]


@pytest.mark.parametrize("system", [atleus(), hpt()], ids=lambda system: system.name)
def test_is_the_librarys_own_value_among_those_tried(system: System) -> None:
    for side in system.sides:
        assert all(knob.own in knob.values and len(set(knob.values)) == len(knob.values) for knob in side.knobs)
        numbers = [[v for v in knob.values if isinstance(v, float)] for knob in side.knobs]
        assert all(values == sorted(values) for values in numbers)
        assert all(knob.why for knob in side.knobs)


def test_is_the_design_of_the_library_what_the_library_gives() -> None:
    """With its own values a side is the library's chip to the last digits."""
    system = atleus()
    for side, name in zip(system.sides, ("atleus", "a100", "haima", "tpu-3d"), strict=True):
        point = ATLEUS_POINTS[0]
        own = side.evaluate(side.own)
        result = run_point(*point, (load_chip(name),)).results[name]
        assert own[f"time {label(point)}"] == pytest.approx(result.latency_s, rel=1e-12)
        assert own[f"energy {label(point)}"] == pytest.approx(result.energy_J, rel=1e-9)


def test_does_more_software_time_make_each_kernel_longer() -> None:
    gpu, point = load_chip("a100"), ATLEUS_POINTS[:1]
    own, same = (figures_at(point, chip, nothing) for chip in (gpu, slower_software(gpu, 0.0, fused=True)))
    assert own == same
    design = {"GPU": "a100", "numbers": "bf16", "kernels": "one an operator"}
    time = f"time {label(point[0])}"
    ten, thirty = (
        figures_at(point, software({**design, "software time a kernel": wait}), nothing)[time] for wait in (10.0, 30.0)
    )
    kernels = (thirty - ten) / 20e-6
    assert kernels == pytest.approx(round(kernels), abs=0.01) and kernels > 100


def test_is_what_was_kept_not_simulated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_chip("hetrax").fingerprint
    options = StudyOptions(quick=True, settings={"systems": "hetrax", "file": str(tmp_path / "hold.db")})
    first = run(options)
    assert first.holds and load_chip("hetrax").fingerprint == before
    assert {row[0] for row in first.tables[0].rows} == {"HeTraX"}

    def refuse(*_: object) -> None:
        raise AssertionError("simulated again")

    monkeypatch.setattr("tierform.studies.must_hold_chips.run_point", refuse)
    again = run(options)
    assert json.dumps(again.to_dict()) == json.dumps(first.to_dict())
    page = render(first)
    assert page.count("plotly-graph-div") == len(first.pictures) == 5  # a tornado for each published number
    assert '"orientation":"h"' in page
    # What may be wider than the window is moved by itself, and the page is dark where the reader's system is.
    assert page.count("<table>") == page.count('<div class="wide" tabindex="0"><table>') > len(first.tables)
    assert page.count('<div class="wide figure"') == len(first.pictures) and "prefers-color-scheme: dark" in page


def test_is_a_file_of_another_study_refused(tmp_path: Path) -> None:
    from tierform.exploration.results_base import ResultsBase

    other = ResultsBase(tmp_path / "space.db")
    other.set_fact("space", "{}")
    other.close()
    with pytest.raises(TierformError, match="another study"):
        run(StudyOptions(settings={"file": str(tmp_path / "space.db")}))
    with pytest.raises(TierformError, match="no such system"):
        run(StudyOptions(settings={"systems": "atlas"}))


def test_is_every_study_told_in_a_line() -> None:
    from tierform.studies import ABOUT

    assert set(ABOUT) == set(STUDIES.names())
    assert all(len(f"{max(ABOUT, key=len)}  {text}") <= 110 for text in ABOUT.values())


def test_do_missing_figures_hold_nothing() -> None:
    """What cannot run has no figure, and no claim holds by it."""
    side = Side(
        "chip", (Knob("way", ("runs", "cannot"), "runs"),), lambda d: {"s": 1.0 if d["way"] == "runs" else math.nan}
    )
    claim = Claim("any time", "some", -math.inf, math.inf, lambda f: f["chip: s"])
    made = tried(System("one", (side,), (claim,)), Kept(None), StudyOptions())
    assert np.array_equal(made.holds[0], [True, False])
