"""A Result's figures as rows of plain data: one function a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierform.simulation.result import Result

Rows = list[dict[str, Any]]


def _component(result: Result) -> Rows:
    return [
        {
            "component": name,
            "energy_J": energy,
            "operations": result.operations_by_component.get(name, 0.0),
            "utilization": result.utilization.get(name),
        }
        for name, energy in result.energy_J_by_component.items()
    ]


def _class(result: Result) -> Rows:
    return [
        {"class": name, "energy_J": energy, "operations": result.operations_by_operator.get(name, 0.0)}
        for name, energy in result.energy_J_by_operator.items()
    ]


def _part(result: Result) -> Rows:
    split = ((name.partition(": "), energy) for name, energy in result.energy_J_by_part.items())
    return [{"component": component, "part": part, "energy_J": energy} for (component, _, part), energy in split]


def _tile(result: Result) -> Rows:
    rows: Rows = [{"tile": number, "energy_J": energy} for number, energy in enumerate(result.energy_J_by_tile)]
    if result.thermal:
        for row, kelvin, watts in zip(
            rows, result.thermal["tile_temperature_K"], result.thermal["tile_power_W"], strict=True
        ):
            row |= {"temperature_K": kelvin, "power_W": watts}
    return rows


def _limit(result: Result) -> Rows:
    return [
        {"stage": limit.stage, "seconds": limit.seconds, "resource": name, "gain_s": gain}
        for limit in result.limits
        for name, gain in limit.gains_s.items()
    ]


ROWS: dict[str, Callable[[Result], Rows]] = {
    "operator": lambda result: [asdict(row) for row in result.operators],
    "component": _component,
    "class": _class,
    "stage": lambda result: [asdict(row) for row in result.stages],
    "part": _part,
    "tile": _tile,
    "limit": _limit,
    "assumption": lambda result: [asdict(row) for row in result.assumptions],
}
