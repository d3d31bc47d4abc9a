"""What a Result answers first: a few headline figures, where time and energy go, and what limits each stage.

It fits a terminal's screen; all else is in :mod:`tierform.report.tables`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tierform.report.tables import Table, holder
from tierform.simulation.result import Result
from tierform.units import format_quantity

# What saves less than this share of a stage's time, or takes less of the energy, is not told.
_LEAST = 0.02
_MOST = 3
RATES = {
    "time_to_first_token_s": ("first token", "s"),
    "time_per_output_token_s": ("per token", "s"),
    "prefill_tokens_per_s": ("prefill", "token/s"),
    "decode_tokens_per_s": ("decode", "token/s"),
    "training_tokens_per_s": ("training", "token/s"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """`figures` are (label, value); `stages` says what limits each; `shares` are lines of (label, text)."""

    figures: tuple[tuple[str, str], ...]
    stages: Table
    shares: tuple[tuple[str, str], ...]


def answer(result: Result) -> Answer:
    """The answer to a job."""
    return Answer(_figures(result), _stages(result), _shares(result))


def _figures(result: Result) -> tuple[tuple[str, str], ...]:
    found = [
        ("time", format_quantity(result.latency_s, "s")),
        ("energy", format_quantity(result.energy_J, "J")),
        ("mean power", format_quantity(result.average_power_W, "W")),
    ]
    for key, (label, unit) in RATES.items():
        if key in result.throughput:
            found.append((label, format_quantity(result.throughput[key], unit)))
    found.append(("memory", format_quantity(sum(result.memory_footprint_B.values()), "B")))
    found.append(("silicon", format_quantity(result.area_m2, "m2")))
    if result.chips > 1:
        found.append(("chips", str(result.chips)))
        found.append(("links exposed", _share(result.communication["exposed_s"], result.latency_s)))
    if result.flops_utilization and "training_tokens_per_s" in result.throughput:
        found.append(("MFU", f"{result.flops_utilization['model']:.1%}"))
    if result.crossbars and result.crossbars["used"]:
        found.append(("crossbars", f"{result.crossbars['used'] / result.crossbars['available']:.1%} full"))
        share = sum(value for name, value in result.operation_share.items() if name == holder(result))
        found.append(("work in them", f"{share:.1%}"))
    # A temperature is told only where a limit is known: the cooling of most GPU boards is not described.
    limited = [die for die in (result.thermal or {}).get("dies", ()) if die["limit_K"] is not None]
    if result.thermal and limited:
        found.append(("hottest tile", format_quantity(result.thermal["peak_K"], "K")))
        room = min(die["limit_K"] - die["peak_K"] for die in limited)
        found.append(("below limit", f"{room:.1f} K" if room >= 0 else f"OVER by {-room:.1f} K"))
    if result.wear.cell_writes:
        lifetime_s = result.wear.lifetime_s or 0.0
        days = f"{lifetime_s / 86400:.3g} days" if lifetime_s >= 86400 else format_quantity(lifetime_s, "s")
        found.append(("cells last", days))
    return tuple(found)


def _stages(result: Result) -> Table:
    """Time and energy by stage, decode steps in one line; what limits it, and the time saved if that is free."""
    merged: dict[str, list[float]] = {}
    gains: dict[str, dict[str, float]] = {}
    for stage in result.stages:
        entry = merged.setdefault(stage.name.split("[")[0], [0.0, 0.0, 0.0])
        entry[0] += stage.latency_s
        entry[1] += stage.energy_J
        entry[2] += stage.repeat
    if result.has_limits:
        for limit in result.limits:
            own = gains.setdefault(limit.stage.split("[")[0], {})
            for name, gain_s in limit.gains_s.items():
                own[name] = own.get(name, 0.0) + gain_s
    steps = int(result.task.get("steps", 1))
    rows = tuple(
        (
            name,
            f"{passes:g}",
            format_quantity(seconds, "s"),
            _share(seconds, result.latency_s),
            format_quantity(energy, "J"),
            _share(energy, result.energy_J),
            _limits(gains.get(name, {}), seconds / steps),
        )
        for name, (seconds, energy, passes) in merged.items()
    )
    head = ("stage", "passes", "time", "share", "energy", "share", "limited by (saves)")
    return Table("", head, rows)


def _limits(gains: dict[str, float], seconds: float) -> str:
    told = sorted(((gain / seconds, name) for name, gain in gains.items() if seconds), reverse=True)[:2]
    return ", ".join(f"{name} {share:.0%}" for share, name in told if share >= _LEAST) or "dependencies"


def _shares(result: Result) -> tuple[tuple[str, str], ...]:
    energy = _largest(result.energy_J_by_component, result.energy_J)
    held = {name.replace("_", " "): float(size) for name, size in result.memory_footprint_B.items()}
    total = sum(held.values())
    found = [("energy", energy), ("memory", _largest(held, total))]
    for name, spilled_B in result.memory_spill_B.items():
        found.append((name, f"{format_quantity(spilled_B, 'B')} of traffic: it did not fit nearer"))
    return tuple((label, text) for label, text in found if text)


def _largest(parts: dict[str, float], total: float) -> str:
    ordered = sorted(((value, name) for name, value in parts.items() if value), reverse=True)
    told = [f"{name} {value / total:.0%}" for value, name in ordered[:_MOST] if value >= _LEAST * total]
    rest = sum(value for value, _ in ordered) - sum(value for value, _ in ordered[: len(told)])
    if told and rest >= _LEAST * total:
        told.append(f"{len(ordered) - len(told)} more {rest / total:.0%}")
    return ", ".join(told)


def _share(value: float, total: float) -> str:
    return f"{value / total:.0%}" if total else ""


def task_line(task: dict[str, Any]) -> str:
    """A task in a line."""
    if task["task"] == "Inference":
        parts = [f"inference, batch {task['batch']}, sequence {task['sequence']}"]
        if task["decode"]:
            parts.append(f"{task['decode']} tokens generated")
    elif task["task"] == "Step":
        groups = [f"{one['sequences']} x {one['new']} new after {one['past']}" for one in task["groups"]]
        parts = [f"one step of {', '.join(groups)} tokens"]
    else:
        method = task["method"]
        details = ", ".join(
            f"{key} {'+'.join(value) if isinstance(value, list) else value}"
            for key, value in method.items()
            if key != "name" and value != []
        )
        named = method["name"] + (f" ({details})" if details else "")
        kind = {"FineTuning": "fine-tuning", "Distillation": "distillation"}.get(str(task["task"]), "training")
        parts = [f"{kind} {named}, batch {task['batch']}, sequence {task['sequence']}, {task['steps']} step(s)"]
    precision = task["precision"]
    weights = precision["weights"]
    if precision["attention_weights"]:
        weights = f"{precision['attention_weights']} attention, {precision['ffn_weights']} FFN"
    parts.append(f"weights {weights}, activations {precision['activations']}")
    return "; ".join(parts)
