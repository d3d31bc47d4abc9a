"""Do order of keys, names, spelled-out defaults, the way of asking and repetition leave every byte as it is?"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drawn import STACKS, Task, chip_content, law, load, models, run, tasks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import small

import tierform
from tierform import FineTuning, Full, Inference, LoRA, load_chip
from tierform.simulation import Result
from tierform.simulation.job_file import load_job, save_job

SEVERAL = ("atleus", "tpu-3d", "x-former", "haima", "hetrax", "hpt", "isaac")
QUICK = settings(law(1), suppress_health_check=list(HealthCheck))


def _text(result: Result, renamed: dict[str, str] | None = None) -> str:
    """The result as its file has it, its keys in order and the chip file's digest left out; names given back."""
    content = json.loads(json.dumps(result.to_dict()))
    del content["versions"]["chip_sha256"]
    text = json.dumps(content, sort_keys=True)
    for new, old in (renamed or {}).items():
        text = text.replace(new, old)
    return json.dumps(_sorted(json.loads(text)), sort_keys=True) if renamed else text


def _apart(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Where two contents of a file differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from _apart(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from _apart(first, second, f"{place}/{index}")
    elif one != other:
        yield f"{place}: {one} is not {other}"


def _sorted(value: Any) -> Any:
    """Lists of records in a fixed order."""
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return sorted((_sorted(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    return value


def _shuffled(value: Any, source: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        source.shuffle(keys)
        return {key: _shuffled(value[key], source) for key in keys}
    return [_shuffled(item, source) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("chip", SEVERAL)
def test_does_the_order_of_keys_change_nothing(chip: str, tmp_path: Path) -> None:
    @QUICK
    @given(st.data(), st.integers(0, 1000))
    def holds(data: st.DataObject, seed: int) -> None:
        model = data.draw(models())
        task = data.draw(tasks(model))
        content = chip_content(chip)
        one = run(model, task, load(content, tmp_path), thermal="steady")
        other = run(model, task, load(_shuffled(content, random.Random(seed)), tmp_path), thermal="steady")
        assert json.dumps(_sorted(json.loads(_text(one)))) == json.dumps(_sorted(json.loads(_text(other))))

    holds()


def _renamed(content: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The chip with its components called otherwise, everywhere."""

    def of(value: Any) -> Any:
        return names.get(value, value) if isinstance(value, str) else value

    found = dict(content)
    found["components"] = {of(name): part for name, part in content["components"].items()}
    found["package"] = dict(content["package"])
    found["package"]["dies"] = [
        {**die, "holds": {of(name): count for name, count in die["holds"].items()}}
        for die in content["package"]["dies"]
    ]
    found["place"] = {key: of(name) for key, name in content.get("place", {}).items()}
    found["memory"] = [{key: of(value) for key, value in entry.items()} for entry in content.get("memory", [])]
    cooling = dict(content.get("cooling", {}))
    if "limits" in cooling:
        cooling["limits"] = {of(name): value for name, value in cooling["limits"].items()}
    return {**found, "cooling": cooling}


@pytest.mark.parametrize("chip", SEVERAL)
def test_do_the_names_of_components_change_nothing(chip: str, tmp_path: Path) -> None:
    content = chip_content(chip)
    dies = {die["name"] for die in content["package"]["dies"]}
    names = {name: f"zz{99 - index}q" for index, name in enumerate(content["components"]) if name not in dies}
    back = {new: old for old, new in names.items()}

    @QUICK
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        model = data.draw(models())
        task = data.draw(tasks(model))
        one = run(model, task, load(content, tmp_path), thermal="steady")
        other = run(model, task, load(_renamed(content, names), tmp_path), thermal="steady")
        expected = _text(one, {"no such name": ""})
        assert list(_apart(json.loads(_text(other, back)), json.loads(expected))) == []

    holds()


@pytest.mark.parametrize("chip", ["atleus", "tpu-3d", "toy-gpu"])
def test_do_spelled_out_defaults_change_nothing(chip: str, tmp_path: Path) -> None:
    content = chip_content(chip)
    said = {"backward_weights": "transposed", "pipelined": False, "notes": [], "assumed": [], "place": {}, **content}
    for entry in said.get("memory", []):
        entry.setdefault("count", 1)
    said["components"] = {name: {"set": {}, **part} for name, part in content["components"].items()}
    for task in (Inference(batch=2, sequence=16, decode=2), FineTuning(LoRA(2), batch=2, sequence=16)):
        model = small("gpt2")
        one, other = run(model, task, load(content, tmp_path)), run(model, task, load(said, tmp_path))
        assert _text(one) == _text(other)
        asked = tierform.simulate(
            model,
            task,
            load(content, tmp_path),
            fidelity="analytic",
            mapping="best",
            overflow="stream",
            thermal="none",
            runtime="ideal",
            parallelism=tierform.Job(model, task, chip).parallelism,
        )
        assert _text(asked) == _text(one)


@law(12)
@given(st.data())
def test_do_two_runs_give_the_same_bytes(data: st.DataObject) -> None:
    model = data.draw(models())
    task: Task = data.draw(tasks(model))
    chip = data.draw(st.sampled_from(STACKS))
    first, second = (json.dumps(run(model, task, chip, thermal="steady").to_dict()) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("model", "task", "chip"),
    [
        ("bert-base", FineTuning(LoRA(8), batch=4, sequence=64), "atleus"),
        ("gpt2", Inference(batch=2, sequence=32, decode=4), "a100"),
        ("gpt2", FineTuning(Full(), batch=2, sequence=32, gradient_accumulation=2), "tpu-3d"),
    ],
)
def test_do_a_job_and_its_file_give_the_same_bytes(model: str, task: Task, chip: str, tmp_path: Path) -> None:
    job = tierform.Job(model=model, task=task, chip=chip)
    save_job(job, tmp_path / "job.yaml")
    again = load_job(tmp_path / "job.yaml")
    assert again == job
    save_job(again, tmp_path / "again.yaml")
    assert (tmp_path / "job.yaml").read_bytes() == (tmp_path / "again.yaml").read_bytes()
    one, other = job.simulate(), again.simulate()
    short = tierform.simulate(model, task, chip)
    assert json.dumps(one.to_dict()) == json.dumps(other.to_dict()) == json.dumps(short.to_dict())


# Python 3.12 adds floating-point numbers more exactly than 3.11: a sum that depends on it gives other bytes there.
ADDING = """
import builtins, hashlib, json, math
plain = builtins.sum

def adding(values, /, start=0):
    items = list(values)
    if any(type(item) is not float and type(item) is not int for item in items):
        return plain(items, start)
    if not any(type(item) is float for item in items):
        return plain(items, start)
    if EXACT:
        return math.fsum([start, *items])
    for item in items:
        start += item
    return start

builtins.sum = adding
import tierform
for model, task, chip in (
    ("bert-base", tierform.FineTuning(tierform.LoRA(8), batch=4, sequence=64), "atleus"),
    ("gpt2", tierform.FineTuning(batch=2, sequence=32, gradient_accumulation=2), "tpu-3d"),
):
    content = json.dumps(tierform.simulate(model, task, chip).to_dict())
    print(hashlib.sha256(content.encode()).hexdigest())
"""


def test_do_versions_of_python_give_the_same_bytes() -> None:
    found = []
    for exact in (False, True):
        code = f"EXACT = {exact}{ADDING}"
        found.append(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert found[0] == found[1] and len(found[0].split()) == 2


def test_does_no_result_hold_a_time_of_day() -> None:
    content = run(small("gpt2"), Inference(batch=1, sequence=8), load_chip("atleus"), thermal="steady").to_dict()

    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {key for item in value.values() for key in keys(item)}
        return {key for item in value for key in keys(item)} if isinstance(value, list | tuple) else set()

    assert not {
        key for key in keys(content) if re.search("date|clock_time|cpu|wall|host|time_of|duration|elapsed", key)
    }
