"""Do the studies of inference techniques run, hold what they claim, and refuse what they do not have?"""

from __future__ import annotations

import pytest

from tierform.errors import TierformError
from tierform.studies import STUDIES, StudyOptions
from tierform.studies.small_cores import SIDE, chip_of


def run(study: str, **settings: str):
    return STUDIES.get(study)(StudyOptions(quick=True, settings=settings))


def test_is_skipping_counted_by_sublayer() -> None:
    found = run("tyukin")
    assert found.holds
    rows = [row for row in found.tables[0].rows if row[0] == "attention"]
    speedups = [float(row[3]) for row in rows]
    assert speedups == sorted(speedups) and speedups[0] == 1.0
    # the last sublayers of a token cost no less than their bytes: 67.1 of 6,607 million weights each
    assert all(1 / (1 - 67.1 / 6607 * row[1]) < 1.03 * float(row[3]) for row in rows)


def test_does_drafting_pay_less_with_a_larger_batch() -> None:
    found = run("speculative", chips="a100")
    assert found.holds and len(found.tables) == 3
    with pytest.raises(TierformError, match="no such setting"):
        run("speculative", chip="a100")


def test_have_n_cores_the_arithmetic_of_one() -> None:
    for cores in (1, 4, 16):
        part = chip_of(cores).components["systolic"]
        assert part.units * part.parameters.rows * part.parameters.columns == SIDE * SIDE
    with pytest.raises(TierformError, match="square"):
        chip_of(3)
    assert run("small-cores", cores="1,16").holds
