"""Does a simulation answer on one screen of 80 columns and 24 lines, and is nothing of it cut at any width?"""

from __future__ import annotations

import pytest

import tierform
from tierform import FineTuning, Full, Inference, LoRA, Training, library
from tierform.cli import output
from tierform.cli.simulate import show
from tierform.report.answer import answer
from tierform.simulation import Result

JOBS = [
    ("bert-large", FineTuning(LoRA(32), batch=8, sequence=512), "atleus"),
    ("bert-base", FineTuning(Full(), batch=4, sequence=128), "hetrax"),
    ("gpt2", Inference(batch=4, sequence=128, decode=32), "a100"),
    ("gpt2", Inference(batch=1, sequence=64, decode=8), "haima"),
]


@pytest.fixture(params=JOBS, ids=lambda job: f"{job[0]}-{job[2]}", scope="module")
def result(request: pytest.FixtureRequest) -> Result:
    model, task, chip = request.param
    return tierform.simulate(model, task, chip)


def _printed(
    result: Result, width: int, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str], **more: bool
) -> str:
    patch.setenv("COLUMNS", str(width))
    output.console.cache_clear()
    show(result, **more)
    output.console.cache_clear()
    return captured.readouterr().out


def test_is_the_answer_one_screen(
    result: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _printed(result, 80, monkeypatch, capsys).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("time ") for line in lines[:4]), "the answer comes first"


@pytest.mark.parametrize("width", [60, 71, 80, 97, 120, 200])
def test_is_no_character_lost_at_any_width(
    result: Result, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = _printed(result, width, monkeypatch, capsys, detail=True)
    assert max(map(len, text.splitlines())) <= width
    found = answer(result)
    words = "".join(text.split())
    for cell in (cell for pair in found.figures for cell in pair):
        assert "".join(cell.split()) in words, cell
    for label, told in found.shares:
        assert "".join(f"{label}:{told}".split()) in words
    for note in result.notes:
        assert "".join(note.split()) in words


TASKS = {
    "inference": ("gpt2", Inference(batch=2, sequence=32, decode=24)),
    "finetune": ("bert-base", FineTuning(LoRA(8), batch=2, sequence=32)),
    "training": ("gpt2", Training(batch=1, sequence=32)),
}
# Of a chip that cannot hold a weight of the models above.
OTHERS = {
    ("x-former", "inference"): ("bert-base", Inference(batch=2, sequence=32)),
    ("x-former", "training"): ("bert-base", Training(batch=1, sequence=32)),
}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("chip", library.names("chips"))
def test_does_every_shipped_chip_answer_on_one_screen(
    chip: str, task: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, what = OTHERS.get((chip, task), TASKS[task])
    made = tierform.simulate(model, what, chip)
    found = answer(made)
    cells = [*(cell for pair in found.figures for cell in pair), *(f"{label}:{told}" for label, told in found.shares)]
    for width in (60, 80, 200):
        for detail in (False, True):
            text = _printed(made, width, monkeypatch, capsys, detail=detail)
            assert max(map(len, text.splitlines())) <= width
            assert len(text.splitlines()) <= 24 or detail or width < 80
            words = "".join(text.split())
            assert [cell for cell in cells if "".join(cell.split()) not in words] == []
            assert [note for note in made.notes if detail and "".join(note.split()) not in words] == []


def test_do_the_limits_name_what_saves_time(result: Result) -> None:
    for row, merged in zip(answer(result).stages.rows, _merged(result), strict=True):
        name, share = merged
        assert row[0] == name
        if share:
            resource, percent = row[-1].split(",")[0].rsplit(" ", 1)
            assert resource in {*result.utilization, "memory", "network", "writing weights", "interconnect"}
            assert 2 <= int(percent.rstrip("%")) <= 100


def _merged(result: Result) -> list[tuple[str, float]]:
    """Each stage, decode steps in one, and whether a resource limits it."""
    found: dict[str, float] = {}
    for limit in result.limits:
        name = limit.stage.split("[")[0]
        best = max(limit.gains_s.values(), default=0.0) / limit.seconds
        found[name] = max(found.get(name, 0.0), best if best > 0.03 else 0.0)
    return list(found.items())
