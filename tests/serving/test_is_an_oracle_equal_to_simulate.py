"""Is a step what `simulate` says of the same pass, more never less, and the energy of its parts that of the whole?"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tierform.chip.description import load_chip
from tierform.errors import TierformError
from tierform.serving.grid import grid_for
from tierform.serving.oracle import StepShape
from tierform.serving.refining import RefinedPlane, refined_line
from tierform.serving.simulated import SimulatedOracle
from tierform.simulation.runtime import load_runtime
from tierform.workload import load_model
from tierform.workload.task import SequenceGroup

Pass = tuple[int, int, list[tuple[int, int]]]
PASSES = 200
# Chips, their software, and how many of 200 random mixed passes are within 0.5 %, and how far off the rest may be.
BARS = (
    ("h100", "vllm", "llama-3.1-8b", 200, 0.005),
    ("h100", "vllm", "qwen3-30b-a3b", 200, 0.005),  # a mixture of 128 experts
    ("attacc-like", "ideal", "llama-3.1-8b", 200, 0.005),
    ("tpu-3d", "ideal", "llama-3.1-8b", 200, 0.005),
)


@cache
def _oracle(chip: str, runtime: str, model: str = "llama-3.1-8b") -> SimulatedOracle:
    return SimulatedOracle(
        model=load_model(model),
        chip=load_chip(chip),
        runtime=load_runtime(runtime),
        grid=grid_for(512, 32, 1024),
    )


def _random(generator: np.random.Generator) -> Pass:
    """(decodes, their context, chunks with their past), some of each or none, within 512 tokens."""
    decodes = int(2 ** generator.uniform(0, 5))
    context = int(2 ** generator.uniform(4, 10))
    chunks = [
        (int(generator.integers(2, 230)), int(generator.choice([0, generator.integers(1, 750)])))
        for _ in range(int(generator.integers(0, 3)))
    ]
    return (0 if chunks and not generator.integers(0, 6) else decodes), context, chunks


@pytest.mark.slow
@pytest.mark.parametrize(("chip", "runtime", "model", "close", "farthest"), BARS)
def test_are_mixed_passes_those_of_simulate(chip: str, runtime: str, model: str, close: int, farthest: float) -> None:
    """Decodes have one context (of unequal ones `simulate` makes a kernel each); what does not fit is drawn again."""
    oracle = _oracle(chip, runtime, model)
    generator = np.random.default_rng(1)
    errors: list[float] = []
    while len(errors) < PASSES:
        decodes, context, chunks = _random(generator)
        groups = [SequenceGroup(decodes, 1, context - 1)] if decodes else []
        groups += [SequenceGroup(1, new, past) for new, past in chunks]
        try:
            result = oracle._result(groups)
        except TierformError:
            continue
        cost = oracle.cost(StepShape(tuple(chunks), (context,) * decodes))
        energy = sum(cost.joules) / sum(result.energy_J_by_component.values()) - 1
        errors.append(max(abs(cost.seconds / result.latency_s - 1), abs(energy)))
        assert errors[-1] < farthest, f"{decodes} at {context}, {chunks}"
    assert sum(error <= 0.005 for error in errors) >= close


@pytest.mark.slow
def test_does_more_never_take_less() -> None:
    """A decode more, a longer context, a chunk more: no faster, up to the teeth of split attention (1 %)."""
    oracle = _oracle("h100", "vllm")
    generator = np.random.default_rng(2)
    for _ in range(300):
        decodes, context, chunks = _random(generator)
        cost = oracle.cost(StepShape(tuple(chunks), (context,) * decodes)).seconds
        for more in (
            StepShape(tuple(chunks), (context,) * (decodes + 1)),
            StepShape(tuple(chunks), (context + 64,) * max(decodes, 1)),
            StepShape((*chunks, (32, 0)), (context,) * decodes),
        ):
            assert oracle.cost(more).seconds >= cost * 0.99, f"{decodes} at {context}, {chunks}"


def test_does_a_line_find_its_steps() -> None:
    """1 below 40 and 2 from there: points stand on both sides of the step."""
    places, values = refined_line([1, 100], lambda one: np.array([1.0 + (one >= 40)]))
    assert {39, 40} <= {*places}
    assert np.interp(np.arange(1, 101), places, values[:, 0]) == pytest.approx([1.0] * 39 + [2.0] * 61)


def test_does_a_plane_find_its_steps_in_both_ways() -> None:
    """10 more where the row reaches 7, 10 more where the column passes 20; what cannot be is left out."""

    def made(places: list[tuple[int, int]]) -> dict[tuple[int, int], np.ndarray]:
        return {
            (row, column): np.array([100.0 + 10 * (row >= 7) + 10 * (column > 20)])
            for row, column in places
            if row * column < 640
        }

    plane = RefinedPlane(made, lambda _: 0.0).build([1, 16], [1, 32, 64])
    assert {6, 7} <= {*plane.rows}
    assert {20, 21} <= {*plane.rows[1]}
    assert 64 not in plane.rows[16]
