"""Do seeded mutations of every kind of file end in a result or in a clear message?  ``make fuzz`` runs for longer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import fuzz_targets_wide as wide
import pytest
from fuzz_run import main, run
from fuzz_target import not_finite
from fuzz_targets import TARGETS

from tierform.errors import TierformError

GROUPS = {
    "foundations": ("units", "yaml", "json", "range", "samples", "series", "records"),
    "library": ("model", "config.json", "component", "chip", "mapping", "materials", "job", "runtime"),
    "torch": ("tune", "rows", "noise", "checkpoint", "checkpoint-forged", "safetensors"),
    "store": ("store", "store-mended"),
    "memory": ("memory", "cxl", "dramsim", "dram-trace", "ramulator-trace"),
    "tools": ("scalesim-config", "scalesim-topology", "booksim", "anynet"),
    "networks": ("network", "packets", "layout", "traffic"),
    "runs": ("space", "engine", "requests", "plan", "gguf"),
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


_SPACE = wide.SPACES[0]
# Inputs that broke a parser once: a traceback, a hang, or nonsense accepted.
KEPT = [
    ("plan", wide.PLANS[0].replace(b'"exact_B": 12', b'"exact_B": null')),
    ("plan", wide.PLANS[0].replace(b'"exact_B": 12', b'"exact_B": ' + b"9" * 70)),
    ("plan", wide.PLANS[0].replace(b"[64, 32]", b"[64, " + b"9" * 400 + b"]")),
    ("plan", wide.PLANS[0].replace(b"nf4-64", b"nf4-" + b"6" * 6000)),
    ("plan", wide.PLANS[0].replace(b"nf4-64", b"int" + "²".encode())),
    ("traffic", wide.TRAFFIC[0].replace(b"128, 1, ", b"99999999999, 1, ")),
    ("traffic", wide.TRAFFIC[0].replace(b'"router": 1', b'"router": 7')),
    ("traffic", wide.TRAFFIC[0].replace(b"[50, 0]", b"[50]")),
    ("traffic", wide.TRAFFIC[0].replace(b'"flit_bits": 128,', b"")),
    ("requests", b'{"arrival_time_ns": ' * 9999),
    ("requests", b'[{"start_times": 1}]'),
    ("space", _SPACE.replace(b"from: 1,", b"from: nan,")),
    ("space", _SPACE.replace(b"from: 1,", b"from: -inf,")),
    ("space", _SPACE.replace(b"reram / 12", b"reram / 1" + b"/ 1" * 9999)),
    ("space", _SPACE.replace(b"reram / 12", b"'x' * 99999999999")),
    ("space", _SPACE.replace(b"reram / 12", b"1e308 * 1e308")),
    ("space", _SPACE.replace(b"devices: 8", b"devices: 99999999999999")),
    ("space", _SPACE.replace(b"over: [tensor, pipeline]", b"over: 5")),
    ("space", _SPACE.replace(b"[latency_s,", b"[[latency_s],")),
    ("space", _SPACE.replace(b"kelvin_over: 0", b"kelvin_over: .inf")),
    ("space", _SPACE.replace(b"chip.memory.0.count", b"chip" + b".memory" * 5000)),
]


@pytest.mark.parametrize(("target", "content"), KEPT, ids=range(len(KEPT)))
def test_is_an_input_that_broke_a_parser_refused(target: str, content: bytes, tmp_path: Path) -> None:
    assert content not in TARGETS[target].seeds()
    path = tmp_path / TARGETS[target].file
    path.write_bytes(content)
    with pytest.raises(TierformError):
        TARGETS[target].read(path)


@pytest.mark.parametrize("target", sorted(wide.WIDE))
def test_are_the_right_files_of_a_kind_read(target: str, tmp_path: Path) -> None:
    for number, content in enumerate(TARGETS[target].seeds()):
        path = tmp_path / f"{number}-{TARGETS[target].file}"
        path.write_bytes(content)
        assert not_finite(TARGETS[target].read(path)) is None


def test_is_nonsense_in_a_result_found() -> None:
    assert not_finite({"a": [1.0, (2, float("inf"))]}) == ".a.1.1 is inf"
    assert not_finite([float("nan")]) is not None
    assert not_finite({"a": 1e59, "b": True, "c": "inf"}) is None


def test_is_every_target_in_a_group() -> None:
    assert set().union(*GROUPS.values()) == set(TARGETS)


def test_is_a_worker_that_died_after_its_first_word_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ({"target": "units", "inputs": 9, "done": True}, {"target": "yaml", "inputs": 5, "done": False})
    text = "\n".join(json.dumps({**word, "accepted": 0, "refused": 0, "faults": []}) for word in words)
    ended = subprocess.CompletedProcess([], -24, stdout=text, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    reports = run(["units", "yaml", "json"], runs=1, seconds=1, seed=0, out=tmp_path)
    assert [(one["inputs"], len(one["faults"])) for one in reports] == [(9, 0), (5, 1)]
    assert "ended with -24" in reports[1]["faults"][0]


def test_is_an_unknown_target_told_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz_run.py", "chips", "yaml", "zzz"])
    with pytest.raises(SystemExit) as left:
        main()
    told = capsys.readouterr().err
    assert left.value.code == 2
    assert "chips (did you mean chip?), zzz; known: units, yaml" in told
