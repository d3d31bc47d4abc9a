"""How much time and energy change with each constant of the chip, by exact runs of the varied chip.

The elasticity of a figure is its relative change over that of the constant: -1 says that 1 % more takes 1 % off.  The
mapping stays that of the first run, so that what is measured is the constant and not another choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tierform.chip.description import Chip
from tierform.chip.parameters import constants
from tierform.errors import fail
from tierform.memory import MemoryDevice, load_memory
from tierform.provenance import Constant
from tierform.simulation.job import Job
from tierform.simulation.simulate import run_job
from tierform.units import format_quantity

STEP = 0.01


@dataclass(frozen=True, slots=True)
class Elasticity:
    """What 1 % more of a constant changes: relative changes of latency and energy over that of the constant."""

    path: str
    value: str
    constant: Constant
    latency: float
    energy: float


def elasticities(job: Job, paths: Sequence[str] = (), *, step: float = STEP) -> list[Elasticity]:
    """The elasticities of a job's latency and energy, the largest first.

    `paths` are those of :meth:`Chip.vary`; left out: every constant of the network and of the components.  `step` is
    the relative change of each run; widths in bit change by whole bits.  TierformError with unknown paths.
    """
    job = job.loaded()
    chip = job.chip
    assert isinstance(chip, Chip)
    if not 0 < step <= 1:
        fail("must be above 0 and at most 1", key="step", value=step)
    known = varied_constants(chip)
    for path in paths:
        if path not in known:
            fail("the chip has no constant at this path", value=path, choices=known)
    first = run_job(job)
    fixed = replace(job, mapping=first.mapping or "best")
    found = []
    for path in paths or known:
        constant = known[path]
        more = _more(constant, step)
        other = run_job(replace(fixed, chip=chip.vary({path: more})))
        ratio = math.log(more.value / constant.value)
        found.append(
            Elasticity(
                path=path,
                value=format_quantity(constant.value, constant.unit),
                constant=constant,
                latency=math.log(other.latency_s / first.latency_s) / ratio,
                energy=math.log(other.energy_J / first.energy_J) / ratio,
            )
        )
    return sorted(found, key=lambda one: -max(abs(one.latency), abs(one.energy)))


def assumed(job: Job) -> tuple[str, ...]:
    """The paths of the chip's constants that are assumed."""
    chip = job.loaded().chip
    assert isinstance(chip, Chip)
    return tuple(path for path, constant in varied_constants(chip).items() if constant.kind == "assumed")


def varied_constants(chip: Chip) -> dict[str, Constant]:
    """The constants of a chip's network, memory and components that can be made larger, by their paths.

    A memory's speed is among them: 1 where the file gives none.
    """
    if chip.origin is None:
        fail("only a chip that was read from a file can be varied", value=chip.name)
    found = dict(constants(chip.network, "network")) if chip.network else {}
    for index, behind in enumerate(chip.memory):
        if isinstance(load_memory(behind.device), MemoryDevice):
            found[f"memory.{index}.speed"] = behind.speed or Constant(1.0, "", "datasheet", note="the device's grade")
    for name, part in chip.origin.parts.items():
        found |= constants(part.parameters, f"components.{name}")
    return {path: constant for path, constant in found.items() if constant.value > 0}


def _more(constant: Constant, step: float) -> Constant:
    value = constant.value * (1 + step)
    if constant.unit == "bit":
        value = constant.value + max(1, round(constant.value * step))
    return Constant(value, constant.unit, "assumed", note="varied to see what it changes")
