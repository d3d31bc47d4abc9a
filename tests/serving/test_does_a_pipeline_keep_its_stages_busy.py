"""Stages of a pipeline inside a replica: steps by hand, what is handed on, memory, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tierform.chip.description import load_chip
from tierform.errors import TierformError
from tierform.serving import state
from tierform.serving.capacity import capacity
from tierform.serving.engine import Engine, Speculation
from tierform.serving.grid import grid_for
from tierform.serving.oracle import FormulaOracle, StepShape
from tierform.serving.requests import Requests
from tierform.serving.run import Pool, machine
from tierform.serving.serve import serve
from tierform.serving.simulated import SimulatedOracle
from tierform.simulation.runtime import load_runtime
from tierform.workload import load_model
from tierform.workload.parallel import Parallelism

STEP = FormulaOracle(step_ns=1000, token_ns=0, components=("board",), joules=((1.0, 0.0, 0.0, 0.0),))
TWO = Requests(np.zeros(2, np.int64), np.array([8, 8]), np.array([2, 2]))


@pytest.mark.parametrize(
    ("stages", "first", "last", "busy"), [(1, [1000, 3000], [2000, 4000], 4000), (2, [1000, 1500], [2000, 2500], 2000)]
)
def test_do_two_batches_go_through_two_stages_at_once(
    stages: int, first: list[int], last: list[int], busy: int
) -> None:
    """Two prompts of 8 tokens, 8 tokens a step, steps of 1000 ns, two answers each.

    One stage: the first prompt; its second token with 7 of the other prompt; the rest of that; its second token.
    Two stages of 500 ns: both prompts at once, one stage apart, and each request's second token behind them.
    """
    engine = Engine(num_gpu_blocks=100, max_num_batched_tokens=8, async_scheduling=False, enable_prefix_caching=False)
    made = machine(TWO, [Pool(1, engine, STEP.packed(), stages=stages)], record=True)
    made.go()
    assert made.requests.first.tolist() == first
    assert made.requests.last.tolist() == last
    assert made.replicas.rows[0, state.BUSY_NS] == busy
    assert made.replicas.energy[0, 0] == pytest.approx(4.0)
    assert made.requests.energy.sum() == pytest.approx(4.0)


def test_is_what_is_handed_on_part_of_a_step() -> None:
    """A decode's token of 2,048 values of 2 bytes for each of two sequences over the link, once between two stages."""
    model, chip, software = load_model("llama-3.2-1b"), load_chip("h100"), load_runtime("vllm")
    alone, piped = (
        SimulatedOracle(model, chip, software, grid_for(64, 2, 64), Parallelism(pipeline=stages)) for stages in (1, 2)
    )
    shape = StepShape(contexts=(32, 32))
    cluster = chip.cluster
    assert cluster is not None
    sent = 2 * 2048 * 2
    more = piped.cost(shape).seconds - alone.cost(shape).seconds
    assert cluster.node is None or cluster.node.chips > 1  # so both stages are in one node
    assert more == pytest.approx(sent / cluster.bandwidth.value + cluster.latency.value, abs=2e-9)


def test_has_each_stage_its_part_of_the_weights_and_the_cache() -> None:
    """Four stages of one board hold about as many blocks as four boards that share each layer (heads at the ends)."""
    model, chip, software = load_model("llama-3.1-70b"), load_chip("h100"), load_runtime("vllm")
    shared = capacity(model, chip, Engine(), Parallelism(tensor=4), software).blocks
    piped = capacity(model, chip, Engine(), Parallelism(pipeline=4), software).blocks
    assert 0.9 * shared < piped < shared


def test_does_a_service_with_a_pipeline_serve_all() -> None:
    requests = Requests(np.arange(30) * 10**7, np.full(30, 200), np.full(30, 20))
    engine = Engine(max_num_seqs=8, max_num_batched_tokens=256)
    made = serve("llama-3.2-1b", "h100", requests, engine=engine, parallelism=Parallelism(pipeline=2))
    assert made.to_dict()["counts"] == {"finished": 30}
    assert made.chips == 2 and made.engine["async_scheduling"] is False


@pytest.mark.parametrize(
    ("chip", "split", "engine"),
    [
        ("attacc-like", Parallelism(pipeline=2), Engine()),
        ("h100", Parallelism(data=2), Engine()),
        ("h100", Parallelism(pipeline=2), Engine(speculative_config=Speculation(2, 0.5, model="llama-3.2-1b"))),
    ],
)
def test_is_what_is_not_there_refused(chip: str, split: Parallelism, engine: Engine) -> None:
    requests = Requests(np.zeros(1, np.int64), np.array([10]), np.array([2]))
    with pytest.raises(TierformError, match=r"pipeline|data"):
        serve("llama-3.2-1b", chip, requests, engine=engine, parallelism=split)


def test_do_experts_shared_whole_serve() -> None:
    """A mixture on four boards: each holds a quarter of every expert, or a quarter of the experts."""
    requests = Requests(np.zeros(4, np.int64), np.full(4, 100), np.full(4, 5))
    engine = Engine(max_num_seqs=4, max_num_batched_tokens=128, num_gpu_blocks=500)
    whole, cut = (
        serve("mixtral-8x7b", "h100", requests, engine=engine, parallelism=Parallelism(tensor=4, expert=expert))
        for expert in (4, 1)
    )
    assert whole.array("e2e_s").max() != cut.array("e2e_s").max()
    assert whole.to_dict()["counts"] == cut.to_dict()["counts"] == {"finished": 4}
