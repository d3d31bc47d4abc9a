"""Speculative decoding: steps by hand, what the draft model takes, laws, and the tables of a verification."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.chip.description import load_chip
from tierform.errors import TierformError
from tierform.serving import state
from tierform.serving.engine import Engine, Speculation, load_engine
from tierform.serving.grid import grid_for
from tierform.serving.oracle import FormulaOracle, StepShape
from tierform.serving.requests import Requests
from tierform.serving.run import Machine, Pool, machine
from tierform.serving.serve import serve
from tierform.serving.simulated import SimulatedOracle
from tierform.simulation.job import Job
from tierform.simulation.runtime import load_runtime
from tierform.workload import load_model
from tierform.workload.task import SequenceGroup, Step

TARGET = FormulaOracle(step_ns=1000, token_ns=10, components=("board",), joules=((2.0, 0.1, 0.0, 0.0),))
DRAFT = FormulaOracle(step_ns=100, token_ns=1, components=("board",), joules=((0.5, 0.01, 0.0, 0.0),))


def _run(requests: Requests, acceptance: float, drafts: int = 3, *, model: bool = True, **given: bool) -> Machine:
    spec = Speculation(drafts, acceptance, "draft_model" if model else "ngram", "llama-3.2-1b" if model else None)
    engine = Engine(num_gpu_blocks=2000, enable_prefix_caching=False, speculative_config=spec, **given)
    made = machine(requests, [Pool(1, engine, TARGET.packed(), draft=DRAFT.packed() if model else None)], record=True)
    made.go()
    return made


def _one(prompt: int, output: int) -> Requests:
    return Requests(np.zeros(1, np.int64), np.array([prompt]), np.array([output]))


def test_do_accepted_drafts_save_steps() -> None:
    """A prompt of 10, 9 answers, 3 drafts all accepted: the first token, then 4 and 4.  Steps of 10, 4 and 4 tokens."""
    made = _run(_one(10, 9), 1.0, async_scheduling=False)
    steps = made.logs.steps[: made.run.counters[state.C_STEPS_LOGGED]]
    assert steps[:, state.L_TOKENS].tolist() == [10, 4, 4]
    # A step: the target's; the draft model's first pass over as many tokens; two more of one token.
    first, verify = 1000 + 100 + 100 + 10 + 2 * 101, 1000 + 40 + 100 + 4 + 2 * 101
    assert steps[:, state.L_DURATION].tolist() == [first, verify, verify]
    joules = 3 * 2.0 + 18 * 0.1 + 3 * (0.5 + 2 * 0.51) + 18 * 0.01
    assert made.replicas.energy[0, 0] == pytest.approx(joules)
    assert made.requests.energy[0] == pytest.approx(joules)


def test_do_rejected_drafts_cost_and_give_nothing() -> None:
    """None accepted: as many steps as tokens, each verification computes 4 tokens and keeps one."""
    made = _run(_one(10, 5), 0.0, async_scheduling=False)
    steps = made.logs.steps[: made.run.counters[state.C_STEPS_LOGGED]]
    assert steps[:, state.L_TOKENS].tolist() == [10, 4, 4, 4, 4]
    assert [entry[2] for entry in made.logs.entries[1:5].tolist()] == [10, 11, 12, 13]


def test_do_looked_up_drafts_take_no_time() -> None:
    made = _run(_one(10, 9), 1.0, model=False, async_scheduling=False)
    steps = made.logs.steps[: made.run.counters[state.C_STEPS_LOGGED]]
    assert steps[:, state.L_DURATION].tolist() == [1100, 1040, 1040]


@pytest.mark.parametrize("acceptance", [0.3, 0.7, 0.9])
def test_are_as_many_accepted_as_the_chance_says(acceptance: float) -> None:
    """Of k drafts sum(a^i, i = 1..k) are accepted in the mean; 60,000 tokens, within 2 %."""
    requests = Requests(np.zeros(60, np.int64), np.full(60, 5), np.full(60, 1000))
    made = _run(requests, acceptance, drafts=4)
    counters = made.run.counters
    expected = sum(acceptance**i for i in range(1, 5)) / 4
    assert counters[state.C_ACCEPTED] / counters[state.C_DRAFTED] == pytest.approx(expected, rel=0.02)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=30),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    st.booleans(),
    st.booleans(),
    st.integers(8, 60),
)
def test_do_the_laws_hold(
    asked: list[tuple[int, int, int]], drafts: int, acceptance: float, ahead: bool, waits: bool, blocks: int
) -> None:
    """Tokens out are those asked for, blocks are free again, energy of requests is that of the replica."""
    arrival, prompt, output = (np.array(column) for column in zip(*sorted(asked), strict=True))
    spec = Speculation(drafts, acceptance, *(("draft_model", "llama-3.2-1b") if ahead else ("ngram", None)))
    engine = Engine(
        num_gpu_blocks=blocks, block_size=4, max_num_seqs=5, async_scheduling=waits, speculative_config=spec
    )
    pool = Pool(1, engine, TARGET.packed(), draft=DRAFT.packed() if ahead else None)
    made = machine(Requests(arrival, prompt, output), [pool])
    made.go()
    rows, served = made.requests.rows, made.finished
    assert (served | (rows[:, state.STATE] == state.REFUSED_BLOCKS)).all()
    assert (rows[served, state.TOKENS] == (prompt + output)[served]).all()
    assert made.replicas.rows[0, state.TOKENS_DONE] == output[served].sum()
    assert made.replicas.rows[0, state.FREE] == blocks - 1
    assert made.requests.energy.sum() == pytest.approx(made.replicas.energy.sum())
    assert made.requests.energy.min() >= -1e-9


@pytest.mark.parametrize("chip", ["h100", "attacc-like"])
def test_is_a_verification_what_simulate_says(chip: str) -> None:
    """Several sequences of 1 + 3 new tokens, the logits of all of which are needed.

    Without the choice of tokens: `simulate` chooses one for each sequence, a verification looks at every row.
    """
    software = replace(load_runtime("vllm" if chip == "h100" else "ideal"), sampling_s=0.0)
    model = load_model("llama-3.2-1b")
    oracle = SimulatedOracle(model, load_chip(chip), software, grid_for(64, 8, 512), verified=4)
    for number, past in ((1, 300), (3, 77), (8, 450)):
        step = Step((SequenceGroup(number, 4, past),), logits="all")
        job = Job(model, step, oracle.chip, runtime=software, thermal="none", mapping="plain")
        expected = job.simulate().latency_s
        cost = oracle.cost(StepShape(checked=((4, past),) * number))
        assert cost.seconds == pytest.approx(expected, rel=0.005)


def test_does_a_service_with_drafts_end_earlier(tmp_path: Path) -> None:
    """Llama-3.1-8B with Llama-3.2-1B's drafts, 90 % accepted, few requests: fewer seconds, and fewer KV blocks."""
    file = tmp_path / "engine.yaml"
    file.write_text(
        "schema: tierform.engine/1\nmax_num_seqs: 4\nmax_num_batched_tokens: 256\nspeculative_config:\n"
        "  model: llama-3.2-1b\n  num_speculative_tokens: 3\n  acceptance_rate: 0.9\n"
    )
    requests = Requests(np.zeros(4, np.int64), np.full(4, 100), np.full(4, 60))
    drafted = serve("llama-3.1-8b", "h100", requests, engine=file)
    plain = serve("llama-3.1-8b", "h100", requests, engine=Engine(max_num_seqs=4, max_num_batched_tokens=256))
    assert drafted.array("e2e_s").mean() < 0.75 * plain.array("e2e_s").mean()
    assert drafted.engine["num_gpu_blocks"] < plain.engine["num_gpu_blocks"]
    assert drafted.to_dict()["drafted_tokens"] > 0


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("{num_speculative_tokens: 3, acceptance_rate: 0.9}", "model"),
        ("{model: llama-3.2-1b, num_speculative_tokens: 0, acceptance_rate: 0.9}", "num_speculative_tokens"),
        ("{model: llama-3.2-1b, num_speculative_tokens: 3}", "acceptance_rate"),
        ("{method: ngram, model: llama-3.2-1b, num_speculative_tokens: 3, acceptance_rate: 0.5}", "model"),
        ("{method: guess, num_speculative_tokens: 3, acceptance_rate: 0.5}", "method"),
    ],
)
def test_is_what_cannot_be_drafted_refused(tmp_path: Path, text: str, key: str) -> None:
    file = tmp_path / "engine.yaml"
    file.write_text(f"speculative_config: {text}\n")
    with pytest.raises(TierformError, match=key):
        load_engine(file)
