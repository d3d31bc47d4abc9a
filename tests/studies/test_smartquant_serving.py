"""Does shedding bits under load serve more in time, at a perplexity between exact and coarsest, all tokens out?"""

from __future__ import annotations

from typing import Any

import pytest

from tierform.errors import TierformError
from tierform.studies import STUDIES, StudyOptions, StudyResult


@pytest.fixture(scope="module")
def result() -> StudyResult:
    found: StudyResult = STUDIES.get("smartquant-serving")(
        StudyOptions(quick=True, settings={"perplexity": "10:0.1,8:0.9,6:4"})
    )
    return found


def _rows(result: StudyResult, title: str) -> list[dict[str, Any]]:
    table = result.table(title)
    return [dict(zip(table.head, row, strict=True)) for row in table.rows]


def test_do_all_claims_hold(result: StudyResult) -> None:
    assert result.holds, [check for check in result.checks if not check.holds]


def test_does_a_step_go_by_its_planes(result: StudyResult) -> None:
    """Half the planes take half the time and the energy, within two points."""
    by_bits = {row["bits a weight"]: row for row in _rows(result, "A step by bits")}
    for what in ("step (s)", "energy of a load (J)"):
        assert by_bits[8][what] / by_bits[16][what] == pytest.approx(0.5, abs=0.02)


def test_does_shedding_lie_between_exact_and_coarsest(result: StudyResult) -> None:
    for load in (0.5, 0.9, 1.3, 1.7):
        named = {row["weights"]: row for row in _rows(result, "Services side by side") if row["load"] == load}
        assert 0 <= named["shed"]["perplexity (%)"] <= named["coarsest"]["perplexity (%)"] == 4.0
        assert named["shed"]["within the SLO (%)"] >= named["exact"]["within the SLO (%)"]
        assert (
            named["coarsest"]["TPOT, mean (s)"] <= named["shed"]["TPOT, mean (s)"] <= named["exact"]["TPOT, mean (s)"]
        )


def test_are_mistakes_told() -> None:
    run = STUDIES.get("smartquant-serving")
    for text in ("9:1", "8:little", "8:-1", ""):
        with pytest.raises(TierformError):
            run(StudyOptions(quick=True, settings={"perplexity": text}))
    with pytest.raises(TierformError, match="no such setting"):
        run(StudyOptions(settings={"rate": "3"}))
