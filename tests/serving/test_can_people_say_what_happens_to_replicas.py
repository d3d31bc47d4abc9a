"""The options of ``tierform serve`` that say what happens to replicas: they act, and mistakes are told at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import tierform.validation.serving as serving
from tierform.cli.serve import command
from tierform.cli.serve_fleet import fleet_of
from tierform.errors import TierformError

TABLES = Path(serving.__file__).parent / "tables" / "serving" / "rtx4090-tables"
NONE = {"prefill_replicas": 0, "link": None, "fail": None, "autoscale": None, "heat": None, "limit": None, "shed": None}


def test_do_options_act(tmp_path: Path) -> None:
    """Sessions of three turns on three copies, of which one prefills and one fails; measured tables, so no heat."""
    engine = tmp_path / "engine.yaml"
    engine.write_text("num_gpu_blocks: 2000\nmax_model_len: 8192\n")
    out, steps = tmp_path / "out.json", tmp_path / "steps.json"
    told = CliRunner().invoke(
        command,
        [
            *("llama-3.1-8b", "--chip", "rtx-4090", "--tables", str(TABLES), "--engine", str(engine)),
            *("--rate", "2", "--requests", "20", "--turns", "3", "--think", "1s", "--prompt", "64", "--output", "16"),
            *("--replicas", "3", "--prefill-replicas", "1", "--link", "10GB/s", "--fail", "2@5s+5s"),
            *("--json", str(out), "--save-timeline", str(steps)),
        ],
        catch_exceptions=False,
    )
    assert told.exit_code == 0, told.output
    figures = json.loads(out.read_text())
    assert figures["counts"] == {"finished": figures["requests"]} and figures["requests"] > 20
    assert figures["prefill_replicas"] == 1 and figures["moved_kv_tokens"] > 0
    pids = {one["pid"] for one in json.loads(steps.read_text())["traceEvents"] if one["ph"] == "X"}
    assert pids == {0, 1, 2}
    assert "KV of" in told.output


def test_are_all_mistakes_told_at_once() -> None:
    given = {**NONE, "link": "fast", "fail": "x", "autoscale": "leest=1,up=5,up=6", "limit": "hot"}
    with pytest.raises(TierformError) as told:
        fleet_of(given)
    text = str(told.value)
    for word in ("--link", "REPLICA@TIME", "leest", "least", "twice", "--limit"):
        assert word in text
    assert fleet_of(NONE) is None


def test_is_autoscaling_read_whole() -> None:
    fleet = fleet_of({**NONE, "autoscale": "least=2,up=40,down=4,start=30s,every=5s"})
    assert fleet is not None and fleet.autoscaling is not None
    scaling = fleet.autoscaling
    assert (scaling.least, scaling.up, scaling.down, scaling.start_s, scaling.every_s) == (2, 40.0, 4.0, 30.0, 5.0)
