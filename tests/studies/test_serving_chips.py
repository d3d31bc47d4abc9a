"""Do chips side by side keep the SLO at the loads that are reported, and is what cannot serve said?"""

from __future__ import annotations

from typing import Any

import pytest

from tierform.errors import TierformError
from tierform.studies import STUDIES, StudyOptions

RUN = STUDIES.get("serving-chips")


@pytest.mark.slow
def test_do_chips_serve_side_by_side() -> None:
    found = RUN(StudyOptions(quick=True, settings={"requests": "20", "chips": "tpu-3d,l40s"}))
    assert found.holds, [check for check in found.checks if not check.holds]
    table = found.tables[0]
    rows: list[dict[str, Any]] = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    assert [(row["chip"], row["software"]) for row in rows] == [
        ("tpu-3d", "ideal"),
        ("l40s", "vllm"),
        ("l40s", "ideal"),
    ]
    for row in rows:
        watts = row["energy (J/token)"] * row["output (tokens/s)"]
        assert row["power (W)"] == pytest.approx(watts, rel=1e-6)
        assert row["TPOT, mean (s)"] <= 0.05


@pytest.mark.parametrize(("key", "value"), [("within", "2"), ("within", "all"), ("slow", "1"), ("requests", "x")])
def test_are_mistakes_told(key: str, value: str) -> None:
    with pytest.raises(TierformError, match=key):
        RUN(StudyOptions(quick=True, settings={key: value}))
