"""Laws of speculative decoding and of pipelines inside a replica, and figures derived by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tierform.serving import state
from tierform.serving.engine import Engine, Speculation
from tierform.serving.oracle import FormulaOracle
from tierform.serving.requests import Requests
from tierform.serving.run import Machine, Pool, machine

STEP = FormulaOracle(step_ns=1_200, token_ns=0)  # three and four stages divide it


def _run(requests: Requests, drafts: int = 0, acceptance: float = 0.0, stages: int = 1, batch: int = 64) -> Machine:
    engine = Engine(
        num_gpu_blocks=4000,
        max_num_seqs=batch,
        max_num_batched_tokens=512,
        async_scheduling=False,
        enable_prefix_caching=False,
        speculative_config=Speculation(drafts, acceptance, "ngram") if drafts else None,
    )
    made = machine(requests, [Pool(1, engine, STEP.packed(), stages=stages)])
    made.go()
    return made


def _alike(number: int, output: int, apart_ns: int = 0) -> Requests:
    return Requests(np.arange(number) * apart_ns, np.full(number, 8), np.full(number, output))


@pytest.mark.parametrize(("output", "drafts"), [(1, 3), (9, 3), (10, 3), (100, 1), (100, 7)])
def test_do_sure_drafts_take_a_step_for_each_group(output: int, drafts: int) -> None:
    """One step for the prompt and its first token, then one for each group of 1 + drafts of the other tokens."""
    made = _run(_alike(1, output), drafts, 1.0)
    assert made.run.counters[state.C_STEPS] == 1 + -(-(output - 1) // (1 + drafts))
    assert made.requests.last[0] == 1_200 * made.run.counters[state.C_STEPS]


def test_do_drafts_that_are_never_right_change_no_token() -> None:
    """As many steps as without drafts, and every token at the same time, as steps here take no longer for more."""
    requests = _alike(20, 30, 500)
    plain, drafted = _run(requests), _run(requests, 4, 0.0)
    for name in ("first", "last"):
        assert np.array_equal(getattr(plain.requests, name), getattr(drafted.requests, name))


def test_do_better_drafts_never_take_longer() -> None:
    """The last request comes at 29 * 700 ns, and begins with the step at 20,400.

    Its 60 tokens take 60 steps of 1,200 ns without luck, and 1 + 59 / 5 (rounded up: 13) with drafts that hold.
    """
    requests = _alike(30, 60, 700)
    ends = [_run(requests, 4, acceptance).requests.last.max() for acceptance in (0.0, 0.3, 0.6, 0.9, 1.0)]
    assert ends == sorted(ends, reverse=True)
    assert (ends[0], ends[-1]) == (20_400 + 60 * 1_200, 20_400 + 13 * 1_200)


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_does_one_request_gain_nothing_by_stages(stages: int) -> None:
    """Its next token needs the one before: a step takes its way through all stages, however many there are."""
    alone, piped = _run(_alike(1, 20)), _run(_alike(1, 20), stages=stages)
    assert np.array_equal(alone.requests.last, piped.requests.last)
    assert piped.run.counters[state.C_STEPS] == 20


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_do_stages_serve_as_many_batches_at_once(stages: int) -> None:
    """One request fills a step (64 prompts of 8 tokens fill 512): as many groups of 64 as stages, each every 1,200 ns.

    A group's step begins a stage later than that of the group before, so the last of its 20 tokens comes after
    20 * 1,200 ns and, of the last group, stages - 1 times a stage's 1,200 / stages more.
    """
    made = _run(_alike(64 * stages, 20), stages=stages, batch=64 * stages)
    assert made.requests.last[0] == 20 * 1_200
    assert made.requests.last[-1] == 20 * 1_200 + (stages - 1) * 1_200 // stages
    one = _run(_alike(64 * stages, 20), batch=64 * stages)
    assert made.requests.last.max() < one.requests.last.max() * 1.2
