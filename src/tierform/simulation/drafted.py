"""How many tokens to draft in a step, and what drafting gains over plain decoding.

Where a task leaves the number open, one to eight tokens are tried (fewer where the prompt is shorter), and the number
with the shortest decode phase is taken.  The notes of a result say it beside the speed-up over plain decoding of the
same job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tierform.simulation.job import Job
from tierform.workload import Inference
from tierform.workload.decoding import Decoding

if TYPE_CHECKING:
    from tierform.simulation.choose import Trial

TRIED = range(1, 9)
_OPEN = ("model", "planes", "skip", "lookup", "mtp")
Choose = Callable[..., "Trial"]


@dataclass(frozen=True, slots=True)
class DraftedSpeed:
    """With so many drafted `tokens`: mean tokens of a step, seconds of a token, times as fast as plain decoding."""

    tokens: int
    tokens_a_step: float
    token_s: float
    speedup: float


def drafts(job: Job) -> Decoding | None:
    """How the job's task drafts; None for plain decoding."""
    return job.task.decoding if isinstance(job.task, Inference) else None


def leaves_tokens_open(job: Job) -> bool:
    """Whether the number of drafted tokens is to be found."""
    found = drafts(job)
    return found is not None and found.tokens == 0 and found.draft in _OPEN


def best_tokens(job: Job, choose: Choose, *, timeline: bool = False) -> Trial:
    """The trial with the best number of drafted tokens, with a note on all that were tried."""
    tried = speeds(job, choose)
    best = min(tried, key=lambda one: one.token_s)
    trial = choose(_with_tokens(job, best.tokens), timeline=timeline, gains=False)
    listed = ", ".join(f"{one.tokens}: {one.speedup:.2f}" for one in tried)
    trial.notes = (*trial.notes, f"{_gain(job, best)}, the best of those tried (tokens: speed-up; {listed})")
    return trial


def with_gain(job: Job, trial: Trial, choose: Choose) -> Trial:
    """A trial with drafts, with a note on what they gain over plain decoding."""
    assert isinstance(job.task, Inference)
    plain = choose(replace(job, task=replace(job.task, decoding=None)))
    trial.notes = (*trial.notes, _gain(job, _speed(job, trial, plain)))
    return trial


def speeds(job: Job, choose: Choose) -> list[DraftedSpeed]:
    """One to eight drafted tokens beside plain decoding."""
    assert isinstance(job.task, Inference) and job.task.decoding is not None
    plain = choose(replace(job, task=replace(job.task, decoding=None)))
    most = max(1, job.task.sequence - 1)
    return [
        _speed(one, choose(one, gains=False), plain)
        for one in (_with_tokens(job, tokens) for tokens in TRIED if tokens <= most)
    ]


def _with_tokens(job: Job, tokens: int) -> Job:
    assert isinstance(job.task, Inference) and job.task.decoding is not None
    return replace(job, task=replace(job.task, decoding=job.task.decoding.with_tokens(tokens)))


def _speed(job: Job, trial: Trial, plain: Trial) -> DraftedSpeed:
    assert isinstance(job.task, Inference) and job.task.decoding is not None
    seconds, decoding = trial.seconds("decode"), job.task.decoding
    speedup = plain.seconds("decode") / seconds
    return DraftedSpeed(decoding.nodes, decoding.tokens_a_step(), seconds / job.task.decode, speedup)


def _gain(job: Job, speed: DraftedSpeed) -> str:
    found = drafts(job)
    assert found is not None
    if found.draft == "early-exit":
        return f"early exits: {speed.speedup:.2f} times as many tokens/s as plain decoding"
    return (
        f"drafts by {found.draft}: {speed.tokens} tokens, {speed.tokens_a_step:.2f} tokens a step, "
        f"{speed.speedup:.2f} times as many tokens/s as plain decoding"
    )
