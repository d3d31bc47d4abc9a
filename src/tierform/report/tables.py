"""A Result as tables of text: what the command line prints and the HTML page shows.  Nothing is computed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tierform.provenance import Assumption
from tierform.simulation.result import Result
from tierform.units import format_quantity


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table of text cells; the first column is the label."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def all_tables(result: Result) -> list[Table]:
    """Every table of a Result, in reading order; those without rows are left out."""
    tables = [summary(result), stages(result), components(result), operator_classes(result), memory(result)]
    tables += [wear(result), heat(result)]
    return [table for table in tables if table.rows]


def summary(result: Result) -> Table:
    """The headline figures."""
    rows = [
        ("time", format_quantity(result.latency_s, "s")),
        ("energy", format_quantity(result.energy_J, "J")),
        ("energy-delay product", format_quantity(result.energy_delay_product_Js, "Js")),
        ("mean power", format_quantity(result.average_power_W, "W")),
        ("silicon area", format_quantity(result.area_m2, "m2")),
        *([("chips", _chips(result))] if result.chips > 1 else []),
        ("arithmetic operations", format_quantity(result.operations, "OP")),
        ("parameters", f"{format_quantity(result.parameters, '')} ({_learning(result)})"),
    ]
    names = {
        "time_to_first_token_s": ("time to first token", "s"),
        "time_per_output_token_s": ("time per output token", "s"),
        "prefill_tokens_per_s": ("prefill rate", "token/s"),
        "decode_tokens_per_s": ("decode rate", "token/s"),
        "training_tokens_per_s": ("training rate", "token/s"),
    }
    for key, (label, unit) in names.items():
        if key in result.throughput:
            rows.append((label, format_quantity(result.throughput[key], unit)))
    if result.flops_utilization and "training_tokens_per_s" in result.throughput:
        model, hardware = result.flops_utilization["model"], result.flops_utilization["hardware"]
        again = f" ({hardware:.1%} with what is run again)" if hardware > model * 1.0005 else ""
        rows.append(("model FLOPs utilization", f"{model:.1%}{again}"))
    if result.communication:
        busy, exposed = result.communication["busy_s"], result.communication["exposed_s"]
        text = f"{format_quantity(exposed, 's')} of {format_quantity(busy, 's')}, {exposed / result.latency_s:.1%}"
        rows.append(("communication exposed", f"{text} of the time"))
    if result.crossbars:
        used, available = result.crossbars["used"], result.crossbars["available"]
        text = f"{used:,} of {available:,} hold weights ({used / available:.1%})"
        if result.crossbars["streamed"]:
            text += f"; {result.crossbars['streamed']:,} are streamed"
        rows.append(("crossbars", text))
        share = sum(value for name, value in result.operation_share.items() if name == holder(result))
        rows.append(("share of operations in crossbars", f"{share:.2%} (as published for Atleus: forward, layers)"))
    return Table("Result", ("", ""), tuple(rows))


def _chips(result: Result) -> str:
    ways = ", ".join(f"{name} {count}" for name, count in result.parallelism.items() if count > 1)
    return f"{result.chips} ({ways})"


def holder(result: Result) -> str:
    """The component that holds static weights, by its share of crossbar energy; empty without crossbars."""
    for name in result.energy_J_by_part:
        component, _, part = name.partition(": ")
        if part in ("crossbar", "programming"):
            return component
    return ""


def _learning(result: Result) -> str:
    if not result.trainable_parameters:
        return "none learn"
    return f"{format_quantity(result.trainable_parameters, '')} learn"


def stages(result: Result) -> Table:
    """Time and energy by stage; runs of decode steps in one line."""
    merged: dict[str, list[float]] = {}
    for stage in result.stages:
        name = stage.name.split("[")[0]
        entry = merged.setdefault(name, [0.0, 0.0, 0.0])
        entry[0] += stage.latency_s
        entry[1] += stage.energy_J
        entry[2] += stage.repeat
    rows = tuple(
        (
            name,
            f"{passes:g}",
            format_quantity(seconds, "s"),
            _share(seconds, result.latency_s),
            format_quantity(energy, "J"),
            _share(energy, result.energy_J),
        )
        for name, (seconds, energy, passes) in merged.items()
    )
    return Table("By stage", ("stage", "passes", "time", "share", "energy", "share"), rows)


def components(result: Result) -> Table:
    """Operations, energy and utilization by component."""
    rows = tuple(
        (
            name,
            format_quantity(result.operations_by_component.get(name, 0.0), "OP"),
            _share(result.operations_by_component.get(name, 0.0), sum(result.operations_by_component.values())),
            format_quantity(energy, "J"),
            _share(energy, result.energy_J),
            f"{result.utilization[name]:.1%}" if name in result.utilization else "",
        )
        for name, energy in sorted(result.energy_J_by_component.items(), key=lambda item: -item[1])
    )
    return Table("By component", ("component", "operations", "share", "energy", "share", "busy"), rows)


def operator_classes(result: Result) -> Table:
    """Operations and energy by operator class."""
    rows = tuple(
        (
            name,
            format_quantity(result.operations_by_operator.get(name, 0.0), "OP"),
            format_quantity(energy, "J"),
            _share(energy, result.energy_J),
        )
        for name, energy in sorted(result.energy_J_by_operator.items(), key=lambda item: -item[1])
    )
    return Table("By operator class", ("class", "operations", "energy", "share"), rows)


def memory(result: Result) -> Table:
    """Footprint by part and where it waits."""
    rows = []
    for part, size in result.memory_footprint_B.items():
        if size:
            placed = result.memory_placement_B.get(part, {})
            where = ", ".join(f"{name} {format_quantity(share, 'B')}" for name, share in placed.items())
            rows.append((part.replace("_", " "), format_quantity(size, "B"), where or "on the chip"))
    rows.append(("total", format_quantity(sum(result.memory_footprint_B.values()), "B"), ""))
    moved = result.memory_read_B + result.memory_write_B
    rows.append(("traffic", format_quantity(moved, "B"), f"{_share(result.memory_read_B, moved)} of it read"))
    for name, spilled_B in result.memory_spill_B.items():
        rows.append((f"spilled, traffic with {name}", format_quantity(spilled_B, "B"), "did not fit nearer"))
    return Table("Memory", ("part", "size", "waits in"), tuple(rows))


def wear(result: Result) -> Table:
    """Writes to non-volatile cells and the lifetime they leave."""
    if not result.crossbars:
        return Table("Wear", ("", ""), ())
    if not result.wear.cell_writes:
        return Table("Wear", ("", ""), (("cell writes", "0: no crossbar is written during the task"),))
    lifetime_s = result.wear.lifetime_s or 0.0
    shown = f"{lifetime_s / 86400:.3g} days" if lifetime_s >= 86400 else format_quantity(lifetime_s, "s")
    rows = (
        ("cell writes", format_quantity(result.wear.cell_writes, "")),
        ("most writes of one cell", f"{result.wear.writes_per_cell:.4g}"),
        ("endurance", f"{result.wear.endurance_writes:.3g} writes"),
        ("lifetime at this rate", f"{result.wear.lifetime_tasks or 0:.4g} tasks, {shown}"),
    )
    return Table("Wear", ("", ""), rows)


def heat(result: Result) -> Table:
    """Temperatures by die, when a thermal model was asked for."""
    if not result.thermal:
        return Table("Temperature", ("", ""), ())
    rows = tuple(
        (
            die["name"],
            format_quantity(die["mean_K"], "K"),
            format_quantity(die["peak_K"], "K"),
            format_quantity(die["power_W"], "W"),
            die.get("limit_text", ""),
        )
        for die in result.thermal["dies"]
    )
    return Table("Temperature", ("die", "mean", "hottest tile", "power", "limit"), rows)


def operators(result: Result, most: int = 12) -> Table:
    """The operators with the most busy time."""
    sums: dict[tuple[str, str, str], list[float]] = {}
    for row in result.operators:
        entry = sums.setdefault((row.stage.split("[")[0], row.name, row.component), [0.0, 0.0, 0.0])
        entry[0] += row.times
        entry[1] += row.busy_s
        entry[2] += row.energy_J
    ranked = sorted(sums.items(), key=lambda item: -item[1][1])[:most]
    rows = tuple(
        (stage, name, component, f"{times:,.0f}", format_quantity(busy, "s"), format_quantity(energy, "J"))
        for (stage, name, component), (times, busy, energy) in ranked
    )
    head = ("stage", "operator", "component", "times", "busy time", "energy")
    return Table(f"Operators with the most busy time (of {len(sums)})", head, rows)


def assumptions(lines: Sequence[Assumption], kinds: Sequence[str] = ("assumed", "fitted")) -> Table:
    """The constants of the given kinds, with why or whence."""
    rows = tuple(
        (line.subject, line.value, line.kind, "; ".join(text for text in (line.note, line.source) if text))
        for line in lines
        if line.kind in kinds
    )
    return Table(f"Assumptions ({', '.join(kinds)})", ("what", "value", "kind", "why, source"), rows)


def comparison(results: Sequence[Result]) -> Table:
    """The headline figures side by side; ratios are against the last column, the baseline."""
    base = results[-1]
    names = [result.chip for result in results]
    figures = [
        ("time", [r.latency_s for r in results], "s"),
        ("energy", [r.energy_J for r in results], "J"),
        ("energy-delay product", [r.energy_delay_product_Js for r in results], "Js"),
        ("mean power", [r.average_power_W for r in results], "W"),
        ("silicon area", [r.area_m2 for r in results], "m2"),
        ("memory footprint", [float(sum(r.memory_footprint_B.values())) for r in results], "B"),
        ("cell writes", [float(r.crossbar_writes) for r in results], ""),
    ]
    rows = [(label, *(format_quantity(v, unit) for v in values)) for label, values, unit in figures]
    rows.append((f"speed-up over {base.chip}", *(_ratio(base.latency_s, r.latency_s) for r in results)))
    rows.append((f"energy saving over {base.chip}", *(_ratio(base.energy_J, r.energy_J) for r in results)))
    rows.append(
        (
            f"energy-delay gain over {base.chip}",
            *(_ratio(base.energy_delay_product_Js, r.energy_delay_product_Js) for r in results),
        )
    )
    return Table("Side by side", ("", *names), tuple(rows))


def _ratio(base: float, value: float) -> str:
    return f"{base / value:.3g}x" if value else "-"


def _share(value: float, total: float) -> str:
    return f"{value / total:.1%}" if total else ""
