"""The numbers behind each picture, without a drawing library: every picture of a report can be had as plain figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tierform.simulation.result import Result

MOST_BARS = 12_000


@dataclass(frozen=True, slots=True)
class Stacked:
    """Parts by group: `values[part][group]` in `unit`."""

    title: str
    unit: str
    groups: tuple[str, ...]
    parts: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Roofline:
    """Points (operations per byte moved, operations per second) by name, and the roof where it is known."""

    names: tuple[str, ...]
    intensity_per_B: tuple[float, ...]
    rate_per_s: tuple[float, ...]
    peak_per_s: dict[str, float]
    bandwidth_B_per_s: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """Bars by resource: start and length in seconds, and what each is."""

    resources: tuple[str, ...]
    resource: tuple[str, ...]
    start_s: tuple[float, ...]
    length_s: tuple[float, ...]
    label: tuple[str, ...]
    layer: tuple[int, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class HeatMaps:
    """Temperatures in °C by die, rows from the south."""

    names: tuple[str, ...]
    maps_C: tuple[tuple[tuple[float, ...], ...], ...]


def energy_by_component(results: Sequence[Result]) -> Stacked:
    """Energy of each result by component."""
    return _stacked("Energy by component", "J", results, [r.energy_J_by_component for r in results])


def energy_by_operator(results: Sequence[Result]) -> Stacked:
    """Energy of each result by operator class."""
    return _stacked("Energy by operator class", "J", results, [r.energy_J_by_operator for r in results])


def time_by_stage(results: Sequence[Result]) -> Stacked:
    """Time of each result by stage; runs of decode steps are one."""
    sums = []
    for result in results:
        entry: dict[str, float] = {}
        for stage in result.stages:
            name = stage.name.split("[")[0]
            entry[name] = entry.get(name, 0.0) + stage.latency_s
        sums.append(entry)
    return _stacked("Time by stage", "s", results, sums)


def _stacked(title: str, unit: str, results: Sequence[Result], sums: Sequence[dict[str, float]]) -> Stacked:
    parts = tuple(dict.fromkeys(part for entry in sums for part in sorted(entry, key=lambda p: -entry[p])))
    values = tuple(tuple(entry.get(part, 0.0) for entry in sums) for part in parts)
    return Stacked(title, unit, tuple(result.chip for result in results), parts, values)


def roofline(result: Result) -> Roofline:
    """Each distinct operator's arithmetic intensity and rate."""
    points = result.roofline["operations_per_B_and_per_s"]
    return Roofline(
        tuple(points),
        tuple(point[0] for point in points.values()),
        tuple(point[1] for point in points.values()),
        dict(result.roofline.get("peak_per_s", {})),
        float(result.roofline.get("bandwidth_B_per_s", 0.0)),
    )


def timeline(result: Result, most: int = MOST_BARS) -> Timeline:
    """The first `most` bars; crossbars of one component share a row for each weight."""
    bars = sorted(result.timeline, key=lambda bar: bar.start_s)
    shown = bars[:most]
    rows = tuple(dict.fromkeys(bar.resource for bar in shown))
    return Timeline(
        resources=tuple(sorted(rows)),
        resource=tuple(bar.resource for bar in shown),
        start_s=tuple(bar.start_s for bar in shown),
        length_s=tuple(bar.end_s - bar.start_s for bar in shown),
        label=tuple(f"{bar.stage}: {bar.name}, layer {bar.layer}, micro-batch {bar.micro_batch}" for bar in shown),
        layer=tuple(bar.layer for bar in shown),
        left_out=len(bars) - len(shown),
    )


def heat_maps(result: Result) -> HeatMaps | None:
    """Steady temperature of every tile by die; None without a thermal result."""
    if not result.thermal:
        return None
    dies = result.thermal["dies"]
    return HeatMaps(
        tuple(die["name"] for die in dies),
        tuple(tuple(tuple(value - 273.15 for value in row) for row in die["map_K"]) for die in dies),
    )


@dataclass(frozen=True, slots=True)
class PackageSection:
    """A vertical cut through the package in °C: a row for each layer from the bottom up, equal steps over `width_m`."""

    layers: tuple[str, ...]
    width_m: float
    map_C: tuple[tuple[float, ...], ...]


def cross_section(result: Result) -> PackageSection | None:
    """The cut through the hottest place; None unless it was kept."""
    if not result.thermal or "cross_section" not in result.thermal:
        return None
    cut = result.thermal["cross_section"]
    rows = tuple(tuple(value - 273.15 for value in row) for row in cut["temperature_K"])
    return PackageSection(tuple(cut["layers"]), cut["width_m"], rows)


def temperature_over_time(result: Result) -> dict[str, list[float]] | None:
    """Time (s, key ``time_s``) and the hottest tile (°C) of each die; None without a transient."""
    if not result.thermal or "transient" not in result.thermal:
        return None
    run = result.thermal["transient"]
    lines = {name: [value - 273.15 for value in values] for name, values in run["peak_K_by_die"].items()}
    return {"time_s": run["time_s"], **lines}
