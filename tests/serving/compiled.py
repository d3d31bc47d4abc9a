"""Runs of the compiled scheduler in the form of the plain one's, for tests that hold one against the other."""

from __future__ import annotations

import numpy as np
from plain_scheduler import PlainEngine, PlainRequest

from tierform.serving import state
from tierform.serving.engine import Engine, Speculation
from tierform.serving.oracle import FormulaOracle
from tierform.serving.requests import Requests, TokenIds
from tierform.serving.run import Machine, Pool, machine

REFERENCE = FormulaOracle(step_ns=4_000_000, token_ns=20_000, context_ns=20, pair_ns=3, pair_divisor=5)


def engine_of(plain: PlainEngine) -> Engine:
    return Engine(
        num_gpu_blocks=plain.blocks,
        block_size=plain.block_size,
        max_num_seqs=plain.max_num_seqs,
        max_num_batched_tokens=plain.max_num_batched_tokens,
        max_model_len=min(plain.max_model_len, 2**20),
        enable_prefix_caching=plain.enable_prefix_caching,
        enable_chunked_prefill=plain.enable_chunked_prefill,
        long_prefill_token_threshold=plain.long_prefill_token_threshold,
        scheduler_reserve_full_isl=plain.scheduler_reserve_full_isl,
        async_scheduling=plain.async_scheduling,
        scheduling_policy="priority" if plain.policy == "priority" else "fcfs",
        speculative_config=_drafts_of(plain),
        first_step_s=plain.first_ns * 1e-9,
    )


def _drafts_of(plain: PlainEngine) -> Speculation | None:
    if not plain.drafts:
        return None
    if plain.lookahead:
        return Speculation(plain.drafts, plain.acceptance, "draft_model", "llama-3.2-1b")
    return Speculation(plain.drafts, plain.acceptance, "ngram")


def requests_of(plain: list[PlainRequest]) -> Requests:
    lengths = [len(one.prompt) for one in plain]
    return Requests(
        arrival_ns=np.array([one.arrival_ns for one in plain]),
        prompt=np.array(lengths),
        output=np.array([one.output for one in plain]),
        priority=np.array([one.priority for one in plain]),
        content=TokenIds(
            np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
            np.array([token for one in plain for token in one.prompt], np.int64),
        ),
    )


def run_compiled(
    requests: Requests,
    engine: Engine,
    oracle: FormulaOracle = REFERENCE,
    seed: int = 0,
    stages: int = 1,
    record: bool = True,
) -> Machine:
    made = machine(requests, [Pool(1, engine, oracle.packed(), stages=stages)], record=record, seed=seed)
    made.go()
    return made


def steps_of(made: Machine) -> list[tuple[object, ...]]:
    """(start, duration, tokens, single entries, their contexts, prefills, preempted, free, running, waiting)."""
    found, entry, out = [], 0, 0
    for row in made.logs.steps[: made.run.counters[state.C_STEPS_LOGGED]]:
        entries = made.logs.entries[entry : row[state.L_ENTRIES]]
        preempted = made.logs.preempted[out : row[state.L_PREEMPTED]]
        entry, out = int(row[state.L_ENTRIES]), int(row[state.L_PREEMPTED])
        columns = (state.L_START, state.L_DURATION, state.L_TOKENS, state.L_SINGLES, state.L_CONTEXTS)
        found.append(
            (
                *(int(row[column]) for column in columns),
                tuple((int(a), int(b), int(c)) for a, b, c in entries),
                tuple(int(one) for one in preempted),
                *(int(row[column]) for column in (state.L_FREE, state.L_RUNNING, state.L_WAITING)),
            )
        )
    return found
