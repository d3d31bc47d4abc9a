"""``tierform systolic``: SCALE-Sim's files in, its report's columns out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tierform.cli.output import InputPath, OutputFolder, console, json_option, print_table
from tierform.errors import fail, note
from tierform.files import make_folder, write_json, write_text

if TYPE_CHECKING:
    from tierform.compat.scalesim.files import Configuration, LayerShape
    from tierform.compat.scalesim.report import Report
    from tierform.memory.cycle import CycleMemory

_OVERLAPS = ["serial", "double-buffered", "pipelined"]


@click.command("systolic")
@click.option("-c", "configuration", type=InputPath(), required=True, help="SCALE-Sim configuration (.cfg).")
@click.option(
    "-t", "topology", type=InputPath(), required=True, help="SCALE-Sim topology (.csv): products or convolutions."
)
@click.option("-i", "kind", type=click.Choice(["gemm", "conv"]), help="What the topology holds; told by its columns.")
@click.option("--compat", is_flag=True, help="Count as SCALE-Sim v3 does, instead of as the hardware does.")
@click.option(
    "-l", "--layout", "layout", type=InputPath(), help="SCALE-Sim 3 layout (.csv) of the SRAM, for bank conflicts."
)
@click.option("--dram", metavar="MEMORY", help="Latencies of this DRAM: a library memory or a DRAMsim3 file.")
@click.option("--dram-latencies", type=InputPath(), help="Latencies of the DRAM from SCALE-Sim's .npy files.")
@click.option("--overlap", type=click.Choice(_OVERLAPS), help="What the hardware hides (default double-buffered).")
@click.option("--arrays", type=click.IntRange(1, 4096), default=1, help="So many equal arrays share each layer.")
@click.option("--process", "process", metavar="NODE", help="Also estimate energy and area at a node, such as 16nm.")
@click.option("-p", "reports", type=OutputFolder(), help="Write the report files here.")
@json_option
def command(
    configuration: Path,
    topology: Path,
    kind: str | None,
    compat: bool,
    layout: Path | None,
    dram: str | None,
    dram_latencies: Path | None,
    overlap: str | None,
    arrays: int,
    process: str | None,
    reports: Path | None,
    json_file: Path | None,
) -> None:
    """Cycles, stalls, utilization and accesses of a systolic array described by SCALE-Sim's files."""
    from tierform.compat.scalesim.files import read_configuration, read_topology

    if compat and overlap:
        fail("--overlap is for the hardware's accounting", key="--overlap", value=overlap, fix="Leave out --compat.")
    if compat and arrays > 1:
        fail("SCALE-Sim's accounting is of one array", key="--arrays", value=arrays, fix="Leave out --compat.")
    read = read_configuration(configuration)
    layers = read_topology(topology, kind, sparse=read.sparse)
    if compat:
        found = _as_scale_sim(layers, read, layout, dram, dram_latencies)
    else:
        for key, given in (("--layout", layout), ("--dram", dram), ("--dram-latencies", dram_latencies)):
            if given is not None:
                fail("belongs to SCALE-Sim's accounting", key=key, value=given, fix="Add --compat.")
        from tierform.compat.scalesim.hardware import hardware

        found = [hardware(layer, read, overlap or "double-buffered", arrays) for layer in layers]  # type: ignore[arg-type]
    costs = _costs(found, read, process, arrays) if process else {}
    if reports:
        _write_reports(found, read, make_folder(reports))
    if json_file:
        content = {
            "schema": "tierform.systolic/1",
            "accounting": "scale-sim-v3" if compat else "hardware",
            "array": [read.rows, read.columns],
            "arrays": arrays,
            "dataflow": read.dataflow,
            "layers": [
                {
                    "layer": r.layer.name,
                    "m": r.layer.m,
                    "n": r.layer.n,
                    "k": r.layer.k,
                    "count": r.layer.count,
                    **r.figures,
                }
                for r in found
            ],
            "estimate": costs,
        }
        write_json(json_file, content)
    _show(found, read, "SCALE-Sim v3" if compat else f"hardware, {overlap or 'double-buffered'}", arrays)
    if costs:
        rows = [[name, f"{value:.6g}"] for name, value in costs.items()]
        print_table(f"estimated at {process} (assumed scaling from 45 nm)", ["figure", "value"], rows)


def _as_scale_sim(
    layers: list[LayerShape], read: Configuration, layout: Path | None, dram: str | None, folder: Path | None
) -> list[Report]:
    """Every layer by SCALE-Sim's accounting, with the layout and the latencies that are asked for."""
    from tierform.compat.scalesim.accounting import scale_sim
    from tierform.compat.scalesim.buffers import Memory

    slow = read.dram_latencies and not read.calculate_bandwidth
    if slow and dram is None and folder is None:
        fix = "Give a memory with --dram, or SCALE-Sim's own files with --dram-latencies."
        fail("the configuration asks for latencies of the DRAM", key="UseRamulatorTrace", value=True, fix=fix)
    given = next((key for key, value in (("--dram", dram), ("--dram-latencies", folder)) if value is not None), None)
    if given and not slow:
        fix = "Set UseRamulatorTrace and InterfaceBandwidth: USER."
        fail("the configuration does not ask for latencies of the DRAM", key=given, fix=fix)
    arranged = None
    if layout is not None:
        from tierform.compat.scalesim.layout import read_layout

        arranged = read_layout(layout)
        if not any(read.layouts) or read.calculate_bandwidth:
            note("the layout changes no figure: the configuration has no custom layout behind a given bandwidth")
    engine = _dram(dram) if slow and dram is not None else None
    found = []
    number = 0
    for layer in layers:
        memory = Memory(arranged)
        if engine is not None:
            from tierform.compat.scalesim.dram import simulated_latencies

            memory = Memory(arranged, simulated_latencies(layer, read, engine, arranged))
        elif slow and folder is not None:
            from tierform.compat.scalesim.dram import read_latencies

            memory = Memory(arranged, read_latencies(folder, number))
        found.append(scale_sim(layer, read, memory))
        number += layer.count
    return found


