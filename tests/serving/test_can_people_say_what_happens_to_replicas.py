"""The options of ``tierform serve`` that say what happens to replicas: they act, and mistakes are told at once."""

from __future__ import annotations

import json
import re
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


def _refused(*line: str) -> str:
    with pytest.raises(TierformError) as told:
        CliRunner().invoke(command, list(line), catch_exceptions=False, standalone_mode=False)
    return str(told.value)


def test_are_mistakes_of_a_whole_line_told_at_once(tmp_path: Path) -> None:
    """Engine file, chips, replicas, router, SLO, draft, formats: none hides another; numbers out of range neither."""
    engine = tmp_path / "engine.yaml"
    engine.write_text("max_num_seqs: -3\n")
    text = _refused(
        *("llama-3.1-8", "--chip", "h10,l40s", "--rate", "6", "--engine", str(engine), "--replicas", "1,2,3"),
        *("--router", "leastloaded", "--slo", "ttft=0.5", "--tensor", "x", "--shed", "bf16=6,int9=7"),
    )
    for word in ("llama-3.1-8b", "h100", "max_num_seqs", "2 chips", "least-loaded", "slo ttft", "--tensor", "int9"):
        assert word in text, word
    text = _refused("gpt2", "--chip", "h100", "--rate", "nan", "--requests", "0", "--prompt", "-3", "--output", "0")
    assert [line.split(":")[0] for line in text.splitlines()] == ["--rate", "--requests", "--prompt", "--output"]
    text = _refused(
        *("llama-3.1-8b", "--find", "cheapest", "--chips", "h100,l4s", "--rate", "6", "--slo", "ttft=0.5s"),
        *(
            "--price",
            "h100=a,z=-3",
            "--batches",
            "0,x",
            "--most",
            "0",
            "--within",
            "2",
            "--turns",
            "2",
            "--think",
            "-1s",
        ),
    )
    for word in ("l40s", "h100=a", "z=-3", "for every chip", "--batches", "--most", "--within"):
        assert word in text, word


def test_are_mistakes_about_replicas_told_at_once() -> None:
    """One replica: number 5 cannot fail, nine cannot be the least; up is below down; a window of no length."""
    text = _refused(
        *("llama-3.1-8b", "--chip", "h100", "--rate", "6", "--fail", "5@10s", "--heat", "0s"),
        *("--autoscale", "least=9,up=1,down=5,every=0s"),
    )
    for word in ("replicas 0 to 0", "heat_window_s", "autoscale least", "autoscale down", "autoscale every"):
        assert word in text, word


def test_is_a_model_that_generates_nothing_refused() -> None:
    text = _refused("bert-large", "--chip", "h100", "--rate", "3", "--requests", "10")
    assert "does not generate text" in text and "0 B are missing" not in text


def test_does_the_screen_say_what_happened(tmp_path: Path) -> None:
    """A failure with the requests that came again; no SLO, no row about one; one replica is no "replica(s)"."""
    engine = tmp_path / "engine.yaml"
    engine.write_text("num_gpu_blocks: 2000\nmax_model_len: 8192\n")
    line = ["llama-3.1-8b", "--chip", "rtx-4090", "--tables", str(TABLES), "--engine", str(engine), "--rate", "50"]
    line += ["--requests", "40", "--prompt", "64", "--output", "16"]
    told = CliRunner().invoke(command, [*line, "--replicas", "2", "--fail", "1@0.3s+1s"], catch_exceptions=False)
    again = re.search(r"replica 1 failed at 300 ms: (\d+) requests came again", told.output)
    assert again is not None and int(again[1]) > 0, told.output
    assert "2 x rtx-4090, 2 replicas" in told.output and "SLO" not in told.output
    told = CliRunner().invoke(command, [*line, "--slo", "ttft=1s"], catch_exceptions=False)
    assert "1 x rtx-4090, 1 replica\n" in told.output and "within the SLO (ttft 1 s)" in told.output


def test_is_autoscaling_read_whole() -> None:
    fleet = fleet_of({**NONE, "autoscale": "least=2,up=40,down=4,start=30s,every=5s"})
    assert fleet is not None and fleet.autoscaling is not None
    scaling = fleet.autoscaling
    assert (scaling.least, scaling.up, scaling.down, scaling.start_s, scaling.every_s) == (2, 40.0, 4.0, 30.0, 5.0)
