"""Does the store's ledger pass on what it measures, and can it fail?"""

from __future__ import annotations

from pathlib import Path

import pytest

from tierform.errors import TierformError
from tierform.validation.store import ledger


def test_the_ledger_passes_and_fails_on_another_reference(tmp_path: Path) -> None:
    assert ledger().passed
    (tmp_path / "weights.csv").write_text("case,quantity,value,tolerance\nGaussian bf16,lossless saving,0.40,0.01\n")
    found = ledger(tmp_path)
    assert [point.case for point in found.failures] == ["Gaussian bf16"]


@pytest.mark.parametrize("line", ["Gaussian bf16,lossless saving,x,0.1", "Gausian bf16,lossless saving,0.2,0.1", "a"])
def test_a_wrong_reference_file_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "weights.csv").write_text("case,quantity,value,tolerance\n" + line + "\n")
    with pytest.raises(TierformError, match=r"weights\.csv:2"):
        ledger(tmp_path)
