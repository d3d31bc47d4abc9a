"""Does the ledger of compute-in-memory pass, with points held out, and can it fail?"""

from __future__ import annotations

from pathlib import Path

import pytest

from tierform.errors import TierformError
from tierform.validation.cim import ledger


def test_every_point_passes_and_most_of_neurram_is_held_out() -> None:
    found = ledger()
    assert found.passed, [str(point) for point in found.failures]
    neurram = [point for point in found.points if point.case.startswith("neurram")]
    assert sum(not point.fitted for point in neurram) == 14
    assert sum(point.fitted for point in neurram) == 6
    assert any(point.tolerance is None for point in found.points)


def test_other_figures_for_neurram_fail(tmp_path: Path) -> None:
    table = tmp_path / "neurram.csv"
    head = "# somebody's own\noutput_bits,input_bits,one_phase,tops,tops_per_w\n"
    table.write_text(head + "5,3,0,1.165,23.09\n")
    assert ledger(tmp_path).passed
    table.write_text(head + "5,3,0,1.5,23.09\n")
    assert [point.quantity for point in ledger(tmp_path).failures] == ["throughput"]


def test_malformed_reference_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TierformError):
        ledger(tmp_path)
    (tmp_path / "neurram.csv").write_text("output_bits,input_bits,one_phase,tops,tops_per_w\n5,x,0,1,2\n5,3,0,1\n")
    with pytest.raises(TierformError) as caught:
        ledger(tmp_path)
    assert len(caught.value.problems) == 2
