"""Keys and values of preempted requests and adapters that wait in a host; pools of several chips; what each costs."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import REFERENCE
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.chip.description import load_chip
from tierform.errors import TierformError
from tierform.serving import state
from tierform.serving.arrivals import with_adapters
from tierform.serving.controls import Conductor, Failure, Failures, Level, Shedding
from tierform.serving.engine import Engine
from tierform.serving.fleet import Fleet
from tierform.serving.host import adapter_B, host_link
from tierform.serving.oracle import FormulaOracle
from tierform.serving.requests import Requests
from tierform.serving.run import HostLink, Machine, Pool, machine
from tierform.serving.serve import serve
from tierform.serving.state import ADAPTER_AWARE
from tierform.serving.wear import WearRate, wear_rate
from tierform.simulation.runtime import load_runtime
from tierform.workload import load_model
from tierform.workload.parallel import Parallelism

MS = 10**6
COSTLY = FormulaOracle(step_ns=MS, token_ns=1000, components=("a",), joules=((0.1, 0.01, 1e-6, 1e-9),))
LINK = HostLink(tokens=100, token_ps=2_000_000, token_J=0.5, adapter_ns=3 * MS, adapter_J=7.0)


def _run(requests: Requests, engine: Engine, link: HostLink, replicas: int = 1, router: int = 1) -> Machine:
    made = machine(requests, [Pool(replicas, engine, COSTLY.packed(), link)], router=router)
    made.go()
    return made


def test_do_swapped_keys_and_values_cross_twice_and_spare_the_prompt() -> None:
    """Two requests of 8 tokens and 6 answers in 5 usable blocks of 4: the second is preempted once.

    It held n tokens, which cross out and in again: 2 n * 2 us, and n J; nothing of its prompt is computed again.
    """
    requests = Requests(np.arange(2), np.full(2, 8), np.full(2, 6))
    engine = Engine(num_gpu_blocks=6, block_size=4, max_num_seqs=2, enable_prefix_caching=False, async_scheduling=False)
    again, swapped = _run(requests, engine, HostLink()), _run(requests, engine, LINK)
    assert again.requests.rows[1, state.PREEMPTIONS] == swapped.requests.rows[1, state.PREEMPTIONS] == 1
    held = int(swapped.run.counters[state.C_SWAPPED])
    assert held > 0
    assert swapped.replicas.energy[0, 1] == pytest.approx(2 * held * 0.5)
    assert swapped.replicas.rows[0, state.BUSY_NS] - again.replicas.rows[0, state.BUSY_NS] == 2 * held * 2000 - (
        held * 1000
    )
    assert swapped.replicas.rows[0, state.HOST_TOKENS] == 0


def test_is_what_the_host_has_no_room_for_computed_again() -> None:
    requests = Requests(np.arange(2), np.full(2, 8), np.full(2, 6))
    engine = Engine(num_gpu_blocks=6, block_size=4, max_num_seqs=2, enable_prefix_caching=False)
    made = _run(requests, engine, HostLink(tokens=3, token_ps=1))
    assert made.run.counters[state.C_SWAPPED] == 0
    assert (made.requests.rows[:, state.STATE] == state.FINISHED).all()


def test_is_an_adapter_loaded_once_and_the_least_recently_used_one_dropped() -> None:
    """Places for two: 0, 1, 0, 2 (drops 1), 0 (still there), 1 (drops 2): four loads of 3 ms and 7 J."""
    asked = np.array([0, 1, 0, 2, 0, 1])
    requests = Requests(np.arange(6) * 10**9, np.full(6, 4), np.ones(6, int), adapter=asked)
    engine = Engine(num_gpu_blocks=50, enable_lora=True, max_loras=2, async_scheduling=False)
    made = _run(requests, engine, LINK)
    assert made.run.counters[state.C_LOADED] == 4
    assert made.replicas.energy[0, 1] == pytest.approx(4 * 7.0)
    took = made.requests.first - made.requests.arrival
    assert (took - took.min()).tolist() == [3 * MS, 3 * MS, 0, 3 * MS, 0, 3 * MS]


def test_does_a_batch_hold_no_more_adapters_than_there_are_places() -> None:
    """Three at once with three adapters and two places: the third waits until one of the others is done."""
    requests = Requests(np.zeros(3, int), np.full(3, 4), np.full(3, 5), adapter=np.arange(3))
    engine = Engine(num_gpu_blocks=50, enable_lora=True, max_loras=2, async_scheduling=False)
    made = _run(requests, engine, LINK)
    assert made.requests.scheduled[2] >= made.requests.last[:2].min()


def test_does_the_router_find_the_adapter() -> None:
    """Two copies with one place each get adapters 0 and 1 at once; then 1, 0, 1, 0 ...: each finds its own."""
    arrival = np.array([0, 0, *(np.arange(1, 7) * 10**9)])
    asked = np.array([0, 1, 1, 0, 1, 0, 1, 0])
    requests = Requests(arrival, np.full(8, 4), np.ones(8, int), adapter=asked)
    engine = Engine(num_gpu_blocks=50, enable_lora=True, max_loras=1)
    blind, aware = (_run(requests, engine, LINK, 2, router) for router in (1, ADAPTER_AWARE))
    assert blind.run.counters[state.C_LOADED] == 8  # the least loaded of two that are idle is copy 0
    assert aware.run.counters[state.C_LOADED] == 2


@settings(deadline=None)
@given(st.data())
def test_is_everything_conserved(data: st.DataObject) -> None:
    number = data.draw(st.integers(1, 30))
    lengths = st.lists(st.integers(0, 60), min_size=number, max_size=number)
    gaps = data.draw(st.lists(st.sampled_from([0, 1, MS, 100 * MS]), min_size=number, max_size=number))
    adapters = data.draw(st.lists(st.integers(-1, 4), min_size=number, max_size=number))
    requests = Requests(
        np.cumsum(gaps), np.array(data.draw(lengths)), np.array(data.draw(lengths)), adapter=np.array(adapters)
    )
    engine = Engine(
        num_gpu_blocks=data.draw(st.integers(8, 40)),
        block_size=4,
        max_num_seqs=5,
        max_num_batched_tokens=32,
        max_model_len=128,
        enable_prefix_caching=data.draw(st.booleans()),
        async_scheduling=data.draw(st.booleans()),
        scheduling_policy=data.draw(st.sampled_from(["fcfs", "priority", "sjf"])),
        enable_lora=True,
        max_loras=data.draw(st.integers(1, 3)),
    )
    replicas = data.draw(st.integers(1, 3))
    router = data.draw(st.sampled_from([0, 1, 2, 3, ADAPTER_AWARE]))
    link = HostLink(data.draw(st.sampled_from([0, 10, 1000])), 1000, 0.5, MS, 1.0)
    made = machine(requests, [Pool(replicas, engine, COSTLY.packed(), link)], router=router)
    failures = data.draw(
        st.lists(st.builds(Failure, st.integers(0, replicas - 1), st.sampled_from([0.001, 0.0105, 0.2]), st.just(0.5)))
    )
    conductor = Conductor((Failures(failures[:3]),))
    conductor.begin(made)
    made.go(window=conductor.window)
    rows, states = made.requests.rows, made.requests.rows[:, state.STATE]
    done = states == state.FINISHED
    assert (done | (states >= state.REFUSED_EMPTY)).all()
    assert (rows[done, state.TOKENS] == rows[done, state.PROMPT] + rows[done, state.OUTPUT]).all()
    assert (made.replicas.rows[:, state.FREE] == engine.num_gpu_blocks - 1).all()  # type: ignore[operator]
    assert (made.replicas.rows[:, state.HOST_TOKENS] == 0).all()
    assert (made.replicas.adapters[:, :, 1] == 0).all()
    assert made.requests.energy.sum() == pytest.approx(made.replicas.energy.sum(), rel=1e-9, abs=1e-9)


def test_is_the_link_that_of_the_host_and_the_model() -> None:
    """131,072 bytes a token (2 * 8 heads * 128 * 32 layers * 2 bytes) over 25 GB/s; 1 GiB holds 8,192 tokens.

    Rank 16 on q and v: 32 layers * 16 * (4096 + 4096 + 4096 + 1024) * 2 bytes = 13.6 MB.
    """
    model, chip = load_model("llama-3.1-8b"), load_chip("h100")
    engine = Engine(enable_lora=True, max_loras=4, kv_offloading_size=1.0)
    runtime, alone = load_runtime("vllm"), Parallelism()
    link = host_link(model, chip, engine, alone, runtime)
    assert link.tokens == 8192
    assert link.token_ps == round(131_072 / 25e9 * 1e12)
    assert link.token_J == pytest.approx(131_072 * 20e-12 * 8)
    assert adapter_B(model, chip, engine, alone, runtime) == 32 * 16 * (4096 + 4096 + 4096 + 1024) * 2
    assert host_link(model, chip, Engine(), alone, runtime) == HostLink()


def test_are_adapters_without_an_engine_for_them_refused() -> None:
    requests = with_adapters(Requests(np.zeros(3, int), np.full(3, 4), np.full(3, 2)), 2)
    with pytest.raises(TierformError, match="enable_lora"):
        serve("llama-3.1-8b", "h100", requests, oracle=REFERENCE)


def test_does_a_first_step_take_longer() -> None:
    requests = Requests(np.array([0, 10**9]), np.full(2, 4), np.ones(2, int))
    made = _run(requests, Engine(num_gpu_blocks=50, first_step_s=0.25), HostLink())
    took = made.requests.first - made.requests.arrival
    assert took[0] - took[1] == 250 * MS


def test_do_pools_of_two_kinds_serve_together() -> None:
    """A fast kind and one that takes ten times as long, least loaded: the fast one gives more; energy by its pool."""
    slow = FormulaOracle(step_ns=10 * MS, token_ns=0, components=("x", "y"), joules=((1.0, 0, 0, 0), (2.0, 0, 0, 0)))
    requests = Requests(np.arange(100) * MS, np.full(100, 10), np.full(100, 10))
    engine = Engine(num_gpu_blocks=500, max_num_seqs=8)
    made = machine(requests, [Pool(1, engine, COSTLY.packed()), Pool(2, engine, slow.packed())], router=1)
    made.go()
    assert (made.requests.rows[:, state.STATE] == state.FINISHED).all()
    on = np.bincount(made.requests.rows[:, state.REPLICA], minlength=3)
    assert on[0] > on[1] > 0 and on[2] > 0
    steps = made.replicas.rows[:, state.STEPS]
    assert made.replicas.energy[1:].tolist() == [[steps[1] * 1.0, steps[1] * 2.0], [steps[2] * 1.0, steps[2] * 2.0]]
    assert made.replicas.energy[0, 1] == 0.0


def test_are_mistakes_of_pools_and_formats_told() -> None:
    requests = Requests(np.zeros(1, int), np.full(1, 4), np.full(1, 2))
    with pytest.raises(TierformError, match="as many numbers of replicas"):
        serve("llama-3.1-8b", ["h100", "l40s"], requests, replicas=2)
    shedding = Shedding([Level("bf16", 6.0), Level("int8", 6.1)], 4, 1)
    with pytest.raises(TierformError, match="oracle of one's own"):
        fleet = Fleet(shedding=shedding, formats=("bf16", "int8"))
        serve("llama-3.1-8b", "h100", requests, oracle=REFERENCE, fleet=fleet)


def test_is_wear_steps_and_tokens() -> None:
    """3 writes a step and 0.5 a token: 10 steps with 40 tokens write 50 times, 20 with 10 write 65; 1e6 in 65 s."""
    rate = WearRate(step=3.0, token=0.5, endurance=1e6)
    found = rate.figures(np.array([10.0, 20.0]), np.array([40.0, 10.0]), 65.0)
    assert found == {"writes_per_cell": 65.0, "endurance_writes": 1e6, "lifetime_s": pytest.approx(1e6)}
    assert wear_rate(load_model("gpt2"), load_chip("h100"), Parallelism(), load_runtime("ideal")) is None


def test_do_cells_that_are_written_in_every_step_wear() -> None:
    """Weights that do not fit Atleus' crossbars are written through some of them in every step."""
    rate = wear_rate(load_model("llama-3.2-1b"), load_chip("atleus"), Parallelism(), load_runtime("ideal"))
    assert rate is not None and rate.step > 0 and rate.endurance > 0