def _dram(name: str) -> CycleMemory:
    from tierform.memory.cycle import CycleMemory

    if name.endswith(".ini"):
        from tierform.compat.dramsim.configuration import read_ini

        return CycleMemory(read_ini(name))
    from tierform.memory.standard import load_dram

    return CycleMemory(load_dram(name))


def _costs(found: list[Report], read: Configuration, node: str, arrays: int) -> dict[str, float]:
    """Energy of all layers (8-bit words) and area of the arrays with their SRAM."""
    from tierform.chip.process import load_process

    process = load_process(node)
    macs = sum(report.macs * report.layer.count for report in found)
    words = sum(report.sram_words * report.layer.count for report in found)
    sram_B = read.ifmap_words + read.filter_words + read.ofmap_words
    mac_J = macs * process.mac_energy()["int8"].value
    sram_J = words * process.sram_energy().value
    area = arrays * process.array_area_m2(read.rows * read.columns, sram_B)
    return {"mac_energy_J": mac_J, "sram_energy_J": sram_J, "energy_J": mac_J + sram_J, "area_m2": area}


def _show(found: list[Report], read: Configuration, accounting: str, arrays: int) -> None:
    from tierform.compat.scalesim.report import COMPUTE, SPARSE

    out = console()
    mode = "stall-free" if read.calculate_bandwidth else f"{read.ofmap_bandwidth} words a cycle"
    many = f"{arrays} arrays of " if arrays > 1 else ""
    out.print(
        f"{many}{read.rows} x {read.columns} elements, {read.dataflow}, {mode}; counted as: {accounting}",
        highlight=False,
    )
    shown = found if len(found) <= 60 else found[:60]
    head = ["layer", "with prefetch", "cycles", "stalls", "overall %", "mapping %", "compute %"]
    rows = [[_name(report), *(_number(report.figures[column]) for column in COMPUTE)] for report in shown]
    print_table("compute", head, rows)
    for level in ("SRAM", "DRAM"):
        rows = []
        for report in shown:
            for operand in ("IFMAP", "Filter", "OFMAP"):
                words = "Writes" if operand == "OFMAP" else "Reads"
                columns = (
                    f"{level} {operand} Start Cycle",
                    f"{level} {operand} Stop Cycle",
                    f"{level} {operand} {words}",
                    f"Avg {operand.upper()} {level} BW",
                )
                name = _name(report) if operand == "IFMAP" else ""
                rows.append([name, f"{operand} {words}", *(_number(report.figures[column]) for column in columns)])
        print_table(level, ["layer", "operand", "Start Cycle", "Stop Cycle", "words", "words/cycle"], rows, left=2)
    if read.sparse and all(name in report.figures for report in shown for name in SPARSE):
        rows = [[_name(report), *(_number(report.figures[column]) for column in SPARSE)] for report in shown]
        print_table(
            "sparse weights, words", ["layer", "dense", "packed + metadata", "metadata", "metadata/cycle"], rows
        )
    if len(shown) < len(found):
        out.print(f"... and {len(found) - len(shown)} more layers (--json has them all)", highlight=False)
    total = sum(report.figures["Total Cycles"] * report.layer.count for report in found)
    out.print(f"{len(found)} layers, {total:,.0f} cycles in all", highlight=False)
    if read.without_effect:
        out.print(f"- keys that change no figure here: {', '.join(read.without_effect)}", highlight=False)


def _name(report: Report) -> str:
    return report.layer.name + (f" (x {report.layer.count})" if report.layer.count > 1 else "")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.4f}"


def _write_reports(found: list[Report], read: Configuration, folder: Path) -> None:
    """The report files under SCALE-Sim's names; a depth-wise layer has a line for each channel."""
    from tierform.compat.scalesim.report import BANDWIDTH, COMPUTE, DETAIL, SPARSE

    bandwidth: tuple[str, ...] = BANDWIDTH
    sparse = read.sparse and "Original Filter Storage" in found[0].figures
    if sparse:  # the metadata's column stands behind the weights'
        bandwidth = (*BANDWIDTH[:2], SPARSE[-1], *BANDWIDTH[2:])
    files = [("COMPUTE_REPORT", COMPUTE), ("BANDWIDTH_REPORT", bandwidth), ("DETAILED_ACCESS_REPORT", DETAIL)]
    if sparse:
        files.append(("SPARSE_REPORT", SPARSE))
    expanded = [report for report in found for _ in range(report.layer.count)]
    for name, columns in files:
        kind = f"{read.representation}, " if columns is SPARSE else ""
        lines = ["LayerID, " + ("Sparsity Representation, " if kind else "") + ", ".join(columns) + ","]
        for number, report in enumerate(expanded):
            lines.append(f"{number}, {kind}" + ", ".join(str(report.figures[column]) for column in columns) + ",")
        write_text(folder / f"{name}.csv", "\n".join(lines) + "\n")
