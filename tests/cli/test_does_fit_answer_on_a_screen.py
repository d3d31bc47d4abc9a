"""Does ``tierform fit`` answer first and on one screen, write the same figures, and refuse what it cannot do?"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tierform.cli import output
from tierform.cli.main import main


def run(*words: str) -> int:
    output.console.cache_clear()
    with pytest.raises(SystemExit) as left:
        main(list(words))
    output.console.cache_clear()
    return int(left.value.code or 0)


@pytest.mark.parametrize(
    "words",
    [
        ("gpt2", "--chip", "h100", "--gpus", "2", "--sequence", "64"),
        ("gpt2", "--chip", "h100", "--gpus", "2", "--task", "inference", "--sequence", "64", "--decode", "8"),
        ("llama-3.1-70b", "--chip", "h100", "--task", "train", "--offload", "none", "--recomputation", "none"),
    ],
)
def test_is_the_answer_one_screen(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("fit", *words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 23 and max(map(len, lines)) <= 80
    assert any(line.startswith(("It fits.", "It does not fit")) for line in lines[:3])


def test_does_the_simulation_that_is_told_cost_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--chip", "h100", "--gpus", "2", "--batch", "4", "--sequence", "64", "--parallel", "pipeline=2"]
    assert run("fit", "gpt2", *words, "--method", "lora", "--rank", "4", "--json", str(tmp_path / "f.json")) == 0
    found = json.loads((tmp_path / "f.json").read_text())
    counts = found["counts"]
    assert found["schema"] == "tierform.fit/1" and found["fits"]
    assert counts["timed"] + sum(counts["pruned"].values()) == counts["ways"] == 3 * 3 * 16  # micro-batches 1, 2, 4
    told = " ".join(capsys.readouterr().out.split("As a simulation: ")[1].split())
    command = shlex.split(told.split(f" {next(iter(counts['pruned'].values()))} ways:")[0])
    assert command[:2] == ["tierform", "simulate"] and "--rank" in command
    assert run(*command[1:], "--json", str(tmp_path / "s.json")) == 0
    simulated = json.loads((tmp_path / "s.json").read_text())
    assert simulated["latency_s"] == found["methods"][0]["latency_s"]
    assert simulated["energy_J"] == found["methods"][0]["energy_J"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--task", "inference", "--method", "lora"), "no meaning for inference"),
        (("--decode", "4"), "no meaning for training"),
        (("--method", "lorra"), "did you mean 'lora'"),
        (("--method", "full", "--rank", "4"), "none of these methods has a rank"),
        (("--objective", "times"), "did you mean 'time'"),
        (("--gpus", "0"), "1 to 4096"),
        (("--gpus", "4", "--parallel", "tensor=2"), "over 2 chips, and there are 4"),
        (("--recomputation", "sometimes"), "recomputation"),
        (("--offload", "kv-cache"), "cannot be offloaded"),
        (("--host", "floppy"), "floppy"),
        (("--batch", "0"), "at least 1"),
        (("--runtime", "nonesuch"), "nonesuch"),
    ],
)
def test_is_a_mistake_told(words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "gpt2", "--chip", "h100", *words) == 2
    assert told in capsys.readouterr().err
