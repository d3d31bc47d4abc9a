"""Do seeded mutations of every kind of file end in a result or in a clear message?  ``make fuzz`` runs for longer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fuzz_run import run
from fuzz_targets import TARGETS, not_finite

GROUPS = {
    "foundations": ("units", "yaml", "json", "range", "samples", "series", "records"),
    "library": ("model", "config.json", "component", "chip", "mapping", "materials", "job", "runtime"),
    "torch": ("tune", "rows", "noise", "checkpoint", "checkpoint-forged", "safetensors"),
    "store": ("store", "store-mended"),
    "memory": ("memory", "cxl", "dramsim", "dram-trace", "ramulator-trace"),
    "tools": ("scalesim-config", "scalesim-topology", "booksim", "anynet"),
    "heat": ("hotspot-config", "hotspot-floorplan", "hotspot-power", "hotspot-layers", "hotspot-materials"),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="bounds memory and time as Linux does")
@pytest.mark.parametrize("group", GROUPS)
def test_does_no_mutated_file_break_its_parser(group: str, tmp_path: Path) -> None:
    if group == "torch":
        pytest.importorskip("torch")
    reports = run(list(GROUPS[group]), runs=100, seconds=30, seed=2, out=tmp_path)
    assert [one["target"] for one in reports] == list(GROUPS[group])
    assert [fault for one in reports for fault in one["faults"]] == []
    assert all(one["inputs"] > 100 for one in reports)


def test_is_nonsense_in_a_result_found() -> None:
    assert not_finite({"a": [1.0, (2, float("inf"))]}) == ".a.1.1 is inf"
    assert not_finite([float("nan")]) is not None
    assert not_finite({"a": 1e59, "b": True, "c": "inf"}) is None


def test_is_every_target_in_a_group() -> None:
    assert set().union(*GROUPS.values()) == set(TARGETS)
