"""What the hardware studies share: chips with single values exchanged, sweeps that note what does not fit, ratios.

A point that a chip cannot run (the model does not fit, the sequence is too long for the model) is kept with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from tierform.chip.description import Chip, load_chip
from tierform.errors import TierformError
from tierform.provenance import Assumption, Constant, assumptions_first
from tierform.simulation.result import Result
from tierform.simulation.simulate import simulate
from tierform.studies.study import Cell, Table
from tierform.workload import FineTuning, Inference, LoRA, Task
from tierform.workload.precision import PrecisionPlan

TASKS = ("inference", "fine-tuning")
RANK = 32


def task_of(kind: str, batch: int, sequence: int, precision: PrecisionPlan | None = None) -> Task:
    """Inference of whole sequences, or one step of LoRA (rank 32 on W_Q and W_V); precision as the chip's if None."""
    made: Task
    if kind == "inference":
        made = Inference(batch=batch, sequence=sequence)
    else:
        made = FineTuning(method=LoRA(RANK, ("q", "v")), batch=batch, sequence=sequence)
    return replace(made, precision=precision) if precision else made


def what_if(value: float, unit: str) -> Constant:
    """A value of a sensitivity table."""
    return Constant(value, unit, "assumed", note="varied by the study")


def changed(chip: Chip, component: str, units: int | None = None, **values: Any) -> Chip:
    """The chip with another number of units of a component, or other values of its parameters."""
    part: Any = chip.components[component]
    parameters = part.parameters.model_copy(update=values)
    built = type(part).build(component, units or part.units, parameters)
    return replace(chip, components={**chip.components, component: built})


def slower_software(gpu: Chip, seconds: float, *, fused: bool = False) -> Chip:
    """A GPU whose software spends so much more time on each kernel, and fuses operators or runs each as a kernel."""
    name = next(iter(gpu.components))
    p: Any = getattr(gpu.components[name], "parameters")
    launch: dict[str, Any] = {"launch": what_if(p.launch.value + seconds, "s")}
    if not fused:
        launch["fusion"] = False
    if p.products is not None:
        cycles = what_if(p.products.launch.value + seconds * p.clock.value, "1")
        launch["products"] = p.products.model_copy(update={"launch": cycles})
    return changed(gpu, name, **launch)


@dataclass(frozen=True, slots=True)
class Point:
    """One model, task and size on several chips: results by chip, or why there is none."""

    model: str
    kind: str
    batch: int
    sequence: int
    results: dict[str, Result]
    refused: dict[str, str]

    def ratio(self, chip: str, reference: str, figure: str) -> float | None:
        """How many times more of `figure` the chip takes than the reference; None where one of them did not run."""
        if chip not in self.results or reference not in self.results:
            return None
        return float(getattr(self.results[chip], figure) / getattr(self.results[reference], figure))

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.model}, {self.kind}, batch {self.batch}, {self.sequence} tokens"


def run_point(model: str, kind: str, batch: int, sequence: int, chips: Iterable[Chip]) -> Point:
    """The point on every chip."""
    results: dict[str, Result] = {}
    refused: dict[str, str] = {}
    for chip in chips:
        try:
            results[chip.name] = simulate(model, task_of(kind, batch, sequence), chip)
        except TierformError as error:
            refused[chip.name] = error.problems[0].what.split(" (")[0]
    return Point(model, kind, batch, sequence, results, refused)


def points_table(title: str, points: Iterable[Point], chips: Iterable[str], note: str) -> Table:
    """Time and energy of each point on each chip."""
    rows: list[tuple[Cell, ...]] = []
    for point in points:
        for chip in chips:
            found = point.results.get(chip)
            rows.append(
                (point.label, chip, *(_figures(found) if found else (None,) * 5), "" if found else point.refused[chip])
            )
    head = ("point", "chip", "time (ms)", "energy (mJ)", "power (W)", "rate (TOP/s)", "peak (degC)", "not run because")
    return Table(title, head, tuple(rows), note)


def _figures(result: Result) -> tuple[float, ...]:
    return (
        1e3 * result.latency_s,
        1e3 * result.energy_J,
        result.average_power_W,
        result.operations / result.latency_s / 1e12,
        peak_C(result),
    )


def peak_C(result: Result) -> float:
    """The hottest tile in degrees Celsius."""
    return float(result.thermal["peak_K"]) - 273.15 if result.thermal else math.nan


def verdict(published: Cell, here: float | None, holds: bool | None = None) -> str:
    """What a figure says of the published one: a number agrees within a quarter of it; a claim `holds` or does not."""
    if published is None:
        return ""
    if here is None:
        return "not run"
    if not isinstance(published, float):
        return "" if holds is None else "holds" if holds else "does not hold"
    ratio = here / published
    if 1 / 1.25 <= ratio <= 1.25:
        return "agrees"
    return f"{1 / ratio:.3g} times short" if ratio < 1 else f"{ratio:.3g} times beyond"


def best(points: Iterable[Point], chip: str, reference: str, figure: str) -> tuple[float, str] | None:
    """The largest ratio over the points and where it is."""
    found = [(ratio, p.label) for p in points if (ratio := p.ratio(chip, reference, figure)) is not None]
    return max(found, default=None)


def mean(points: Iterable[Point], chip: str, reference: str, figure: str) -> float | None:
    """The geometric mean of the ratios."""
    found = [ratio for p in points if (ratio := p.ratio(chip, reference, figure)) is not None]
    return math.exp(sum(map(math.log, found)) / len(found)) if found else None


def slope(bits: Iterable[int], energy: Iterable[float]) -> tuple[float, float]:
    """Least-squares slope of energy over bits, both as fractions of their largest, and R squared."""
    xs, ys = list(bits), list(energy)
    x = [one / max(xs) for one in xs]
    y = [one / max(ys) for one in ys]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    sxx = sum((one - mx) ** 2 for one in x)
    sxy = sum((one - mx) * (other - my) for one, other in zip(x, y, strict=True))
    syy = sum((one - my) ** 2 for one in y)
    return sxy / sxx, sxy * sxy / (sxx * syy) if syy else 1.0


def evidence(chips: Iterable[str | Chip]) -> tuple[Assumption, ...]:
    """Every assumed constant of the chips, weakest evidence first."""
    loaded = [chip if isinstance(chip, Chip) else load_chip(chip) for chip in chips]
    lines = [replace(line, subject=f"{chip.name}: {line.subject}") for chip in loaded for line in chip.assumptions()]
    return tuple(line for line in assumptions_first(lines) if line.kind == "assumed")
