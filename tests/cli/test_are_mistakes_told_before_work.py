"""Are options without a meaning refused at once, and options without an effect told?"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tierform.cli.main import main
from tierform.cli.run_options import read_micro_batches
from tierform.cli.technique_options import read_policy, read_techniques
from tierform.compression.formats import Density, WeightFormat
from tierform.decoding.drafts import draft_problems
from tierform.errors import TierformError
from tierform.numerics.formats import BitPlan
from tierform.serving.controls import parse_failures
from tierform.workload.recomputation import recomputation_problems
from tierform.workload.reduced import numbers_of
from tierform.workload.split_text import read_parallel

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


def refused_if(problems: object) -> None:
    if problems:
        raise TierformError([])


TEXTS: dict[str, Callable[[str], object]] = {
    "micro-batches": lambda text: read_micro_batches(f"decode={text}"),
    "parallel": lambda text: read_parallel(f"tensor={text}"),
    "policy": lambda text: read_policy(f"window:{text}"),
    "draft": lambda text: refused_if(draft_problems(f"planes:{text}", 1, "x")),
    "early exit": lambda text: read_techniques({"draft": f"early-exit:{text}"}),
    "failures": lambda text: parse_failures(f"{text}@3s"),
    "bits": BitPlan.parse,
    "bits of parts": lambda text: BitPlan.parse(f"W{text}A8"),
    "density": lambda text: Density.parse(f"{text}:4"),
    "weights": lambda text: WeightFormat.parse(f"int4-g{text}"),
    "recomputation": lambda text: refused_if(recomputation_problems(f"full:{text}")),
    "layers": lambda text: numbers_of(text, 12, "skip"),
}


@pytest.mark.parametrize("text", ["²", "１２", "٣", "9" * 5000], ids=["power", "wide", "arabic", "long"])
@pytest.mark.parametrize("name", TEXTS)
def test_is_a_number_in_other_digits_or_without_end_told(name: str, text: str) -> None:
    with pytest.raises(TierformError):
        TEXTS[name](text)


def test_a_wrong_split_does_not_hide_a_wrong_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "simulate",
        "llama-3.1-8b",
        "--chip",
        "h100",
        "--parallel",
        "tensor=7,expert=3",
        "--runtime",
        "tensorrt-lm",
    )
    assert run(*words) == 2
    told = capsys.readouterr().err
    assert "Give expert=7" in told and "did you mean 'tensorrt-llm'" in told
