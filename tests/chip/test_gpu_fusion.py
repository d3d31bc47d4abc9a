"""Are the right light neighbours fused, and does fusing keep operations and energy of arithmetic?"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import tierform.simulation
from tierform.chip.description import load_component
from tierform.chip.gpu import Gpu
from tierform.chip.sample_operators import elementwise
from tierform.workload import FineTuning, Full, Inference, LoRA, expand, load_model
from tierform.workload.operator import Kind, Operator


def operators(model: str, task: object, stage: int, block: str) -> tuple[Operator, ...]:
    workload = expand(load_model(model), task)  # type: ignore[arg-type]
    return next(b.operators for b in workload.stages[stage].blocks if b.name.startswith(block))


def gpu(**changes: object) -> Gpu:
    part = load_component("gpu", 1, "a100-gpu")
    assert isinstance(part, Gpu)
    return part.at(**changes) if changes else part


def chain(length: int, elements: int = 2**22) -> tuple[Operator, ...]:
    """Light operators on bf16 values, each reading the one before."""
    found: list[Operator] = []
    for place in range(length):
        made = elementwise(Kind.ELEMENTWISE, elements, precision="bf16", operations=1.0)
        given = found[-1].outputs if found else made.inputs
        after = (found[-1].name,) if found else ()
        result = (replace(made.outputs[0], name=f"y{place}"),)
        found.append(replace(made, name=f"o{place}", inputs=given, outputs=result, after=after))
    return tuple(found)


def test_a_chain_moves_what_crosses_its_edge_in_one_launch() -> None:
    """Three on 2^22 bf16 values: 8 MiB in and 8 MiB out; 2.1 us of launch, then 2039 GB/s at the file's efficiency."""
    board = gpu()
    (kernel,) = board.fuse(chain(3))
    assert kernel.members == (0, 1, 2)
    assert [(c.memory_read_B, c.memory_write_B) for c in kernel.costs] == [(2**23, 0), (0, 0), (0, 2**23)]
    bandwidth = board.parameters.memory_bandwidth.value * board.parameters.memory_efficiency.value
    expected = board.parameters.launch.value + 2**24 / bandwidth
    assert math.fsum(cost.occupancy_s for cost in kernel.costs) == pytest.approx(expected)


def test_intermediate_values_that_a_backward_reads_are_written() -> None:
    (kernel,) = gpu().fuse(chain(3), keeps_activations=True)
    assert [c.memory_write_B for c in kernel.costs] == [2**23, 2**23, 2**23]


def test_a_chain_does_not_wait_for_what_comes_after_its_start() -> None:
    """The third reads a softmax that stands between: it cannot run in the kernel that begins before it."""
    first, second, third = chain(3)
    between = replace(elementwise(Kind.SOFTMAX, 2**22), name="between", after=(first.name,))
    third = replace(third, after=(second.name, "between"))
    assert [kernel.members for kernel in gpu().fuse((first, second, between, third))] == [(0, 1)]


@pytest.mark.parametrize(
    ("model", "task", "stage"),
    [
        ("llama-3.1-8b", Inference(batch=2, sequence=512, decode=4), 0),
        ("bert-large", FineTuning(LoRA(8), batch=2, sequence=128), 0),
        ("bert-large", FineTuning(Full(), batch=2, sequence=128), 1),
    ],
)
def test_fusing_conserves_operations_and_costs_no_more(model: str, task: object, stage: int) -> None:
    board = gpu()
    given = operators(model, task, stage, "layer")
    kernels = [k for k in board.fuse(given, keeps_activations=stage == 0) if k.name == "fused elementwise"]
    assert kernels
    taken = [place for kernel in kernels for place in kernel.members]
    assert len(taken) == len(set(taken))
    for kernel in kernels:
        alone = [board.cost(given[place]) for place in kernel.members]
        assert sum(cost.occupancy_s for cost in kernel.costs) <= sum(cost.occupancy_s for cost in alone) * (1 + 1e-9)
        for cost, one in zip(kernel.costs, alone, strict=True):
            assert cost.operations == one.operations
            assert cost.energy_J["arithmetic"] == one.energy_J["arithmetic"]
            assert cost.memory_read_B <= one.memory_read_B and cost.memory_write_B <= one.memory_write_B


def test_the_same_operators_are_looked_at_once_and_a_changed_gpu_forgets() -> None:
    board, given = gpu(), chain(3)
    first = board.fuse(given)
    assert board.fuse(given)[0] is first[0]
    slower = board.at(launch=replace(board.parameters.launch, value=1e-3))
    assert slower.fuse(given)[0].costs[0].occupancy_s > first[0].costs[0].occupancy_s


def test_can_fusion_be_turned_off() -> None:
    assert gpu(fusion=False).fuse(chain(3)) == []


def test_is_lora_not_free_on_a_gpu() -> None:
    """Frozen weights still cost their input-gradient products: LoRA saves, but far less than half of a step."""
    full = tierform.simulation.simulate("llama-3.2-1b", FineTuning(Full(), batch=4, sequence=1024), "h200")
    lora = tierform.simulation.simulate("llama-3.2-1b", FineTuning(LoRA(16), batch=4, sequence=1024), "h200")
    assert 0.4 < lora.latency_s / full.latency_s < 0.95
