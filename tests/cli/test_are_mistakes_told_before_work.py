"""Are options without a meaning refused at once, and options without an effect told?"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tierform.cli.main import main

SCALE = """[general]
run_name = x
[architecture_presets]
ArrayHeight: 8
ArrayWidth: 8
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
Bandwidth : 10
Dataflow: ws
[run_presets]
InterfaceBandwidth: CALC
"""


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    return int(left.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ("s.cfg", SCALE),
        ("g.csv", "Layer,M,N,K,\nG1, 8, 8, 8,\n"),
        ("l.csv", "a head line\nG1,2,8,1,4,1,4,2,1,0,5,4,3,3,0,1,2,7,4,5,6,\n"),
        ("a.flp", "left 0.004 0.008 0 0\nright 0.004 0.008 0.004 0\n"),
        ("a.ptrace", "left right\n10 5\n"),
    ):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("store", "bench", "--bits", "0"), "1 to 64"),
        (("store", "bench", "--bits", "99,4"), "1 to 64"),
        (("store", "bench", "nonesuch"), "nonesuch"),
        (("store", "bench", "g.csv"), "not a tierform store"),
        (("store", "bench", "--model", "g.csv"), "--model"),
        (("systolic", "-c", "s.cfg", "-t", "g.csv", "--compat", "-l", "nonesuch"), "nonesuch"),
        (("systolic", "-c", "s.cfg", "-t", "g.csv", "--compat", "-l", "a.flp"), "20 numbers"),
        (("thermal", "-f", "a.flp", "-p", "a.ptrace", "--set", "ambient=1e9"), "ambient"),
        (("thermal", "-f", "a.flp", "-p", "a.ptrace", "--set", "ambient=0"), "ambient"),
    ],
)
def test_is_it_refused_at_once(
    folder: Path, words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = time.process_time()
    assert run(*words) == 2
    assert told in capsys.readouterr().err
    assert time.process_time() - begin < 3.0  # the timing of kernels takes more


def test_is_a_layout_without_effect_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run("systolic", "-c", "s.cfg", "-t", "g.csv", "--compat", "-l", "l.csv") == 0
    assert "the layout changes no figure" in caplog.text
