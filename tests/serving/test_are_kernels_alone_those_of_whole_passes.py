"""Are kernels that are costed alone those of whole simulated passes: products by tokens, attention of groups?"""

from __future__ import annotations

import numpy as np
import pytest

from tierform.chip.description import load_chip
from tierform.serving.board_products import ExpertProduct
from tierform.serving.board_tables import BoardKernels, BoardTables, Group
from tierform.serving.grid import grid_for
from tierform.serving.simulated import SimulatedOracle
from tierform.simulation.job import Job
from tierform.simulation.runtime import load_runtime
from tierform.workload import load_model
from tierform.workload.memory import BlockKind
from tierform.workload.task import SequenceGroup

GROUPS: tuple[Group, ...] = ((3, 1, 99), (7, 1, 2000), (5, 1, 99), (1, 64, 0), (1, 200, 300), (2, 1, 4999))


def _oracle(model: str) -> SimulatedOracle:
    return SimulatedOracle(load_model(model), load_chip("h100"), load_runtime("vllm"), grid_for(256, 8, 512))._roomy()


def _tables(oracle: SimulatedOracle, passes: list[int] | None = None) -> BoardTables:
    def simulated(group: Group):  # type: ignore[no-untyped-def]
        if passes is not None:
            passes.append(group[1])
        return oracle._result([SequenceGroup(*group)])

    def asked(groups: list[Group]) -> Job:
        return oracle._job([SequenceGroup(*group) for group in groups])

    return BoardTables(simulated((1, 1, 1)), simulated, asked, lambda _: None)


def _booked(kernels: BoardKernels, oracle: SimulatedOracle, group: Group) -> np.ndarray:
    """Attention of a pass with one group, from the ledger."""
    found = np.zeros(4)
    for kind, times, executions, clock in kernels.executions(oracle._result([SequenceGroup(*group)])):
        for item in executions:
            if kind is BlockKind.LAYER and item.operator.attention is not None:
                found += times * kernels.numbers(item.cost, clock)
    return found


@pytest.mark.parametrize("model", ["llama-3.1-8b", "mistral-7b", "mixtral-8x7b"])
def test_is_attention_alone_that_of_its_pass(model: str) -> None:
    """Mistral's layers have a window of 4,096 tokens: they see fewer keys than the longest sequence has."""
    oracle = _oracle(model)
    tables = _tables(oracle)
    found = tables.attention(GROUPS)
    for group in GROUPS:
        assert found[group] == pytest.approx(_booked(tables.kernels, oracle, group), rel=1e-9)


def test_are_products_at_any_tokens_those_of_a_pass_of_as_many() -> None:
    """Four products a layer, that of the values merged with others, and a few passes for nearly 200 points."""
    oracle, passes = _oracle("llama-3.1-8b"), list[int]()
    tables = _tables(oracle, passes)
    tokens, values = tables.tokens(oracle.grid.tokens)
    assert len(tokens) > 40
    assert len(passes) < 50
    for one in (3, 70, 131, 200, 255):
        there = np.array([np.interp(one, tokens, column) for column in values.T])
        simulated = tables.kernels.parts(oracle._result([SequenceGroup(1, one, 0)]))[0]
        assert there[0] == pytest.approx(simulated[0], rel=2e-3)
        assert there[2:].sum() == pytest.approx(simulated[2:].sum(), rel=2e-3)


@pytest.mark.parametrize(("model", "products"), [("mixtral-8x7b", 5), ("qwen3-30b-a3b", 5), ("deepseek-v2-lite", 12)])
def test_are_products_of_experts_alone_those_of_their_passes(model: str, products: int) -> None:
    """Projections of attention and the router grow evenly; gate with up, and down, go by experts and rows of each.

    DeepSeek has a dense layer, too, and experts that all tokens use.
    """
    oracle, passes = _oracle(model), list[int]()
    tables = _tables(oracle, passes)
    known = {one: tables.simulated((1, one, 0)) for one in (1, 2, 16, 17, 256)}
    found = tables.kernels.growing(known)
    assert sum(isinstance(made, ExpertProduct) for made in found) == 2
    assert len(found) == products
    passes.clear()
    tokens, values = tables.tokens(oracle.grid.tokens)
    assert len(passes) < 100
    for one in (3, 70, 131, 200, 255):
        there = np.array([np.interp(one, tokens, column) for column in values.T])
        simulated = tables.kernels.parts(oracle._result([SequenceGroup(1, one, 0)]))[0]
        assert there[0] == pytest.approx(simulated[0], rel=2e-3)
        assert there[2:].sum() == pytest.approx(simulated[2:].sum(), rel=2e-3)


def test_does_the_builder_tell_how_far_it_is() -> None:
    oracle, told = _oracle("llama-3.1-8b"), list[float]()
    made = SimulatedOracle(oracle.model, oracle.chip, oracle.runtime, grid_for(32, 2, 64), progress=told.append)
    made._board_tables()
    assert told == sorted(told) and told[-1] == 1.0
