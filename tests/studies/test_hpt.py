"""Is the whole run's cost what hand arithmetic gives, and is everything that the study promises charged?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tierform.cli.main import main
from tierform.errors import TierformError
from tierform.studies import STUDIES, StudyOptions
from tierform.studies.hpt import amdahl, share_for
from tierform.tuning.costs import PhaseCost, StepCosts, whole_run


def step(seconds: float, joules: float) -> PhaseCost:
    return PhaseCost(seconds, seconds, 0.0, 0.0, joules, memory_B=1.0)


COSTS = StepCosts(step(10, 100), trial=step(8, 60), low=step(1, 5), move_s=3, move_J=7)


def test_the_run_by_hand() -> None:
    run = whole_run(COSTS, 100, 20, 4)
    assert run.seconds == 20 * 10 + 4 * 8 + 3 + 80 and run.joules == 20 * 100 + 4 * 60 + 7 + 80 * 5
    assert (run.full_s, run.full_J) == (1000, 10000) and run.saved_time == pytest.approx(1 - 315 / 1000)
    never = whole_run(COSTS, 100, None, 4)
    assert never.seconds == never.full_s and never.saved_energy == 0.0


def test_amdahl_as_published() -> None:
    # f + g of 2.6 % (snow-water's earliest switch) needs a step about 17 times faster for 11.9
    f, g = 1825 / 84240, 365 / 84240
    assert amdahl(f, g, 16.86) == pytest.approx(11.9, rel=1e-3)
    assert pytest.approx(0.084, abs=1e-4) == 1 / 11.9
    share = share_for(5.0, 10.0, 0.01)
    assert share is not None and amdahl(share, 0.01, 10.0) == pytest.approx(5.0)
    assert share_for(11.9, 5.0, 0.0) is None and share_for(2.0, 0.5, 0.0) is None


def test_the_study_on_one_application() -> None:
    result = STUDIES.get("hpt")(StudyOptions(quick=True))
    assert result.holds
    rows = result.table("The whole run by the step of the switch").rows
    assert rows[0][1] == 2400 and rows[0][5] > rows[-1][5]
    assert result.table("Wear and moving").rows[0][6] > 0
    frozen = STUDIES.get("hpt")(StudyOptions(quick=True, settings={"ends": "frozen"}))
    assert frozen.table("Wear and moving").rows[0][2] == 0
    slower = STUDIES.get("hpt")(StudyOptions(settings={"application": "wind", "gpu_step": "0.03"}))
    assert slower.table("One step at batch 1").rows[0][1] == pytest.approx(30)


def test_a_logged_run_is_taken_over(tmp_path: Path) -> None:
    rows = [[i + 1, "full" if i < 8 else "trial" if i < 10 else "low", 1.0, None, 0, 0, 0, 0] for i in range(40)]
    decisions = [{"step": step} for step in (2, 4, 6, 8, 10)]
    log = {"schema": "tierform.tuning-log/1", "switch_step": 10, "rows": rows, "decisions": decisions}
    (tmp_path / "log.json").write_text(json.dumps(log))
    result = STUDIES.get("hpt")(StudyOptions(quick=True, settings={"log": str(tmp_path / "log.json")}))
    share, windows = result.table("The switch that was measured").rows
    assert share[0] == "wind" and share[3:5] == pytest.approx((25.0, 5.0), rel=1e-3) and share[5] > 1
    assert windows[2] == 5 * 480 and windows[4] == pytest.approx(100 * 480 / 161352) and windows[5] > share[5]
    (tmp_path / "log.json").write_text(json.dumps(log | {"switch_step": None}))
    with pytest.raises(TierformError, match="never switched"):
        STUDIES.get("hpt")(StudyOptions(quick=True, settings={"log": str(tmp_path / "log.json")}))


def test_bad_settings_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for setting in ("application=wnd", "ends=maybe", "link=-1", "gpu_step=1", "lnk=1"):
        with pytest.raises(SystemExit) as caught:
            main(["reproduce", "hpt", "--quick", "--set", setting])
        assert caught.value.code == 2
    assert "did you mean 'wind'" in capsys.readouterr().err
