"""Are the steps that a replica computes ahead the same, to the last bit, as those that are taken one after the other?

A run whose steps are recorded takes each of them by itself; one that records nothing looks ahead.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.serving import state
from tierform.serving.engine import Engine
from tierform.serving.oracle import FormulaOracle
from tierform.serving.requests import Requests, TokenIds
from tierform.serving.run import Machine, Pool, machine
from tierform.serving.state import LEAST_LOADED, PREFIX_AWARE, TWO_CHOICES

MS = 1_000_000
ORACLE = FormulaOracle(
    step_ns=4 * MS,
    token_ns=20_000,
    context_ns=21,
    pair_ns=3,
    pair_divisor=5,
    components=("a", "b"),
    joules=((0.1, 0.3, 1e-3, 1e-5), (0.7, 0.0, 0.0, 3e-6)),
)


def _requests(seed: int, number: int, mean_ms: float) -> Requests:
    """Random requests that fit 11 blocks of 16 tokens; some prompts begin alike, and some arrive together."""
    draw = np.random.default_rng(seed)
    arrival = np.sort(np.rint(draw.exponential(mean_ms, number).cumsum()).astype(np.int64) * MS // 4)
    prompt, output = draw.integers(1, 80, number), draw.integers(1, 90, number)
    at = np.concatenate(([0], prompt.cumsum()))
    ids = draw.integers(0, 1 << 40, at[-1])
    for one in range(1, number):
        if draw.random() < 0.4:
            other = int(draw.integers(0, one))
            alike = int(min(prompt[one], prompt[other]))
            ids[at[one] : at[one] + alike] = ids[at[other] : at[other] + alike]
    return Requests(arrival, prompt, output, content=TokenIds(at, ids))


def _run(requests: Requests, pools: list[Pool], router: int, record: bool) -> Machine:
    made = machine(requests, pools, router=router, record=record)
    made.go()
    return made


@settings(max_examples=80)
@given(
    st.integers(0, 10**6),
    st.booleans(),
    st.booleans(),
    st.sampled_from([12, 40, 300]),
    st.sampled_from([2, 4, 32]),
    st.sampled_from([1.0, 20.0, 200.0]),
    st.sampled_from([LEAST_LOADED, TWO_CHOICES, PREFIX_AWARE]),
    st.sampled_from(["vllm", "sarathi", "orca"]),
)
def test_is_everything_equal(
    seed: int, caching: bool, ahead: bool, blocks: int, batch: int, mean_ms: float, router: int, scheduler: str
) -> None:
    engine = Engine(
        num_gpu_blocks=blocks,
        block_size=16,
        max_num_seqs=batch,
        max_num_batched_tokens=64,
        max_model_len=256,
        enable_prefix_caching=caching and scheduler == "vllm",
        async_scheduling=ahead and scheduler == "vllm",
        scheduler=scheduler,  # type: ignore[arg-type]
        first_step_s=0.05 if seed % 3 == 0 else 0.0,
    )
    requests = _requests(seed, 25, mean_ms)
    pools = [Pool(1 + seed % 4, engine, ORACLE.packed())]
    one, other = (_run(requests, pools, router, record) for record in (True, False))
    for name in ("rows", "scheduled", "first", "last", "energy"):
        assert np.array_equal(getattr(one.requests, name), getattr(other.requests, name)), name
    for name in ("rows", "share", "energy"):
        assert np.array_equal(getattr(one.replicas, name), getattr(other.replicas, name)), name
    ends = [made.run.counters[[state.C_END, state.C_STEPS, state.C_FINISHED]].tolist() for made in (one, other)]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("ahead", [False, True])
def test_do_replicas_that_only_go_on_need_few_visits(ahead: bool) -> None:
    """One request of 1,000 tokens in blocks of 1,024: 64 steps a visit, so 1,000 steps are some 16 to 20 visits."""
    engine = Engine(num_gpu_blocks=9, block_size=1024, max_num_seqs=2, max_model_len=2048, async_scheduling=ahead)
    requests = Requests(np.zeros(1, int), np.full(1, 10), np.full(1, 1000))
    made = machine(requests, [Pool(1, engine, ORACLE.packed())])
    made.run.counters[state.C_PAUSE_AFTER] = 0  # come back before the next moment at which something happens
    visits = 0

    def seen(_: int) -> None:
        nonlocal visits
        visits += 1

    made.go(pause=seen)
    assert made.run.counters[state.C_STEPS] == 1000
    assert visits < 30


def test_is_a_request_that_comes_as_a_step_ends_in_the_next_one() -> None:
    """Steps of 4.02 ms and more, by hand: 4 + 0.02 a token + 21 ns a context.

    Request 0 (one token of prompt, ten of answer) starts at 0: its first step ends at 4 + 0.02 + 0.000021 ms, the next
    with a context of two 4.020042 ms later.  Request 1 comes at that very moment, and is in the step that begins then:
    it has its first token after 4 + 2 * 0.02 ms and 21 ns for each of three contexts and one.
    """
    first, second = 4 * MS + 20_000 + 21, 4 * MS + 20_000 + 42
    arrival = first + second
    requests = Requests(np.array([0, arrival]), np.full(2, 1), np.array([10, 1]))
    engine = Engine(num_gpu_blocks=9, max_num_seqs=2, max_model_len=64, async_scheduling=False)
    made = _run(requests, [Pool(1, engine, ORACLE.packed())], LEAST_LOADED, False)
    assert int(made.requests.first[1]) == arrival + 4 * MS + 40_000 + 21 * 4
