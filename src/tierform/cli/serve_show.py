"""What people see of ``tierform serve``: a run on one screen, and rows of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tierform.cli.output import console, print_table
from tierform.cli.serve_fleet import show_fleet
from tierform.units import format_quantity

if TYPE_CHECKING:
    from tierform.serving.service import Service

TIMES = (("TTFT", "ttft_s"), ("TPOT", "tpot_s"), ("end to end", "e2e_s"), ("in the queue", "queue_s"))


def candidate(one: Any) -> list[str]:
    """A row of the table of a search for the cheapest."""
    figures = one.service.to_dict()
    power, token = figures["average_power_W"], figures["energy_J_per_output_token"]
    return [
        one.chip,
        f"{one.replicas} x {one.tensor}",
        str(one.sequences),
        f"{figures['within_slo']:.1%}",
        f"{token:.3g}" if token else "-",
        format_quantity(power, "W", 3) if power else "-",
        format_quantity(one.area_m2 * one.chips, "m2", 3),
        f"{one.price_per_h * one.chips:.4g}" if one.price_per_h is not None else "-",
    ]


def show(made: Service) -> None:
    """Print a Service for people."""
    figures: dict[str, Any] = made.to_dict()
    counts = ", ".join(f"{number:,} {name}" for name, number in figures["counts"].items())
    console().print(f"{made.model} on {_machines(made, figures)}", style="bold")
    console().print(f"{figures['requests']:,} requests ({made.source}): {counts}")
    rows = [_times(name, figures[key]) for name, key in TIMES]
    print_table("What a request waits for", ["", "mean", "median", "90 %", "95 %", "99 %"], rows)
    energy = figures["energy_J"]
    lines = [
        ["time", format_quantity(figures["seconds"], "s")],
        ["requests a second", f"{figures['requests_per_s']:.4g}"],
        ["output tokens a second", f"{figures['output_tokens_per_s']:,.1f}"],
        ["energy of an output token", format_quantity(figures["energy_J_per_output_token"], "J") if energy else "-"],
        ["mean power, all chips", format_quantity(figures["average_power_W"], "W") if energy else "-"],
        ["a replica is busy", f"{figures['busy_share']:.1%}"],
        ["preemptions", f"{figures['preemptions']:,}"],
        ["prompt tokens found in the cache", f"{figures['prefix_hit_share']:.1%}"],
        ["KV blocks of a replica", f"{figures['engine']['num_gpu_blocks']:,}"],
    ]
    if str(made.slo) != "none":
        good = f"{figures['within_slo']:.1%}, {figures['goodput_per_s']:.4g} a second"
        lines.insert(3, [f"within the SLO ({made.slo})", good])
    print_table("In all", ["", ""], lines)
    show_fleet(made)
    for note in figures["notes"]:
        console().print(f"note: {note}")


def _times(name: str, found: dict[str, float | None]) -> list[str]:
    return [name, *("-" if value is None else format_quantity(value, "s") for value in found.values())]


def _machines(made: Service, figures: dict[str, Any]) -> str:
    """How many of which chips, in how many replicas: "2 x h100 and 1 x attacc-like, 3 replicas"."""
    replicas = int(figures["replicas"])
    pools: Any = made.more.get("pools", ())
    each = made.chips // max(1, replicas)
    chips = " and ".join(f"{pool['replicas'] * each} x {pool['chip']}" for pool in pools)
    return f"{chips or f'{made.chips} x {made.chip}'}, {replicas:,} replica{'' if replicas == 1 else 's'}"
