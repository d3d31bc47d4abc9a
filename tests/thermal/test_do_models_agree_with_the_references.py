"""Is every point of the ledger within its tolerance, and would it fail if the model were wrong?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tierform.thermal.block import BlockModel
from tierform.thermal.grid import GridModel
from tierform.thermal.stack import Sink
from tierform.validation import thermal


@pytest.fixture(scope="module")
def points():
    return thermal.ledger().points


def test_every_point_passes(points):
    failed = [f"{p.case}: {p.ours} for {p.reference}" for p in points if p.passed is False]
    assert not failed
    assert len(points) > 190


def test_hotspot_rows_agree_to_the_digits_that_it_prints(points):
    steady = [p for p in points if p.evidence == "simulator" and p.quantity.startswith("steady")]
    assert max(abs(p.error) for p in steady) < 0.0075


def test_energy_is_conserved(points):
    balances = [p for p in points if p.quantity == "heat out for heat in"]
    assert len(balances) == 5
    assert max(abs(p.relative_error) for p in balances) < 1e-9


def test_a_wrong_package_is_noticed():
    stack, powers, rows = thermal.planar_case()
    assert isinstance(stack.top, Sink)
    wrong = replace(stack, top=replace(stack.top, resistance_K_per_W=0.102))
    names = [row for row in rows if row["part"] == "block"]
    error = BlockModel(wrong).steady(powers).tiles_K - [float(row["block_K"]) for row in names]
    assert np.abs(error).max() > 0.05


def test_block_and_grid_model_differ_as_they_do_in_hotspot():
    stack, powers, _ = thermal.planar_case()
    difference = BlockModel(stack).steady(powers).tiles_K - GridModel(stack, 64, 64).steady(powers).tiles_K("touched")
    assert 2.0 < np.abs(difference).max() < 6.0


def test_the_ledger_reads_a_folder(tmp_path):
    case = tmp_path / "own"
    case.mkdir()
    (case / "a.flp").write_text("left 0.004 0.008 0 0\nright 0.004 0.008 0.004 0\n")
    (case / "a.ptrace").write_text("left right\n10 5\n20 5\n")
    (case / "a.config").write_text("-grid_map_mode avg\n-sampling_intvl 0.01\n")
    (case / "expected-block.steady").write_text("left\t300.0\nmissing\t300.0\n")
    (case / "expected-block-transient.ttrace").write_text("left\tright\n300 300\n300 300\n")
    ledger = thermal.ledger(tmp_path)
    own = {p.case: p.passed for p in ledger.points if p.case.startswith("own")}
    assert own["own, block: left"] is False
    assert own["own, block: missing"] is False
    assert own["own, block"] is True
    assert sum(name.startswith("own, block-transient") for name in own) == 2
    assert not ledger.passed
