"""Do models keep their fused attention in every family, method, split and recomputation, at a time that adds up?"""

from __future__ import annotations

import math

import pytest

from tierform.chip.component import FusedKernel
from tierform.chip.description import load_component
from tierform.chip.gpu import Gpu
from tierform.workload import FineTuning, Full, Inference, LoRA, Parallelism, expand, load_model
from tierform.workload.graph import Block

PART = load_component("gpu", 1, "h100-gpu")
assert isinstance(PART, Gpu)
H100: Gpu = PART


def blocks(name: str, task: object, tensor: int = 1) -> list[Block]:
    workload = expand(load_model(name), task, parallelism=Parallelism(tensor=tensor), attention="fused")  # type: ignore[arg-type]
    return [block for stage in workload.stages for block in stage.blocks if any(o.attention for o in block.operators)]


def flash(block: Block) -> list[FusedKernel]:
    kernels = H100.fuse(block.operators)
    cores = {place for place, operator in enumerate(block.operators) if operator.attention is not None}
    return [kernel for kernel in kernels if set(kernel.members) <= cores]


def seconds(kernels: list[FusedKernel]) -> float:
    return math.fsum(cost.occupancy_s for kernel in kernels for cost in kernel.costs)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("llama-3.1-8b", Inference(batch=2, sequence=512, decode=2)),
        ("mistral-7b", Inference(batch=1, sequence=8192, decode=2)),
        ("deepseek-v2-lite", Inference(batch=2, sequence=512, decode=2)),
        ("t5-base", FineTuning(Full(), batch=2, sequence=128)),
        ("bert-large", FineTuning(LoRA(8), batch=2, sequence=128)),
        ("gpt2", FineTuning(Full(), batch=2, sequence=1024, recomputation="selective")),
        ("gpt2", FineTuning(LoRA(8), batch=2, sequence=1024, recomputation="full")),
        ("qwen3-30b-a3b", FineTuning(Full(), batch=2, sequence=512, recomputation="full")),
    ],
    ids=lambda item: item if isinstance(item, str) else type(item).__name__,
)
@pytest.mark.parametrize("tensor", [1, 2])
def test_every_operator_of_a_core_is_in_a_fused_kernel_below_its_peak(name: str, task: object, tensor: int) -> None:
    for block in blocks(name, task, tensor):
        kernels = flash(block)
        members = sorted(place for kernel in kernels for place in kernel.members)
        assert members == [place for place, operator in enumerate(block.operators) if operator.attention is not None]
        assert max(cost.utilization for kernel in kernels for cost in kernel.costs) <= 1


def test_recomputation_costs_the_forward_kernel_or_nothing() -> None:
    times = {}
    for mode in ("none", "selective", "full"):
        task = FineTuning(Full(), batch=4, sequence=1024, recomputation=mode)  # type: ignore[arg-type]
        forward, backward = blocks("gpt2", task)[:2]
        times[mode] = (seconds(flash(forward)), seconds(flash(backward)))
    assert times["selective"] == pytest.approx(times["none"])
    assert times["full"][1] == pytest.approx(times["none"][1] + times["none"][0])


def test_memory_sees_no_scores() -> None:
    """Llama 3.1 8B, 2 x 512 in bf16: 32 heads of 128 for queries and results, 8 for keys and values."""
    (block,) = (b for b in blocks("llama-3.1-8b", Inference(batch=2, sequence=512)))
    (kernel,) = flash(block)
    moved = math.fsum(cost.memory_read_B + cost.memory_write_B for cost in kernel.costs)
    assert moved == 2 * 512 * 2 * (4096 + 1024 + 1024 + 4096)
