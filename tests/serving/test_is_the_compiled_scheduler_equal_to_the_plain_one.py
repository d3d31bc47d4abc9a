"""Every step of the compiled scheduler against that of the plain one, for engines and requests of all kinds.

Small caches and shared prompts make preemptions, evictions, twins of one content and late finishes frequent.
"""

from __future__ import annotations

import copy

import pytest
from compiled import engine_of, requests_of, run_compiled, steps_of
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_scheduler import PlainEngine, PlainRequest, run_plain

from tierform.serving import state


@st.composite
def cases(draw: st.DrawFn, **fixed: object) -> tuple[PlainEngine, list[PlainRequest]]:
    size = draw(st.sampled_from([1, 2, 4, 16]))
    blocks = draw(st.integers(4, 40))
    engine = PlainEngine(
        blocks=blocks,
        block_size=size,
        max_num_seqs=draw(st.integers(1, 8)),
        max_num_batched_tokens=draw(st.integers(1, 60)),
        enable_prefix_caching=draw(st.booleans()),
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 3, 10])),
        scheduler_reserve_full_isl=True,
        async_scheduling=draw(st.booleans()),
        policy=draw(st.sampled_from(["fcfs", "fcfs", "priority"])),
        first_ns=draw(st.sampled_from([0, 0, 7_000_000, 40_000_000])),
    )
    for name, value in fixed.items():
        setattr(engine, name, value)
    usable = (engine.blocks - 1) * engine.block_size  # what fits no cache would wait for ever
    requests, now = [], 0
    for number in range(draw(st.integers(1, 25))):
        now += draw(st.sampled_from([0, 0, 1, 5_000_000, 30_000_000]))
        longest = min(usable, 60)
        prompt = draw(st.integers(1, max(1, longest - 1)))
        output = draw(st.integers(1, max(1, min(20, longest - prompt))))
        # Few stories, so that prompts share their beginnings.
        story = draw(st.integers(0, 2))
        same = draw(st.integers(0, prompt))
        tokens: list[object] = [story * 1000 + place for place in range(same)]
        tokens += [(number + 1) * 100_000 + place for place in range(prompt - same)]
        if prompt + output - 1 <= usable:
            requests.append(PlainRequest(len(requests), now, tokens, output, draw(st.integers(0, 2))))
    if not requests:
        requests.append(PlainRequest(0, 0, [1], 1))
    return engine, requests


def _hold(engine: PlainEngine, requests: list[PlainRequest]) -> None:
    made = run_compiled(requests_of(requests), engine_of(engine), seed=engine.seed, stages=engine.stages)
    plain = copy.deepcopy(requests)
    steps = [
        (
            one.start_ns,
            one.duration_ns,
            sum(new for _, new, _ in one.entries),
            sum(new == 1 for _, new, _ in one.entries),
            sum(past + 1 for _, new, past in one.entries if new == 1),
            tuple((a, new, past) for a, new, past in one.entries if new > 1 or past < len(plain[a].prompt)),
            tuple(one.preempted),
            one.free,
            one.running,
            one.waiting,
        )
        for one in run_plain(engine, plain)
    ]
    assert steps_of(made) == steps
    rows = made.requests.rows
    for one in plain:
        assert rows[one.number, state.STATE] == state.FINISHED
        assert rows[one.number, state.HIT] == one.hit
        assert rows[one.number, state.PREEMPTIONS] == one.preemptions
        assert made.requests.scheduled[one.number] == one.scheduled_ns
        assert made.requests.first[one.number] == one.first_ns
        assert made.requests.last[one.number] == one.last_ns
    assert made.replicas.rows[0, state.FREE] == engine.blocks - 1
    # What records nothing computes steps ahead.
    other = run_compiled(requests_of(requests), engine_of(engine), seed=engine.seed, stages=engine.stages, record=False)
    assert (other.requests.rows == rows).all()
    for name in ("scheduled", "first", "last"):
        assert (getattr(other.requests, name) == getattr(made.requests, name)).all(), name


@settings(max_examples=120)
@given(cases())
def test_is_every_step_equal(case: tuple[PlainEngine, list[PlainRequest]]) -> None:
    _hold(*case)


@settings(max_examples=60)
@given(cases(enable_prefix_caching=True, async_scheduling=True, block_size=1, blocks=30))
def test_is_every_step_equal_with_a_cache_that_is_always_full(case: tuple[PlainEngine, list[PlainRequest]]) -> None:
    _hold(*case)


@settings(max_examples=120)
@given(cases(async_scheduling=False), st.integers(2, 5))
def test_is_every_step_equal_in_a_pipeline(case: tuple[PlainEngine, list[PlainRequest]], stages: int) -> None:
    """Each stage has a step in flight; a request waits for its own token, a prompt's next chunk does not."""
    engine, requests = case
    engine.stages = stages
    _hold(engine, requests)


@settings(max_examples=150)
@given(cases(blocks=40), st.integers(1, 5), st.sampled_from([0.0, 0.3, 0.8, 1.0]), st.booleans(), st.integers(0, 9))
def test_is_every_step_equal_where_drafts_are_verified(
    case: tuple[PlainEngine, list[PlainRequest]], drafts: int, acceptance: float, ahead: bool, seed: int
) -> None:
    """With places kept for drafts (a draft model) and without (looked up); prompts and answers that always fit."""
    engine, requests = case
    engine.drafts, engine.acceptance, engine.seed = drafts, acceptance, seed
    engine.lookahead = drafts if ahead else 0
    engine.stages = 1 if engine.async_scheduling else 1 + seed % 3
    usable = (engine.blocks - 1) * engine.block_size
    kept = [one for one in requests if len(one.prompt) + one.output - 1 + 4 * drafts <= usable]
    for number, one in enumerate(kept):
        one.number = number
    _hold(engine, kept or [PlainRequest(0, 0, [1], 1)])


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_is_a_preempted_request_found_again_in_the_cache(policy: str) -> None:
    """Two requests of 12 tokens in 5 usable blocks of 4: the second is preempted, and comes back to its own blocks."""
    engine = PlainEngine(blocks=6, block_size=4, max_num_seqs=2, enable_prefix_caching=True, policy=policy)
    requests = [PlainRequest(n, n, [1000 * (n + 1) + i for i in range(8)], 6, n) for n in range(2)]
    _hold(engine, requests)
    made = run_compiled(requests_of(requests), engine_of(engine))
    assert made.requests.rows[1, state.PREEMPTIONS] >= 1
