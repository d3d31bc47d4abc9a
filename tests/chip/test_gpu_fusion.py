"""Are the right neighbours fused, and does fusing keep operations and energy of arithmetic?"""

from __future__ import annotations

import pytest

import tierform.simulation
from tierform.chip.description import load_component
from tierform.chip.gpu import Gpu
from tierform.workload import FineTuning, Full, Inference, LoRA, expand, load_model
from tierform.workload.operator import Operator


def operators(model: str, task: object, stage: int, block: str) -> tuple[Operator, ...]:
    workload = expand(load_model(model), task)  # type: ignore[arg-type]
    return next(b.operators for b in workload.stages[stage].blocks if b.name.startswith(block))


def gpu(**changes: object) -> Gpu:
    part = load_component("gpu", 1, "a100-gpu")
    assert isinstance(part, Gpu)
    return part.at(**changes) if changes else part


@pytest.mark.parametrize(
    ("model", "task", "stage", "name", "least"),
    [
        ("llama-3.1-8b", Inference(batch=2, sequence=512, decode=4), 0, "flash attention", 3),
        ("llama-3.1-8b", Inference(batch=2, sequence=512, decode=4), 1, "flash attention", 3),
        ("bert-large", FineTuning(LoRA(8), batch=2, sequence=128), 0, "flash attention", 4),
        ("bert-large", FineTuning(Full(), batch=2, sequence=128), 1, "flash attention backward", 6),
        ("llama-3.1-8b", FineTuning(LoRA(8), batch=1, sequence=128), 1, "flash attention backward", 5),
    ],
)
def test_is_attention_found_and_everything_conserved(
    model: str, task: object, stage: int, name: str, least: int
) -> None:
    board = gpu()
    given = operators(model, task, stage, "layer")
    kernels = board.fuse(given, keeps_activations=stage == 0)
    attention = [kernel for kernel in kernels if kernel.name == name]
    assert len(attention) == 1
    assert len(attention[0].members) >= least
    taken = [place for kernel in kernels for place in kernel.members]
    assert len(taken) == len(set(taken))
    for kernel in kernels:
        alone = [board.cost(given[place]) for place in kernel.members]
        assert sum(cost.occupancy_s for cost in kernel.costs) <= sum(cost.occupancy_s for cost in alone) * (1 + 1e-9)
        for cost, one in zip(kernel.costs, alone, strict=True):
            assert cost.operations == one.operations
            assert cost.energy_J["arithmetic"] == one.energy_J["arithmetic"]
            assert cost.memory_read_B <= one.memory_read_B and cost.memory_write_B <= one.memory_write_B
    scores = next(given[p] for p in attention[0].members if given[p].name.startswith("attention.softmax"))
    moved = sum(cost.memory_read_B + cost.memory_write_B for cost in attention[0].costs)
    if stage == 0:
        assert moved < scores.output_B * 2 + 64 * 2**20


def test_does_the_result_name_fused_kernels_and_can_fusion_be_turned_off() -> None:
    result = tierform.simulation.simulate("bert-large", Inference(batch=8, sequence=512), "a100")
    kernels = {operator.kernel for operator in result.operators}
    assert {"", "flash attention", "fused elementwise"} <= kernels
    assert gpu(fusion=False).fuse(operators("bert-large", Inference(batch=8, sequence=512), 0, "layer")) == []


def test_is_lora_not_free_on_a_gpu() -> None:
    """Frozen weights still cost their input-gradient products: LoRA saves, but far less than half of a step."""
    full = tierform.simulation.simulate("llama-3.2-1b", FineTuning(Full(), batch=4, sequence=1024), "h200")
    lora = tierform.simulation.simulate("llama-3.2-1b", FineTuning(LoRA(16), batch=4, sequence=1024), "h200")
    assert 0.4 < lora.latency_s / full.latency_s < 0.95
