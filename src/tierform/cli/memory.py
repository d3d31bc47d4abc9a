"""``tierform memory``: run a DRAMsim3 trace, on DRAMsim3's own configuration or on a memory of the library."""

from __future__ import annotations

from pathlib import Path

import click

from tierform.cli.output import console, json_option, print_table
from tierform.errors import fail
from tierform.files import write_json, write_text
from tierform.units import format_quantity


@click.command("memory")
@click.option("--config", type=click.Path(path_type=Path), help="A DRAMsim3 configuration (.ini).")
@click.option("--memory", "name", help="A memory of the library instead, such as ddr5-4800 or hbm2.")
@click.option("--trace", type=click.Path(path_type=Path), required=True, help="Requests: 0xADDRESS READ|WRITE CYCLE.")
@click.option("--cycles", type=int, help="Simulate this many clock cycles (default: until the trace is done).")
@click.option("--wrap", is_flag=True, help="Take addresses beyond the capacity modulo the capacity.")
@click.option("--commands", type=click.Path(path_type=Path), help="Write every DRAM command to this text file.")
@json_option
def command(
    config: Path | None,
    name: str | None,
    trace: Path,
    cycles: int | None,
    wrap: bool,
    commands: Path | None,
    json_file: Path | None,
) -> int:
    """Simulate DRAM cycle by cycle and print bandwidth, latency and energy."""
    if (config is None) == (name is None):
        fail("give either --config FILE or --memory NAME")
    if cycles is not None and cycles < 1:
        fail("at least one cycle must be simulated", key="--cycles", value=cycles)
    from tierform.compat.dramsim.configuration import read_ini
    from tierform.compat.dramsim.trace import read_trace
    from tierform.memory.standard import load_dram

    spec = read_ini(config) if config is not None else load_dram(str(name))
    requests = read_trace(trace)
    from tierform.memory.cycle import CycleMemory

    memory = CycleMemory(spec)
    memory.check_addresses(requests, wrap, str(trace))
    with console().status("simulating"):
        result = memory.run(requests, cycles, wrap=wrap, log_commands=8 * len(requests) + 1024 if commands else 0)
    reads = max(1, result.read_commands)
    rows = [
        ["simulated", f"{result.cycles} cycles of {format_quantity(spec.clock_s, 's')}"],
        ["requests done", f"{result.reads} reads, {result.writes} writes"],
        ["bandwidth", format_quantity(result.bandwidth_B_per_s, "B/s")],
        ["  of the peak", f"{result.bandwidth_B_per_s / spec.channel_peak_B_per_s / spec.channels * 100:.1f} %"],
        [
            "average read latency",
            f"{result.average_read_latency_cycles:.2f} cycles, "
            f"{format_quantity(result.average_read_latency_cycles * spec.clock_s, 's')}",
        ],
        ["read row hits", f"{result.read_row_hits} ({result.read_row_hits / reads * 100:.1f} %)"],
        ["activations", str(result.activations)],
        ["refreshes", str(result.refreshes + result.bank_refreshes)],
        ["energy", format_quantity(result.energy_J, "J")],
        *([f"  {part}", format_quantity(value, "J")] for part, value in result.energy_by_part_J.items()),
        ["average power", format_quantity(result.energy_J / result.time_s, "W")],
        ["CPU time", format_quantity(result.cpu_s, "s")],
    ]
    organization = f"{spec.channels} channels of {spec.ranks} ranks of {spec.devices_per_rank} devices"
    print_table(f"{spec.title} ({organization})", ["figure", "value"], rows, left=2)
    if commands is not None and result.log is not None:
        write_text(commands, "\n".join(result.log.lines()) + "\n")
    if json_file:
        write_json(json_file, result.to_dict())
    return 0
