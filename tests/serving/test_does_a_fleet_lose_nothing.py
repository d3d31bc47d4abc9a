"""Prefill apart, sessions, failures, more and fewer replicas, fewer bits: is everything still served once?"""

from __future__ import annotations

import numpy as np
import pytest
from compiled import REFERENCE
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.errors import TierformError
from tierform.serving import state
from tierform.serving.controls import Autoscaling, Conductor, Failure, Failures, Level, Shedding, opened, parse_failures
from tierform.serving.engine import Engine
from tierform.serving.oracle import FormulaOracle
from tierform.serving.requests import Requests
from tierform.serving.run import Machine, Pool, machine

MS = 10**6
COSTLY = FormulaOracle(step_ns=MS, token_ns=1000, components=("a",), joules=((0.1, 0.01, 1e-6, 1e-9),))


def _apart(made: Machine, prefills: int, move_ns: int, token_ps: int = 0) -> None:
    """The first replicas prefill, the others decode."""
    made.replicas.rows[:, state.ROLE] = state.DECODES
    made.replicas.rows[:prefills, state.ROLE] = state.PREFILLS
    for replica in range(len(made.replicas.rows)):
        opened(made, replica, True)
    made.run.counters[state.C_MOVE_NS], made.run.counters[state.C_MOVE_TOKEN_PS] = move_ns, token_ps


def _run(made: Machine, *controls: object) -> Machine:
    conductor = Conductor(controls)  # type: ignore[arg-type]
    conductor.begin(made)
    made.go(window=conductor.window)
    return made


