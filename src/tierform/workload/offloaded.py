"""Which parts of a task's memory are offloaded, as a task says it: see :mod:`tierform.simulation.offload`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierform.errors import Problem, nearest

if TYPE_CHECKING:
    from tierform.workload.task import Task

PAGED = "paged-optimizer"
_OPTIMIZER = ("optimizer_states", "master_weights")
# What a task calls a part -> the parts of the footprint.
OFFLOADS: dict[str, tuple[str, ...]] = {
    "weights": ("weights",),
    "kv-cache": ("kv_cache",),
    "gradients": ("gradients",),
    "optimizer": _OPTIMIZER,
    PAGED: _OPTIMIZER,
    "activations": ("activations",),
}
OF_INFERENCE = ("weights", "kv-cache")
OF_TRAINING = ("weights", "gradients", "optimizer", PAGED, "activations")


def parts_away(task: Task) -> tuple[str, ...]:
    """The parts of the footprint that a task offloads, each once."""
    chosen: tuple[str, ...] = getattr(task, "offload", ())
    return tuple(dict.fromkeys(part for name in chosen for part in OFFLOADS[name]))


def offload_problems(chosen: object, known: tuple[str, ...]) -> list[Problem]:
    """What of `chosen` cannot be offloaded."""
    if not isinstance(chosen, tuple):
        return [Problem("a list of parts is needed", key="offload", value=str(chosen))]
    problems = []
    for name in chosen:
        if name not in known:
            fix = f"Choose of {', '.join(known)}."
            near = nearest(str(name), known)
            problems.append(Problem("cannot be offloaded", key="offload", value=name, nearest=near, fix=fix))
    if PAGED in chosen and "optimizer" in chosen:
        what = "says that the optimizer's states leave only where they must, and that they leave"
        problems.append(Problem(what, key="offload", value=PAGED, fix="Give one of the two."))
    return problems
