"""How much time, energy, area and heat change with each constant of the chip, by exact runs of the varied chip.

The elasticity of a figure is its relative change over that of the constant: -1 says that 1 % more takes 1 % off.  Of
the hottest tile it is kelvin for each 1 %.  The mapping stays that of the first run, so that what is measured is the
constant and not another choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tierform.chip.description import Chip
from tierform.chip.parameters import constants
from tierform.errors import fail
from tierform.memory import MemoryDevice, load_memory
from tierform.provenance import Constant
from tierform.simulation.heat import stack_of
from tierform.simulation.job import Job
from tierform.simulation.result import Result
from tierform.simulation.simulate import run_job
from tierform.thermal.stack import Sink
from tierform.units import format_quantity

STEP = 0.01


@dataclass(frozen=True, slots=True)
class Elasticity:
    """What 1 % more of a constant changes: relative changes of figures over that of the constant.

    `heat_K` is how much hotter the hottest tile gets with 1 % more; None where no temperature was simulated.
    """

    path: str
    value: str
    constant: Constant
    latency: float
    energy: float
    area: float
    heat_K: float | None


def elasticities(job: Job, paths: Sequence[str] = (), *, step: float = STEP) -> list[Elasticity]:
    """The elasticities of a job's latency, energy, area and heat, the largest of latency and energy first.

    `paths` are those of :meth:`Chip.vary`; left out: every constant of the network, the memory, the components and, of
    a job with heat, the sink.  `step` is the relative change of each run; widths in bit change by whole bits.
    TierformError with unknown paths.
    """
    return sorted(each_elasticity(job, paths, step=step), key=lambda one: -max(abs(one.latency), abs(one.energy)))


def each_elasticity(job: Job, paths: Sequence[str] = (), *, step: float = STEP) -> Iterator[Elasticity]:
    """As :func:`elasticities`, one after the other in the order of `paths`, each as soon as it is found."""
    job = job.loaded()
    chip = job.chip
    assert isinstance(chip, Chip)
    if not 0 < step <= 1:
        fail("must be above 0 and at most 1", key="step", value=step)
    known = varied_constants(chip, heat=job.thermal != "none")
    for path in paths:
        if path not in known:
            fail("the chip has no constant at this path", value=path, choices=known)
    first = run_job(job)
    fixed = replace(job, mapping=first.mapping or "best")
    for path in paths or known:
        constant = known[path]
        more = _more(constant, step)
        other = run_job(replace(fixed, chip=chip.vary({path: more})))
        ratio = math.log(more.value / constant.value)
        yield Elasticity(
            path=path,
            value=format_quantity(constant.value, constant.unit),
            constant=constant,
            latency=_relative(other.latency_s, first.latency_s) / ratio,
            energy=_relative(other.energy_J, first.energy_J) / ratio,
            area=_relative(other.area_m2, first.area_m2) / ratio,
            heat_K=_hotter_K(other, first, ratio),
        )


def _relative(other: float, first: float) -> float:
    """The logarithm of their ratio; 0 where the first run has none of it."""
    return math.log(other / first) if first > 0 and other > 0 else 0.0


def _hotter_K(other: Result, first: Result, ratio: float) -> float | None:
    if other.thermal is None or first.thermal is None:
        return None
    return float(other.thermal["peak_K"] - first.thermal["peak_K"]) / ratio * math.log1p(STEP)


def assumed(job: Job) -> tuple[str, ...]:
    """The paths of the chip's constants that are assumed."""
    job = job.loaded()
    assert isinstance(job.chip, Chip)
    known = varied_constants(job.chip, heat=job.thermal != "none")
    return tuple(path for path, constant in known.items() if constant.kind == "assumed")


def varied_constants(chip: Chip, *, heat: bool = True) -> dict[str, Constant]:
    """The constants of a chip's network, memory and components that can be made larger, by their paths.

    A memory's speed is among them: 1 where the file gives none.  With `heat` the heat sink's resistance, too: that of
    the thermal model where the file gives none.  Temperatures are not among them: 1 % of one has no meaning.
    """
    if chip.origin is None:
        fail("only a chip that was read from a file can be varied", value=chip.name)
    found = dict(constants(chip.network, "network")) if chip.network else {}
    for index, behind in enumerate(chip.memory):
        if isinstance(load_memory(behind.device), MemoryDevice):
            found[f"memory.{index}.speed"] = behind.speed or Constant(1.0, "", "datasheet", note="the device's grade")
    for name, part in chip.origin.parts.items():
        found |= constants(part.parameters, f"components.{name}")
    if heat:
        found |= _cooling(chip)
    return {path: constant for path, constant in found.items() if constant.value > 0}


def _cooling(chip: Chip) -> dict[str, Constant]:
    sink = stack_of(chip).top
    if not isinstance(sink, Sink):
        return {}
    default = Constant(sink.resistance_K_per_W, "K/W", "assumed", note="as the thermal model has it")
    return {"cooling.sink_resistance": chip.cooling.sink_resistance or default}


def _more(constant: Constant, step: float) -> Constant:
    value = constant.value * (1 + step)
    if constant.unit == "bit":
        value = constant.value + max(1, round(constant.value * step))
    return Constant(value, constant.unit, "assumed", note="varied to see what it changes")
