"""``tierform memory``: run traces of requests on DRAMsim3's own configuration or on a memory of the library."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tierform.cli.output import InputPath, OutputFile, console, json_option, print_table
from tierform.errors import TierformError, fail
from tierform.files import write_json, write_text
from tierform.units import format_quantity

if TYPE_CHECKING:
    from tierform.memory.cycle import MemoryCycleResult, Trace
    from tierform.memory.spec import DramSpec


@click.command("memory")
@click.option("--config", type=InputPath(), help="A DRAMsim3 configuration (.ini).")
@click.option("--memory", "name", help="A memory of the library instead, such as ddr5-4800 or hbm2.")
@click.option(
    "--trace",
    "traces",
    type=InputPath(),
    required=True,
    multiple=True,
    help="Requests, DRAMsim3's or Ramulator's: '0xADDRESS READ|WRITE CYCLE', 'R|W|LD|ST ADDRESS'. May be repeated.",
)
@click.option("--per-channel", is_flag=True, help="One --trace for each channel; addresses count within the channel.")
@click.option("--issue", type=click.IntRange(1, 4096), default=1, help="Requests that a trace hands over in a cycle.")
@click.option("--cycles", type=int, help="Simulate this many clock cycles (default: until the trace is done).")
@click.option("--wrap", is_flag=True, help="Take addresses beyond the capacity modulo the capacity.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a value of --memory, such as nCL=16."
)
@click.option("--latencies", type=OutputFile(), help="Write every request with its latency to this CSV file.")
@click.option("--commands", type=OutputFile(), help="Write every DRAM command to this text file.")
@json_option
def command(
    config: Path | None,
    name: str | None,
    traces: tuple[Path, ...],
    per_channel: bool,
    issue: int,
    cycles: int | None,
    wrap: bool,
    settings: tuple[str, ...],
    latencies: Path | None,
    commands: Path | None,
    json_file: Path | None,
) -> int:
    """Simulate DRAM cycle by cycle and print bandwidth, latency, energy, and what limits them."""
    if (config is None) == (name is None):
        fail("give either --config FILE or --memory NAME")
    from tierform.memory.cycle.engine import MOST_CYCLES

    if cycles is not None and not 1 <= cycles <= MOST_CYCLES:
        fail(f"between 1 and {MOST_CYCLES:.0e} cycles are simulated", key="--cycles", value=cycles)
    spec = _spec(config, str(name), settings)
    requests = [_requests(path, spec) for path in traces]
    from tierform.memory.cycle import CycleMemory

    memory = CycleMemory(spec)
    if per_channel and len(requests) != spec.channels:
        fix = f"Give --trace {spec.channels} times."
        fail(f"the memory has {spec.channels} channels", key="--per-channel", value=f"{len(requests)} traces", fix=fix)
    for path, trace in zip(traces, requests, strict=True):
        memory.check_addresses(trace, wrap, str(path), per_channel=per_channel)
    with console().status("simulating"):
        result = memory.run(
            requests,
            cycles,
            wrap=wrap,
            log_commands=8 * sum(map(len, requests)) + 1024 if commands else 0,
            issue=issue,
            per_channel=per_channel,
        )
    _show(result)
    if config is not None and cycles is not None and result.offer.left == 0:
        again = "DRAMsim3 offers the last address of a trace once more, as a read, at its end; here it ends"
        console().print(f"- {again}", highlight=False)
    if commands is not None and result.log is not None:
        write_text(commands, "\n".join(result.log.lines()) + "\n")
    if latencies is not None:
        write_text(latencies, _latency_table(requests, result))
    if json_file:
        write_json(json_file, result.to_dict())
    return 0


def _spec(config: Path | None, name: str, settings: tuple[str, ...]) -> DramSpec:
    if config is not None:
        if settings:
            fail("changes a memory of the library", key="--set", value=settings[0], fix="Edit the configuration.")
        from tierform.compat.dramsim.configuration import read_ini

        return read_ini(config)
    from tierform.memory.standard import load_dram

    changed: dict[str, int | str] = {}
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        if not equals or not value:
            fail("a setting is KEY=VALUE", key="--set", value=setting)
        changed[key] = int(value) if value.isascii() and value.isdigit() and len(value) < 16 else value
    if changed:
        load_dram(name)  # what is wrong with the library's own file or name is told as it is
    try:
        return load_dram(name, **changed)
    except TierformError as error:
        own = [one for one in error.problems if one.key in changed] or error.problems
        told = [replace(one, key=f"--set {one.key}" if one.key else "--set", file=None, line=None) for one in own]
        raise TierformError(told) from None


def _requests(path: Path, spec: DramSpec) -> Trace:
    """The requests of a file; its first line tells whose format it is."""
    from tierform.compat.dramsim import trace as dramsim
    from tierform.files import read_text

    text = read_text(path, dramsim.MAX_TRACE_BYTES)
    words = text[:4096].split("\n", 1)[0].split()
    if len(words) != 3:
        from tierform.compat.ramulator import is_ramulator_trace, parse_trace

        if is_ramulator_trace(text):
            return parse_trace(text, spec, str(path))
    return dramsim.parse_trace(text, str(path))


def _show(result: MemoryCycleResult) -> None:
    spec = result.spec
    reads = max(1, result.read_commands)
    latency = result.average_read_latency_cycles
    rows = [
        ["simulated", f"{result.cycles} cycles of {format_quantity(spec.clock_s, 's')}"],
        ["requests done", f"{result.reads} reads, {result.writes} writes"],
        ["bandwidth over the pins", format_quantity(result.bandwidth_B_per_s, "B/s")],
        ["  of the peak", f"{result.bandwidth_B_per_s / result.peak_B_per_s * 100:.1f} %"],
        ["  requests done, as DRAMsim3 counts", format_quantity(result.request_bandwidth_B_per_s, "B/s")],
        ["average read latency", f"{latency:.2f} cycles, {format_quantity(latency * spec.clock_s, 's')}"],
        ["read row hits", f"{result.read_row_hits} ({result.read_row_hits / reads * 100:.1f} %)"],
        ["activations", str(result.activations)],
        ["refreshes", str(result.refreshes + result.bank_refreshes)],
        *_managed(result),
        ["energy", format_quantity(result.energy_J, "J")],
        *([f"  {part}", format_quantity(value, "J")] for part, value in result.energy_by_part_J.items()),
        ["average power", format_quantity(result.energy_J / result.time_s, "W")],
        ["CPU time", format_quantity(result.cpu_s, "s")],
    ]
    organization = f"{spec.channels} channels of {spec.ranks} ranks of {spec.devices_per_rank} devices"
    print_table(f"{spec.title} ({organization})", ["figure", "value"], rows, left=2)
    out = console()
    out.print(f"- limited by {result.limit}", highlight=False)
    for note in spec.notes:
        out.print(f"- {note}", highlight=False)


def _managed(result: MemoryCycleResult) -> list[list[str]]:
    control = result.spec.controller
    rows = [["refresh managements", str(result.refresh_managements)]]
    if control.prac_threshold:
        rows.append(["row-hammer alerts", str(result.alerts)])
    return rows if control.rfm_threshold or control.prac_threshold else []


def _latency_table(traces: list[Trace], result: MemoryCycleResult) -> str:
    """A line for each request; accepted and latency are empty where the run ended before."""
    lines = ["trace,request,kind,address,cycle,accepted_cycle,latency_cycles,latency_ns"]
    clock_ns = result.spec.clock_s * 1e9
    accepted, latency = result.accepted_cycles.tolist(), result.latency_cycles.tolist()
    at = 0
    for number, trace in enumerate(traces):
        columns = (trace.is_write.tolist(), trace.address.tolist(), trace.cycle.tolist())
        for index, (write, address, cycle) in enumerate(zip(*columns, strict=True)):
            taken = str(accepted[at]) if accepted[at] >= 0 else ""
            took = f"{latency[at]},{latency[at] * clock_ns:.6g}" if latency[at] >= 0 else ","
            lines.append(f"{number},{index},{'write' if write else 'read'},{address:#x},{cycle},{taken},{took}")
            at += 1
    return "\n".join(lines) + "\n"
