"""Does the survey of techniques run every row on a chip of each kind, and say what it could not?"""

from __future__ import annotations

import pytest

from tierform.errors import TierformError
from tierform.studies import STUDIES, StudyOptions
from tierform.studies.survey import TECHNIQUES


def run(**settings: str):
    return STUDIES.get("survey")(StudyOptions(settings=settings))


def test_does_every_technique_have_a_gain_that_its_kind_can_have() -> None:
    found = run(chips="a100")
    assert found.holds
    gains = {str(row[0]): row[1] for row in found.tables[0].rows}
    assert list(gains) == [one.name for one in TECHNIQUES]
    told = {name: float(gain) for name, gain in gains.items() if isinstance(gain, float)}
    assert set(told) == set(gains)  # a GPU can do all of them
    # What reads less than half of the weights' bytes cannot gain more than they shrink by.
    assert 1 < told["int8 weights"] < 2 and told["int8 weights"] < told["int4 weights, groups of 128"] < 4
    # Half of the layers: head and embedding stay, so less than two.
    assert 1.3 < told["half of the layers"] < 2
    # A draft gives at most what it and one more token are: four drafted tokens at acceptance a are 1 + a + ... + a^4.
    assert told["multi-token prediction"] < 1.85
    assert all(gain > 0.5 for gain in told.values())


def test_is_what_a_chip_cannot_do_told() -> None:
    found = run(chips="atleus")
    rows = found.tables[0].rows
    silent = [str(row[0]) for row in rows if row[1] is None]
    assert len(silent) < len(rows)
    assert len(silent) == 0 or any("atleus" in str(remark) for remark in found.remarks)


def test_are_unknown_settings_refused() -> None:
    with pytest.raises(TierformError, match="no such setting"):
        run(chip="a100")
