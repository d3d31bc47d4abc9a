"""Does the workload's ledger pass, and can it fail?"""

from __future__ import annotations

from pathlib import Path

import pytest

from tierform.errors import TierformError
from tierform.validation.workload import ledger

FLOPS = "model,method,sequence,forward,backward\ngpt2-medium,full,1024,826951073792,{}\n"
PARAMETERS = "model,total,active,tolerance,source\ngpt2-medium,355e6,,0.005,gpt2-2019\n"


def test_built_in_points_pass() -> None:
    found = ledger()
    assert found.passed
    assert len(found.points) >= 70


def test_a_wrong_reference_fails(tmp_path: Path) -> None:
    (tmp_path / "workload_parameters.csv").write_text(PARAMETERS)
    (tmp_path / "workload_flops.csv").write_text(FLOPS.format(1653902147584))
    assert ledger(tmp_path).passed
    (tmp_path / "workload_flops.csv").write_text(FLOPS.format(1653902147585))
    failures = ledger(tmp_path).failures
    assert [point.quantity for point in failures] == ["matmul operations backward"]
    (tmp_path / "workload_flops.csv").write_text(FLOPS.format("many"))
    with pytest.raises(TierformError, match="number"):
        ledger(tmp_path)
