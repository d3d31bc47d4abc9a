"""Does eager code pay for each operation that it composes of several?

Measured (NeuSight's artifact, GPT-3 2.7B in fp32, two sequences of 2,048 on an H100): division by the root of the
head's size 0.865 ms, mask 0.859, softmax 0.836; the eight kernels of the tanh form of GELU on (4096, 10240) 1.046 ms
together, one such kernel of one tensor 0.118.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tierform.chip.description import load_component
from tierform.chip.gpu import Gpu
from tierform.simulation.runtime import IDEAL, load_runtime
from tierform.simulation.software import Software
from tierform.workload import FineTuning, Full, LoRA, expand, load_model
from tierform.workload.composed import COMPOSED
from tierform.workload.operator import Kind, Operand, Operator, Phase, Role

EAGER = Software(load_runtime("pytorch-eager"))
PLAIN = Software(IDEAL)


def light(kind: Kind, shape: tuple[int, ...], composed: float) -> Operator:
    x = Operand("x", shape, "fp32", Role.ACTIVATION)
    return Operator("light", kind, "ffn", Phase.FORWARD, (x,), (replace(x, name="y"),), composed=composed)


@pytest.mark.parametrize(
    ("kind", "shape", "function", "measured_ms"),
    [
        (Kind.SOFTMAX, (2, 32, 2048, 2048), "softmax", 0.865 + 0.859 + 0.836),
        (Kind.ACTIVATION, (4096, 10240), "gelu_new", 1.046),
    ],
)
def test_are_composed_operators_as_slow_as_their_kernels(
    kind: Kind, shape: tuple[int, ...], function: str, measured_ms: float
) -> None:
    h100 = load_component("gpu", 1, "h100-gpu")
    assert isinstance(h100, Gpu)
    operator = light(kind, shape, COMPOSED[function][0])
    alone = h100.cost(operator)
    eager = EAGER.alone(operator, alone)
    assert 1e3 * eager.occupancy_s == pytest.approx(measured_ms, rel=0.15)
    # Bytes and their energy are those of all kernels, the arithmetic is not.
    times = COMPOSED[function][0]
    assert eager.memory_read_B == times * alone.memory_read_B
    assert eager.energy_J["memory"] == pytest.approx(times * alone.energy_J["memory"])
    assert eager.energy_J["arithmetic"] == alone.energy_J["arithmetic"]
    assert PLAIN.alone(operator, alone) is alone


def test_which_operators_are_composed() -> None:
    """GPT-2's activation is the tanh form in eight kernels, BERT's GELU is one; both mask their scores."""
    found = {}
    for name, method in (("gpt2", Full()), ("bert-base", LoRA(8))):
        workload = expand(load_model(name), FineTuning(method, batch=1, sequence=64))
        for stage in workload.stages[:2]:
            for block in stage.blocks:
                for operator in block.operators:
                    if operator.composed != 1.0:
                        key = (name, operator.kind, operator.phase)
                        assert found.setdefault(key, operator.composed) == operator.composed
    forward, backward = Phase.FORWARD, Phase.BACKWARD
    assert found == {
        ("gpt2", Kind.SOFTMAX, forward): 3.0,
        ("gpt2", Kind.ACTIVATION, forward): 9.0,
        ("gpt2", Kind.SOFTMAX, backward): 7 / 3,
        ("gpt2", Kind.ACTIVATION, backward): 28 / 3,
        ("bert-base", Kind.SOFTMAX, forward): 3.0,
        ("bert-base", Kind.SOFTMAX, backward): 7 / 3,
    }
