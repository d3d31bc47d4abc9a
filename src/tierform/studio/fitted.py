"""What the Fit page asks: chips, number formats, recomputation, and how copies share the states of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tierform.chip.description import Chip
from tierform.errors import Problem, TierformError
from tierform.simulation.choose import task_on
from tierform.simulation.fit_splits import USUAL_ZERO, fits_on
from tierform.simulation.job import Job
from tierform.workload import FineTuning
from tierform.workload.precision import bits
from tierform.workload.recomputation import RECOMPUTATIONS, recomputation_problems
from tierform.workload.task import resolved_precision

MOST_CHIPS = 64  # over which Fit splits a task
LEAST = "least"  # that fits
CLASSES = ("weights", "activations", "gradients", "kv_cache")  # whose formats may be asked for
ZERO = {"": USUAL_ZERO, "all": (0, 1, 2, 3), **{str(stage): (stage,) for stage in range(4)}}


def fit_asked(job: Job, asked: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> None:
    """Every way to do a task; TierformError with everything that is wrong with what is asked."""
    problems: list[Problem] = []
    chips, recomputation, zero = asked.get("chips", 1), asked.get("recomputation") or "", asked.get("zero") or ""
    training = isinstance(job.task, FineTuning)
    if isinstance(chips, bool) or not isinstance(chips, int) or not 1 <= chips <= MOST_CHIPS:
        what = f"must be a whole number from 1 to {MOST_CHIPS}"
        problems.append(Problem(what, key="chips", value=chips))
    if recomputation and not training:
        what = "recomputation saves what a backward pass needs: inference has none"
        problems.append(Problem(what, key="recomputation", value=recomputation, fix="Choose fine-tuning."))
    elif recomputation not in ("", LEAST):
        problems += recomputation_problems(recomputation)
    if not isinstance(zero, str) or zero not in ZERO:
        problems.append(Problem("not a known choice", key="zero", value=zero, fix="Choose 0, 1, 2, 3 or all."))
    elif zero not in ("", "0") and (not training or chips == 1):
        what = "ZeRO spreads states of training over copies" + (": one chip has none" if training else "")
        problems.append(
            Problem(what, key="zero", value=zero, fix="Take more chips." if training else "Take fine-tuning.")
        )
    formats = {key: asked[key] for key in CLASSES if asked.get(key)}
    for key, name in formats.items():
        problems += _wrong_format(key, name)
    if problems:
        raise TierformError(problems)
    recomputations = RECOMPUTATIONS if recomputation == LEAST else (recomputation,) if recomputation else ()
    for found in fits_on(_in_formats(job, formats), chips, recomputations, ZERO[zero]):
        tell(found)


def _wrong_format(key: str, name: object) -> list[Problem]:
    if not isinstance(name, str):
        return [Problem("a number format is needed here", key=key, value=name)]
    try:
        bits(name)
    except TierformError as error:
        return [replace(problem, key=key) for problem in error.problems]
    return []


def _in_formats(job: Job, formats: dict[str, str]) -> Job:
    """The job with some formats changed; the others are those of the chip.  32-bit weights are their own masters."""
    if not formats or job.task is None:
        return job
    assert isinstance(job.chip, Chip)
    plan = replace(resolved_precision(task_on(job.task, job.chip)), **formats)
    if plan.master_weights is not None and bits(plan.weights) >= bits(plan.master_weights):
        plan = replace(plan, master_weights=None)
    return replace(job, task=replace(job.task, precision=plan))
