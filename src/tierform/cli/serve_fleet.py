"""Options of ``tierform serve`` that say what happens to its replicas, read into a Fleet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from tierform.cli.output import console
from tierform.errors import Problem, TierformError, nearest
from tierform.units import format_quantity, parse_quantity

if TYPE_CHECKING:
    from tierform.serving.controls import Shedding
    from tierform.serving.fleet import Fleet
    from tierform.serving.service import Service

Command = Callable[..., object]
OPTIONS = (
    click.option(
        "--prefill-replicas",
        type=int,
        default=0,
        show_default=True,
        help="So many of the copies only compute prompts; the others go on from their keys and values.",
    ),
    click.option("--link", help="Bandwidth of one chip for keys and values that move.  [default: the chip's link]"),
    click.option("--fail", help="Copies that fail and are repaired, as 0@10s+60s,3@20s."),
    click.option("--autoscale", help="Copies by load, as least=1,up=64,down=16,start=60s,every=10s."),
    click.option("--shed", help="Weights by load, with perplexities, as bf16=6.24,int8=6.25,up=48,down=16."),
    click.option("--heat", help="Follow power and temperature over windows of this length, as 1s."),
    click.option("--limit", help="With --heat: above this temperature the clock falls, as 85degC."),
)


def fleet_options(command: Command) -> Command:
    """A command with these options."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def fleet_of(given: dict[str, Any]) -> Fleet | None:
    """The fleet that the options describe; None where they say nothing."""
    from tierform.serving.controls import parse_failures
    from tierform.serving.fleet import Fleet

    names = ("prefill_replicas", "link", "fail", "autoscale", "shed", "heat", "limit")
    if not any(given[name] for name in names):
        return None
    problems: list[Problem] = []

    def read(key: str, unit: str) -> float | None:
        if given[key] is None:
            return None
        try:
            return parse_quantity(given[key], unit, key=f"--{key}")
        except TierformError as error:
            problems.extend(error.problems)
            return None

    link, heat, limit = read("link", "B/s"), read("heat", "s"), read("limit", "K")
    failures: tuple[Any, ...] = ()
    scaling = shedding = None
    formats: tuple[str, ...] = ()
    try:
        formats, shedding = _shedding(given["shed"]) if given["shed"] else ((), None)
    except TierformError as error:
        problems += error.problems
    try:
        failures = parse_failures(given["fail"]) if given["fail"] else ()
    except TierformError as error:
        problems += error.problems
    try:
        scaling = _autoscaling(given["autoscale"]) if given["autoscale"] else None
    except TierformError as error:
        problems += error.problems
    if problems:
        raise TierformError(problems)
    return Fleet(
        prefill_replicas=given["prefill_replicas"],
        link_B_per_s=link,
        failures=failures,
        autoscaling=scaling,
        shedding=shedding,
        formats=formats,
        heat_window_s=heat,
        limit_K=limit,
    )


def _shedding(text: str) -> tuple[tuple[str, ...], Shedding]:
    """Formats of weights with their perplexities, and the loads at which fewer or more bits are read."""
    from tierform.serving.controls import Level, Shedding
    from tierform.workload.precision import bits

    settings = {"up": 48.0, "down": 16.0, "every": 1.0}
    levels: dict[str, float] = {}
    problems: list[Problem] = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, _, value = part.partition("=")
        try:
            number = parse_quantity(value, "s" if name == "every" else "", key=f"--shed {name}")
            if name in settings:
                settings[name] = number
            else:
                bits(name)
                levels[name] = number
        except TierformError as error:
            problems += [one if one.key else replace(one, key="--shed") for one in error.problems]
    if not problems and (len(levels) < 2 or list(levels) != sorted(levels, key=bits, reverse=True)):
        what = "two formats or more are needed, from the finest to the coarsest"
        problems.append(Problem(what, key="--shed", value=text, fix="Write bf16=6.24,int8=6.25,up=48,down=16."))
    if problems:
        raise TierformError(problems)
    found = [Level(name, perplexity) for name, perplexity in levels.items()]
    return tuple(levels), Shedding(found, settings["up"], settings["down"], settings["every"])


def _autoscaling(text: str) -> Any:
    from tierform.serving.controls import Autoscaling

    keys = {"least": "", "up": "", "down": "", "start": "s", "every": "s"}
    found: dict[str, float] = {}
    problems = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or name not in keys or name in found:
            what = "this stands twice" if name in found else "not a setting: write least=1,up=64,down=16,start=60s"
            problems.append(Problem(what, key="--autoscale", value=part, nearest=nearest(name, list(keys))))
            continue
        try:
            found[name] = parse_quantity(value, keys[name], key=f"--autoscale {name}")
        except TierformError as error:
            problems += error.problems
    if found.get("least", 1.0) % 1:
        problems.append(Problem("must be a whole number", key="--autoscale least", value=found["least"]))
    if problems:
        raise TierformError(problems)
    usual = Autoscaling()
    return Autoscaling(
        least=int(found.get("least", usual.least)),
        start_s=found.get("start", usual.start_s),
        every_s=found.get("every", usual.every_s),
        up=found.get("up", usual.up),
        down=found.get("down", usual.down),
    )


def show_fleet(made: Service) -> None:
    """Lines about the replicas over time, for people."""
    more: dict[str, Any] = made.more
    if "moved_kv_tokens" in more:
        console().print(f"{more['prefill_replicas']} prefill; KV of {more['moved_kv_tokens']:,} tokens moved")
    for when, replica, again in more.get("failures", ()):
        console().print(f"replica {replica} failed at {format_quantity(when, 's')}: {again:,} requests came again")
    if "replicas_over_time" in more:
        sizes = [size for _, size in more["replicas_over_time"]]
        hours = float(sum(made.array_of("on_s"))) / 3600
        console().print(f"replicas: {min(sizes)} to {max(sizes)}, {hours:.3g} replica-hours")
    if "pools" in more:
        for pool in more["pools"]:
            told = f"{pool['requests']:,} requests, {pool['tokens']:,} tokens, {format_quantity(pool['energy_J'], 'J')}"
            console().print(f"{pool['replicas']} x {pool['chip']}: {told}")
    if "swapped_kv_tokens" in more:
        console().print(f"KV of {more['swapped_kv_tokens']:,} tokens went to the host")
    if "drafted_tokens" in more:
        console().print(f"{more['drafted_tokens']:,} tokens drafted, {more['accepted_share']:.1%} of them accepted")
    if "adapters_loaded" in more:
        console().print(f"{more['adapters_loaded']:,} adapters loaded")
    if "lifetime_s" in more:
        years = more["lifetime_s"] / (365.25 * 86400)
        writes = more["writes_per_cell"]
        told = f"{writes:,.0f}" if writes >= 1000 else f"{writes:.3g}"
        console().print(f"cells last {years:.3g} years at this load ({told} writes a cell)")
    if "perplexity" in more:
        shares = ", ".join(f"{name} {tokens:,}" for name, tokens in more["tokens_by_level"].items())
        console().print(f"perplexity {more['perplexity']:.4g}; tokens by weights: {shares}")
    if "hottest_K" in more:
        clock = more["slowest_clock"]
        slow = f"; the clock fell to {clock:.0%}" if clock < 1 else ""
        console().print(f"hottest tile {format_quantity(more['hottest_K'], 'K')}{slow}")
