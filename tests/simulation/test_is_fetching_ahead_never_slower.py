"""Does fetching far ahead never lose against fetching one step ahead, and do factors stand in their product's order?"""

from __future__ import annotations

import pytest

from tierform import FineTuning, LoRA, load_model, simulate
from tierform.simulation.costing import ONE_STEP, Costing
from tierform.workload import expand
from tierform.workload.operator import Kind

TASK = FineTuning(LoRA(32), batch=8, sequence=512)


@pytest.mark.parametrize("chip", ["atleus", "hetrax"])
def test_is_a_pipelined_chip_as_fast_as_with_fetches_one_step_ahead(chip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight micro-batches share the memory: what comes far too early holds up what is needed now."""
    ahead = simulate("bert-large", TASK, chip, thermal="none").latency_s
    monkeypatch.setattr(Costing, "_ahead", lambda self, fetches, executions: [ONE_STEP] * len(fetches))
    assert ahead <= simulate("bert-large", TASK, chip, thermal="none").latency_s


def test_do_the_factors_of_attention_have_the_sizes_of_their_product() -> None:
    """Of (m, k) by (k, n): batch m k numbers come first, batch k n second, in every product of two activations."""
    workload = expand(load_model("bert-large"), TASK)
    seen = 0
    for stage in workload.stages:
        for block in stage.blocks:
            for operator in block.operators:
                if operator.kind is Kind.MATMUL and operator.attention is not None:
                    first, second = operator.inputs[:2]
                    assert first.elements == operator.batch * operator.m * operator.k, operator.name
                    assert second.elements == operator.batch * operator.k * operator.n, operator.name
                    seen += 1
    assert seen >= 6  # scores and weighted values, and two gradients of each