def _conserved(made: Machine, requests: Requests, usable: int) -> None:
    rows, states = made.requests.rows, made.requests.rows[:, state.STATE]
    done = states == state.FINISHED
    assert (done | (states >= state.REFUSED_EMPTY)).all()
    assert (rows[done, state.TOKENS] == rows[done, state.PROMPT] + rows[done, state.OUTPUT]).all()
    assert made.replicas.rows[:, state.TOKENS_DONE].sum() >= requests.output[done].sum()
    assert (made.replicas.rows[:, state.FREE] == usable).all()
    assert (made.lists.load == 0).all()
    assert made.run.counters[state.C_LATER] == 0
    assert made.requests.energy.sum() == pytest.approx(made.replicas.energy.sum(), rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(st.data())
def test_is_everything_conserved(data: st.DataObject) -> None:
    number = data.draw(st.integers(1, 30))
    lengths = st.lists(st.integers(0, 60), min_size=number, max_size=number)
    gaps = data.draw(st.lists(st.sampled_from([0, 1, MS, 100 * MS]), min_size=number, max_size=number))
    users = data.draw(st.integers(1, number))
    after = np.where(data.draw(st.booleans()), np.arange(number) - users, -1).clip(-1)
    requests = Requests(
        np.cumsum(gaps),
        np.array(data.draw(lengths)),
        np.array(data.draw(lengths)),
        after=after,
        think_ns=np.full(number, data.draw(st.sampled_from([0, MS, 10**9]))),
    )
    engine = Engine(
        num_gpu_blocks=data.draw(st.integers(8, 60)),
        block_size=4,
        max_num_seqs=5,
        max_num_batched_tokens=32,
        max_model_len=128,
        enable_prefix_caching=data.draw(st.booleans()),
        async_scheduling=data.draw(st.booleans()),
        scheduling_policy=data.draw(st.sampled_from(["fcfs", "priority", "sjf"])),
    )
    replicas = data.draw(st.integers(2, 4))
    made = machine(requests, [Pool(replicas, engine, COSTLY.packed())], router=data.draw(st.integers(0, 3)))
    if data.draw(st.booleans()):
        _apart(made, data.draw(st.integers(1, replicas - 1)), data.draw(st.sampled_from([0, 1000, 50 * MS])), 1000)
    failures = data.draw(
        st.lists(
            st.builds(
                Failure,
                st.integers(0, replicas - 1),
                st.sampled_from([0.0, 0.001, 0.0105, 0.2]),
                st.sampled_from([0.0, 0.005, 1.0, float("inf")]),
            ),
            max_size=4,
        )
    )
    _run(made, Failures(failures))
    _conserved(made, requests, engine.num_gpu_blocks - 1)  # type: ignore[operator]


def test_does_a_session_wait_for_its_answer() -> None:
    """Two tokens of a prompt of 10: 4 ms + 10 * 20 us + 55 * 3 // 5 ns, then 4 ms + 20 us + 220 ns; 1 s to think."""
    requests = Requests(
        np.array([0, 1]), np.full(2, 10), np.full(2, 2), after=np.array([-1, 0]), think_ns=np.full(2, 10**9)
    )
    made = machine(requests, [Pool(1, Engine(num_gpu_blocks=50, async_scheduling=False), REFERENCE.packed())])
    made.go()
    whole = 4 * MS + 200_000 + 33 + 4 * MS + 20_000 + 220
    assert made.requests.last.tolist() == [whole, whole + 10**9 + whole]
    assert made.requests.arrival.tolist() == [0, whole + 10**9]


def test_do_keys_and_values_travel_one_after_the_other() -> None:
    """Two prompts in one step of a prefill replica; 3 ms a move: the second request goes on 3 ms after the first.

    The step: 4 ms + 20 * 20 us + 110 * 3 // 5 ns.  A decode at context 11: 4 ms + 20 us + 220 ns.
    """
    requests = Requests(np.zeros(2, int), np.full(2, 10), np.full(2, 2))
    made = machine(requests, [Pool(3, Engine(num_gpu_blocks=50, async_scheduling=False), REFERENCE.packed())], router=1)
    _apart(made, 1, 3 * MS)
    made.go()
    first = 4 * MS + 400_000 + 66
    decode = 4 * MS + 20_000 + 220
    assert made.requests.first.tolist() == [first, first]
    assert made.requests.last.tolist() == [first + 3 * MS + decode, first + 6 * MS + decode]
    assert made.requests.rows[:, state.REPLICA].tolist() == [1, 2]
    assert made.run.counters[state.C_MOVES] == 20  # ten tokens each


def test_does_a_move_take_its_bytes() -> None:
    requests = Requests(np.zeros(1, int), np.full(1, 10), np.full(1, 2))
    made = machine(requests, [Pool(2, Engine(num_gpu_blocks=50, async_scheduling=False), REFERENCE.packed())], router=1)
    _apart(made, 1, 0, token_ps=100_000_000)  # 0.1 ms a token
    made.go()
    assert made.requests.last[0] - made.requests.first[0] == MS + 4 * MS + 20_000 + 220


def test_does_a_failed_replica_lose_no_request() -> None:
    """Alone, it fails in its second step and is back a second later: the first token stays, all else is done again."""
    requests = Requests(np.zeros(1, int), np.full(1, 10), np.full(1, 3))
    made = machine(requests, [Pool(1, Engine(num_gpu_blocks=50, async_scheduling=False), REFERENCE.packed())])
    _run(made, Failures([Failure(0, 0.006, 1.0)]))
    assert made.requests.first[0] == 4 * MS + 200_000 + 33
    # Eleven tokens are prefilled again at 1.006 s + 1 ns: 66 * 3 // 5 = 39; then one more step at context 12.
    again = 1006 * MS + 1 + 4 * MS + 220_000 + 39 + 4 * MS + 20_000 + 240
    assert made.requests.last[0] == again
    assert made.requests.rows[0, state.PREEMPTIONS] == 1


def test_is_a_request_without_any_replica_refused() -> None:
    requests = Requests(np.array([0, 10**9]), np.full(2, 10), np.full(2, 3))
    made = machine(requests, [Pool(1, Engine(num_gpu_blocks=50), REFERENCE.packed())])
    _run(made, Failures([Failure(0, 0.5)]))
    assert made.requests.rows[:, state.STATE].tolist() == [state.FINISHED, state.REFUSED_REPLICAS]


def test_do_replicas_follow_the_load() -> None:
    """A burst of 400 and an hour of nothing: more replicas for the burst, one at the end, and on only so long."""
    burst = np.zeros(400, np.int64)
    late = 3600 * 10**9 + np.arange(20) * 60 * 10**9
    requests = Requests(np.concatenate([burst, late]), np.full(420, 50), np.full(420, 200))
    scaling = Autoscaling(least=1, start_s=1.0, every_s=0.5, up=20, down=2)
    engine = Engine(num_gpu_blocks=2000, max_num_seqs=8)
    made = _run(machine(requests, [Pool(6, engine, REFERENCE.packed())], router=1), scaling)
    sizes = [size for _, size in scaling.sizes]
    assert sizes[0] == 1 and max(sizes) == 6 and sizes[-1] == 1
    _conserved_lengths = made.requests.rows[:, state.STATE] == state.FINISHED
    assert _conserved_lengths.all()
    end_s = made.requests.last.max() * 1e-9
    on = scaling.seconds_on(end_s)
    assert on[0] == pytest.approx(end_s) and 0 < on[5] < 600
    started = made.requests.first[made.requests.rows[:, state.REPLICA] == 5]
    assert len(started) == 0 or started.min() > 10**9  # not before it is up


def test_are_bits_shed_under_load_and_back_when_idle() -> None:
    fine, coarse = REFERENCE, FormulaOracle(step_ns=1_000_000, token_ns=20_000)
    requests = Requests(np.concatenate([np.zeros(100), [10**11]]).astype(np.int64), np.full(101, 20), np.full(101, 100))
    shedding = Shedding([Level("bf16", 8.0), Level("int4", 10.0)], up=20, down=5, every_s=0.05)
    engine = Engine(num_gpu_blocks=1000, max_num_seqs=10)
    made = machine(requests, [Pool(1, engine, fine.packed())], more=[coarse.packed()])
    _run(made, shedding)
    shedding.count(made)
    assert [level for _, level in shedding.path] == [0, 1, 0]
    assert sum(shedding.tokens) == 101 * 100
    assert 8.0 < shedding.perplexity < 10.0
    plain = machine(requests, [Pool(1, engine, fine.packed())])
    plain.go()
    assert made.requests.last[99] < plain.requests.last[99]


def test_are_mistakes_told() -> None:
    assert parse_failures("0@10s+1min, 3@20s")[0] == Failure(0, 10.0, 60.0)
    with pytest.raises(TierformError) as told:
        parse_failures("0@10s, x@3s, 1@soon")
    assert "x@3s" in str(told.value) and "soon" in str(told.value)
    requests = Requests(np.zeros(1, int), np.ones(1, int), np.ones(1, int))
    made = machine(requests, [Pool(1, Engine(num_gpu_blocks=50), REFERENCE.packed())])
    with pytest.raises(TierformError, match="replicas 0 to 0"):
        Failures([Failure(3, 1.0)]).begin(made)
    with pytest.raises(TierformError, match="after an earlier request"):
        Requests(np.zeros(2, int), np.ones(2, int), np.ones(2, int), after=np.array([1, -1]))
    with pytest.raises(TierformError, match="after the same one"):
        Requests(np.zeros(3, int), np.ones(3, int), np.ones(3, int), after=np.array([-1, 0, 0]))
