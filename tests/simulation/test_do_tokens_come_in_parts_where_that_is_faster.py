"""Are parts of tokens charged by what is simulated, and are they left where taking all tokens together is faster?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tierform import Inference, Job, load_chip
from tierform.chip.description import Chip
from tierform.mapping import Mapping
from tierform.simulation.choose import Trial, choose
from tierform.simulation.facts import facts_of
from tierform.simulation.token_parts import TokenParts
from tierform.workload.graph import StageKind


def run_of(task: Inference, chunks: int) -> Trial:
    job = Job(model="bert-base", task=task, chip=load_chip("hetrax")).loaded()
    mapping = choose(job).mapping
    return choose(replace(job, mapping=replace(mapping, chunks=chunks), micro_batches=None))


def test_in_how_many_parts_does_each_product_come() -> None:
    """A micro-batch of 4 x 128 tokens in 8 parts: products with a weight come in 8; so do scores, of 4 sequences."""
    job = Job(model="bert-base", task=Inference(batch=4, sequence=128), chip=load_chip("hetrax"), micro_batches=1)
    stage = choose(job.loaded()).workload.stages[0]
    (wave,) = stage.waves
    block = max(wave.blocks, key=lambda one: one.count)
    facts = [one for one in facts_of(block) if one.matmul]
    eight = TokenParts(8, wave.tokens, frozenset())
    assert wave.tokens == 512
    assert {eight.of(one) for one in facts if one.has_weight} == {(8, 1)}
    assert {eight.of(one) for one in facts if not one.has_weight} == {(8, 4)}
    assert {TokenParts(1, wave.tokens, frozenset()).of(one) for one in facts} == {(1, 1)}


def test_is_what_parts_take_more_in_the_result() -> None:
    """128 tokens in 32 parts of 4: arrays of 32 rows compute scores of 4 rows 32 times."""
    few, many = run_of(Inference(batch=2, sequence=128), 1), run_of(Inference(batch=2, sequence=128), 32)
    spent = [
        sum(item.cost.total_energy_J for made in run.timed for segment in made.waves[0] for item in segment.executions)
        for run in (few, many)
    ]
    paid = [item for made in many.timed for s in made.waves[0] for item in s.executions if item.parted_s > 0]
    once = [item for made in many.timed for s in made.waves[0] for item in s.executions if item.once]
    assert bool(paid) != bool(once)  # a stage does the one or the other
    assert spent[1] > spent[0] if paid else spent[1] == pytest.approx(spent[0])


def test_is_the_faster_of_both_ways_taken() -> None:
    """A step of 8 sequences in 8 parts gives each product one row at a time; the arrays take the 8 rows together."""
    chip = load_chip("hetrax").vary({"place.ffn": "sm", "place.attention": "sm"})
    assert isinstance(chip, Chip)
    job = Job(model="gpt2", task=Inference(batch=8, sequence=64, decode=8), chip=chip, micro_batches=1).loaded()
    run = choose(job)
    assert isinstance(run.mapping, Mapping) and run.mapping.chunks == 8
    for made in run.timed:
        together = {item.component for segment in made.waves[0] for item in segment.executions if item.once}
        other = run.stages._segments(made.stage, frozenset({"sm"} - together))
        assert made.seconds <= run.stages._timed(made.stage, other).seconds * (1 + 1e-3)
    decode = [made for made in run.timed if made.stage.kind is StageKind.DECODE]
    assert decode and all(
        item.once
        for made in decode
        for s in made.waves[0]
        for item in s.executions
        if item.component == "sm" and item.operator.weight
    )
