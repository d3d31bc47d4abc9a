"""Do the commands do what the README shows, and does a user's mistake end in one clear message and exit code 2?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tierform", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**os.environ, **variables},
    )


def test_does_simulate_print_and_write_everything(tmp_path: Path) -> None:
    job = ["simulate", "bert-base", "--chip", "atleus", "--task", "finetune", "--method", "lora", "--rank", "8"]
    job += ["--batch", "2", "--sequence", "128"]
    outputs = ["--json", "out.json", "--trace", "trace.json", "--save-mapping", "map.yaml"]
    done = run(*job, *outputs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("time", "energy", "limited by", "memory", "hottest tile", "--assumptions"):
        assert word in done.stdout
    assert "By component" not in done.stdout
    figures = json.loads((tmp_path / "out.json").read_text())
    for key in (
        "latency_s",
        "energy_J",
        "energy_delay_product_Js",
        "area_m2",
        "crossbar_writes",
        "memory_footprint_B",
        "operations_by_component",
        "energy_J_by_component",
        "energy_J_by_operator",
        "assumptions",
    ):
        assert key in figures
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    bars = [event for event in events if event["ph"] == "X"]
    assert bars
    assert max(bar["ts"] + bar["dur"] for bar in bars) == pytest.approx(figures["latency_s"] * 1e6, rel=0.05)
    assert {event["tid"] for event in bars} == {e["tid"] for e in events if e["name"] == "thread_name"}
    again = run(*job, "--mapping", "map.yaml", "--json", "again.json", "--detail", "--assumptions", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    for word in ("energy-delay product", "By component", "cell writes", "Temperature", "assumed", "datasheet"):
        assert word in again.stdout
    assert json.loads((tmp_path / "again.json").read_text())["latency_s"] == figures["latency_s"]


def test_does_compare_set_chips_side_by_side(tmp_path: Path) -> None:
    done = run(
        "compare",
        "bert-base",
        "--chips",
        "atleus,atleus-2.5d,a100",
        "--task",
        "finetune",
        "--method",
        "lora",
        "--batch",
        "2",
        "--sequence",
        "64",
        "--json",
        "c.json",
        "--assumptions",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "speed-up over a100" in done.stdout
    assert "The baseline a100 assumes" in done.stdout
    content = json.loads((tmp_path / "c.json").read_text())
    assert [result["chip"] for result in content["results"]] == ["atleus", "atleus-2.5d", "a100"]


@pytest.mark.parametrize("shelf", ["models", "chips", "components", "memories"])
def test_does_list_show_the_library(shelf: str) -> None:
    done = run("list", shelf)
    assert done.returncode == 0, done.stderr
    assert {"models": "llama-3.1-405b", "chips": "atleus", "components": "isaac", "memories": "hbm2"}[
        shelf
    ] in done.stdout


@pytest.mark.parametrize("shelf", ["models", "chips", "components", "memories", "studies"])
def test_is_every_entry_of_a_list_one_line_of_a_terminal(shelf: str) -> None:
    from tierform import library
    from tierform.studies import STUDIES

    done = run("list", shelf, COLUMNS="80")
    names = STUDIES.names() if shelf == "studies" else library.names(shelf)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2 : 2 + len(names)]] == list(names)
    assert lines[2 + len(names)] == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulate", "bert-lrage", "--chip", "atlues"], ["bert-large", "atleus"]),
        (["simulate", "gpt2", "--chip", "a100", "--batch", "-1", "--sequence", "0"], ["batch", "sequence", "-1"]),
        (["simulate", "gpt2", "--chip", "a100", "--weights", "int9"], ["int9", "int"]),
        (["simulate", "gpt2", "--chip", "a100", "--rank", "8"], ["--rank", "inference"]),
        (["simulate", "gpt2", "--chip", "a100", "--task", "finetune", "--decode", "4"], ["--decode"]),
        (["simulate", "gpt2", "--chip", "a100", "--task", "finetune", "--targets", "q,z"], ["z"]),
        (["simulate", "gpt2", "--chip", "atleus", "--mapping", "none.yaml"], ["no such file", "none.yaml"]),
        (["simulate", "gpt3-175b", "--chip", "a100"], ["does not fit"]),
        (["simulate", "gpt2", "--chip", "a100", "--json", "/proc/nowhere/x.json"], ["cannot write"]),
        (["compare", "gpt2", "--chips", "a100"], ["two chips"]),
        (["simulte", "gpt2"], ["simulate"]),
        (["simulate", "gpt2"], ["--chip"]),
        (["list", "chip"], ["chips"]),
        (["validate", "no-such-engine"], ["unknown validation engine"]),
        (["validate", "--data", "."], ["needs the name"]),
    ],
)
def test_is_a_mistake_one_message_and_exit_code_2(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_does_a_failing_simulation_leave_no_file(tmp_path: Path) -> None:
    done = run("simulate", "gpt3-175b", "--chip", "a100", "--json", "out.json", "--trace", "t.json", cwd=tmp_path)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_does_the_report_stand_alone(tmp_path: Path) -> None:
    done = run("simulate", "bert-base", "--chip", "atleus", "--sequence", "64", "--report", "r.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "r.html").read_text()
    for word in ("Energy by component", "Roofline", "Timeline", "Temperature"):
        assert word in page
    assert not [address for address in ('src="http', 'href="http', 'rel="stylesheet"') if address in page]


def test_does_one_option_say_how_chips_share_the_work(tmp_path: Path) -> None:
    job = [
        "simulate",
        "gpt2",
        "--chip",
        "h100",
        "--task",
        "train",
        "--batch",
        "8",
        "--sequence",
        "64",
        "--thermal",
        "none",
    ]
    job += ["--micro-batches", "4", "--thermal", "none"]
    (tmp_path / "split.yaml").write_text("data: 2\npipeline: 2\nzero: 2\ninterleave: 2\n")
    for given in ("data=2,pipeline=2,zero=2,interleave=2", "split.yaml"):
        done = run(*job, "--parallel", given, "--detail", "--json", "out.json", "--save-job", "job.yaml", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "links exposed" in done.stdout and "MFU" in done.stdout
        figures = json.loads((tmp_path / "out.json").read_text())
        split = {"tensor": 1, "pipeline": 2, "data": 2, "sequence": False, "zero": 2, "interleave": 2}
        assert figures["parallelism"] == split and figures["chips"] == 4
        assert 0 < figures["communication"]["exposed_s"] < figures["latency_s"]
        assert 0 < figures["flops_utilization"]["model"] <= figures["flops_utilization"]["hardware"] < 1
    again = run("simulate", "--job", "job.yaml", "--json", "again.json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "again.json").read_text())["latency_s"] == figures["latency_s"]
    wrong = run(*job, "--parallel", "tensr=2,zero=x,sequence=perhaps", cwd=tmp_path)
    assert wrong.returncode == 2
    for word in ("did you mean 'tensor'", "--parallel zero: not a whole number", "neither true nor false"):
        assert word in wrong.stderr + wrong.stdout
    twice = run(*job, "--tensor", "2", "--parallel", "data=2", cwd=tmp_path)
    assert twice.returncode == 2 and "already" in twice.stderr + twice.stdout
