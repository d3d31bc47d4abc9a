"""Is a task with more of something (bits, tokens, layers, sequences) never cheaper in time, energy or memory?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from drawn import chip_path, chips, law, models, run, tasks
from hypothesis import given
from hypothesis import strategies as st
from small_models import small

from tierform import FineTuning, Inference, LoRA, PrecisionPlan, load_chip
from tierform.simulation import Result
from tierform.workload import Model

# The best of a few mappings and numbers of micro-batches is taken; a gain below a thousandth is not looked for.
SLACK = 1 + 2e-3


def _figures(result: Result) -> dict[str, float]:
    return {
        "time": result.latency_s,
        "energy": result.energy_J,
        "memory": float(sum(result.memory_footprint_B.values())),
        "operations": result.operations,
    }


def _never_cheaper(less: Result, more: Result) -> None:
    """Exception: another number of micro-batches was faster, and what waits in memory depends on it; a note says so."""
    before, after = _figures(less), _figures(more)
    assert less.mapping is not None and more.mapping is not None
    if less.mapping.micro_batches != more.mapping.micro_batches:
        told = (*less.notes, *more.notes)
        assert any(note.startswith("micro-batches of") for note in told), told
        del before["memory"]
    cheaper = {name: (value, after[name]) for name, value in before.items() if after[name] * SLACK < value}
    assert cheaper == {}, more.notes


@law(24)
@given(st.data())
def test_do_more_sequences_never_cost_less(data: st.DataObject) -> None:
    model = data.draw(models())
    task = data.draw(tasks(model, batches=(1, 2, 5, 8)))
    chip = data.draw(chips)
    more = replace(task, batch=task.batch + data.draw(st.sampled_from([1, 2, 3])))
    _never_cheaper(run(model, task, chip), run(model, more, chip))


@law(24)
@given(st.data())
def test_do_more_tokens_never_cost_less(data: st.DataObject) -> None:
    model = data.draw(models())
    task = data.draw(tasks(model))
    chip = data.draw(chips)
    more = replace(task, sequence=task.sequence + data.draw(st.sampled_from([1, 7, 16])))
    _never_cheaper(run(model, task, chip), run(model, more, chip))


@law(10)
@given(st.data())
def test_do_more_new_tokens_never_cost_less(data: st.DataObject) -> None:
    model = data.draw(models(st.sampled_from(["gpt2", "llama", "mixtral", "deepseek_v3"])))
    chip = data.draw(chips)
    task = Inference(batch=data.draw(st.sampled_from([1, 4])), sequence=16, decode=data.draw(st.sampled_from([1, 20])))
    _never_cheaper(run(model, task, chip), run(model, replace(task, decode=task.decode + 1), chip))


@law(16)
@given(st.data())
def test_do_more_layers_never_cost_less(data: st.DataObject) -> None:
    model = data.draw(models(st.sampled_from(["gpt2", "llama", "bert", "mixtral"])))
    task = data.draw(tasks(model))
    chip = data.draw(chips)
    deeper: Model = replace(model, layers=model.layers + data.draw(st.sampled_from([1, 4])))
    _never_cheaper(run(model, task, chip), run(deeper, task, chip))


def _precisions(chip: str) -> PrecisionPlan:
    return load_chip(chip_path(chip)).precision or PrecisionPlan()


@law(16)
@given(st.data())
def test_do_more_bits_of_weights_never_cost_less(data: st.DataObject) -> None:
    model = data.draw(models(st.sampled_from(["gpt2", "llama", "bert"])))
    chip = data.draw(st.sampled_from(["a100", "toy-gpu", "tpu-3d", "haima"]))
    plan = replace(_precisions(chip), master_weights=None)
    narrow, wide = data.draw(st.sampled_from([("4", "8"), ("6", "8"), ("4", "6")]))
    base: Any = Inference(batch=2, sequence=16)
    less, more = (replace(base, precision=plan.with_weights(text)) for text in (narrow, wide))
    _never_cheaper(run(model, less, chip), run(model, more, chip))


@law(10)
@given(st.data())
def test_does_a_larger_rank_never_cost_less(data: st.DataObject) -> None:
    model = data.draw(models(st.sampled_from(["gpt2", "llama", "bert"])))
    chip = data.draw(chips)
    rank = data.draw(st.sampled_from([1, 2, 7]))
    less, more = (FineTuning(LoRA(r), batch=2, sequence=16) for r in (rank, rank + 1))
    _never_cheaper(run(model, less, chip), run(model, more, chip))


@pytest.mark.xfail(strict=True, reason="64 copies of a narrow weight stand nearer together, and share links")
def test_do_more_bits_in_crossbars_never_cost_less() -> None:
    """Open: weights fill tiles one after the other; spread over more of them they would share fewer links."""
    chip = load_chip("atleus")
    assert chip.precision is not None
    plan = replace(chip.precision, master_weights=None)
    base: Any = Inference(batch=2, sequence=16)
    less, more = (run(small("gpt2"), replace(base, precision=plan.with_weights(text)), chip) for text in ("6", "8"))
    _never_cheaper(less, more)
