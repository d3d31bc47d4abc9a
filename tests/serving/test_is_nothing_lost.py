"""Is every request accounted for, every token given out, every block free at the end, under whatever load?"""

from __future__ import annotations

import numpy as np
import pytest
from compiled import REFERENCE, run_compiled
from hypothesis import given
from hypothesis import strategies as st

from tierform.errors import TierformError
from tierform.serving import state
from tierform.serving.engine import Engine
from tierform.serving.oracle import FormulaOracle, StepShape
from tierform.serving.requests import Requests
from tierform.serving.run import Pool, machine

COSTLY = FormulaOracle(
    step_ns=1_000_000, token_ns=1000, components=("a", "b"), joules=((0.1, 0.01, 0.0, 0.0), (0.0, 0.0, 1e-6, 1e-9))
)


def _requests(draw: st.DrawFn) -> Requests:
    number = draw(st.integers(1, 40))
    lengths = st.lists(st.integers(0, 80), min_size=number, max_size=number)
    gaps = draw(st.lists(st.sampled_from([0, 1, 10**6, 10**8]), min_size=number, max_size=number))
    return Requests(np.cumsum(gaps), np.array(draw(lengths)), np.array(draw(lengths)))


@given(st.data(), st.sampled_from(["vllm", "sarathi", "orca"]), st.integers(1, 4), st.integers(0, 3))
def test_is_everything_conserved(data: st.DataObject, scheduler: str, replicas: int, router: int) -> None:
    requests = _requests(data.draw)
    vllm = scheduler == "vllm"
    engine = Engine(
        num_gpu_blocks=data.draw(st.integers(4, 60)),
        block_size=4,
        max_num_seqs=5,
        max_num_batched_tokens=32,
        max_model_len=128,
        enable_prefix_caching=vllm and data.draw(st.booleans()),
        async_scheduling=vllm and data.draw(st.booleans()),
        scheduler=scheduler,  # type: ignore[arg-type]
        scheduling_policy=data.draw(st.sampled_from(["fcfs", "priority", "sjf"])),
    )
    made = machine(requests, [Pool(replicas, engine, COSTLY.packed())], router=router)
    made.go()
    rows, states = made.requests.rows, made.requests.rows[:, state.STATE]
    assert ((states == state.FINISHED) | (states >= state.REFUSED_EMPTY)).all()
    done = states == state.FINISHED
    assert (rows[done, state.TOKENS] == rows[done, state.PROMPT] + rows[done, state.OUTPUT]).all()
    assert made.replicas.rows[:, state.TOKENS_DONE].sum() == requests.output[done].sum()
    usable = engine.num_gpu_blocks - (1 if vllm else 0)  # type: ignore[operator]
    assert (made.replicas.rows[:, state.FREE] == usable).all()
    assert (made.lists.load == 0).all()
    assert made.requests.energy.sum() == pytest.approx(made.replicas.energy.sum(), rel=1e-9, abs=1e-9)
    assert (made.requests.energy >= -1e-9).all()


def test_do_equal_seeds_give_equal_bytes() -> None:
    from tierform.serving.arrivals import Lengths, generate

    requests = generate(50, 500, Lengths(100, 1.0), Lengths(20, 1.0), seed=3)
    engine = Engine(num_gpu_blocks=500, max_model_len=4096)
    runs = []
    for _ in range(2):
        made = machine(requests, [Pool(7, engine, REFERENCE.packed())], router=2, seed=5)
        made.go()
        runs.append(made.requests.rows.tobytes() + made.requests.last.tobytes())
    assert runs[0] == runs[1]


def test_does_overload_end() -> None:
    """A thousand requests at once, blocks for one of them at a time, and a clock of a month between two bursts."""
    month = 30 * 86400 * 10**9
    arrival = np.concatenate([np.zeros(500), np.full(500, month)]).astype(np.int64)
    requests = Requests(arrival, np.full(1000, 60), np.full(1000, 5))
    made = run_compiled(requests, Engine(num_gpu_blocks=5, max_model_len=128))
    assert (made.requests.rows[:, state.STATE] == state.FINISHED).all()
    assert made.requests.last.max() > month


def test_is_what_can_never_be_served_refused_with_its_reason() -> None:
    requests = Requests(np.zeros(4, int), np.array([0, 200, 120, 10]), np.array([5, 5, 5, 0]))
    made = run_compiled(requests, Engine(num_gpu_blocks=5, max_model_len=128))
    wanted = [state.REFUSED_EMPTY, state.REFUSED_LENGTH, state.REFUSED_BLOCKS, state.FINISHED]
    assert made.requests.rows[:, state.STATE].tolist() == wanted
    assert made.requests.first[3] == state.NONE  # no token was asked for


def test_does_the_least_loaded_replica_get_the_next_request() -> None:
    """Three at once on two replicas: 0, 1, and 0 again as the lower number of equals."""
    requests = Requests(np.zeros(3, int), np.full(3, 10), np.full(3, 5))
    made = machine(requests, [Pool(2, Engine(num_gpu_blocks=50), REFERENCE.packed())], router=1)
    made.go()
    assert made.requests.rows[:, state.REPLICA].tolist() == [0, 1, 0]


def test_is_a_formula_what_it_says() -> None:
    """A prompt of 10 tokens after 6 and two decodes at contexts 5 and 7: T 12, D 12, P 10 * 6 + 55 = 115.

    4,000,000 + 240,000 + 240 + 3 * 115 // 5 = 4,240,309.
    """
    cost = REFERENCE.cost(StepShape(prefills=((10, 6),), contexts=(5, 7)))
    assert round(cost.seconds * 1e9) == 4_240_309


def test_are_wrong_settings_told_at_once() -> None:
    with pytest.raises(TierformError) as told:
        Engine(scheduler="orka", max_num_seqs=0, watermark=2.0)  # type: ignore[arg-type]
    text = str(told.value)
    assert "orca" in text and "max_num_seqs" in text and "watermark" in text
