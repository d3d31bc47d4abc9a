"""Does the values engine pass its ledger, and can the ledger fail?"""

import pytest

pytest.importorskip("torch")

from tierform.validation.numerics import TABLE, ledger


def test_the_ledger_passes():
    found = ledger()
    assert found.passed, [str(point) for point in found.failures]
    assert len(found.points) == 11


def test_the_ledger_can_fail(tmp_path):
    (tmp_path / "numerics.csv").write_text(TABLE.read_text().replace("1.11471e-4", "1.13e-4").replace("2.4136", "3.4"))
    assert len(ledger(tmp_path).failures) == 2
