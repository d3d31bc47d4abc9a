"""Memory against DRAMsim3, Ramulator 2, the data sheets' peak rates and closed forms.

Built in are tables of both simulators' results and the values of the two DRAMsim3 configurations.  With a folder, its
``*.ini``, ``dramsim3.csv`` and ``ramulator2.csv`` are used instead.  The traces are made anew by the same rule (100,000
requests of one burst; random ones by our own seed), so figures of random traffic agree statistically only: on one and
the same trace the counts are equal.  Agreement with a simulator is not truth.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tierform.compat.dramsim.configuration import read_ini, spec_of_sections
from tierform.errors import fail
from tierform.files import read_text, read_yaml
from tierform.memory.cycle import CONTROLLER_CYCLES, CycleMemory, DeviceTiming, MemoryCycleResult, Trace
from tierform.memory.spec import DramSpec
from tierform.memory.standard import dram_names, load_dram
from tierform.memory.traffic import requests, spacing_violations
from tierform.validation.ledger import EngineLedger, Point, Tolerance

_TABLES = Path(__file__).parent / "tables"
_REQUESTS = 100_000
_SEED = 1
_BANDWIDTH, _SPACED, _SATURATED, _ENERGY = (Tolerance(relative=value) for value in (0.03, 0.05, 0.10, 0.05))
_PEAK = Tolerance(relative=0.10)
_EXACT = Tolerance()
_REMARKS = (
    "Random traces use another seed than the reference; the counts are equal on one and the same trace.",
    "Average read latency counts from acceptance to the last beat, one controller cycle included, as DRAMsim3 does.",
    "DRAMsim3's energies are current x voltage x cycles; the reference is multiplied by the clock period. VPP and "
    "interface energy are not in them.",
    "The two simulators disagree on a DDR4-2400 read stream (14.9 and 18.3 GB/s): DRAMsim3's mapping puts it into one "
    "bank group (nCCDL), Ramulator's test rotates it through all banks (nCCDS). We follow the mapping that is given; "
    "the library's mappings rotate through the bank groups.",
    "They disagree on what latency is: Ramulator's probe of an idle bank is nRP + nRCD + nCL + nBL and a few cycles, "
    "DRAMsim3's spaced requests include refresh and bank conflicts. We count as DRAMsim3 does.",
    "HBM2E and HBM3 refresh bank by bank; with all-bank refresh their streams reach 90 % and 89.7 % of the peak, for "
    "350 ns of every 3.9 µs go to refresh.",
)


def ledger(folder: Path | None = None) -> EngineLedger:
    """Every point computed anew; see the module's text."""
    points = [*_dramsim3(folder), *_ramulator(folder), *_peaks(), *_unloaded(), *_spacings()]
    return EngineLedger("memory", points, _REMARKS)


def _rows(path: Path) -> list[dict[str, str]]:
    lines = [line for line in read_text(path).splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


# ---- DRAMsim3


def _dramsim3(folder: Path | None) -> Iterator[Point]:
    if folder is None:
        rows = _rows(_TABLES / "memory_dramsim3.csv")
    elif (folder / "dramsim3.csv").exists():
        rows = [_own_layout(row) for row in _rows(folder / "dramsim3.csv") if row["stream"].startswith("trace_")]
    else:
        fail("no dramsim3.csv in this folder", file=str(folder))
    memories: dict[str, CycleMemory] = {}
    for row in rows:
        name = row["configuration"]
        if name not in memories:
            memories[name] = CycleMemory(_configuration(name, folder))
        result = memories[name].run(_trace(row["stream"], int(row["gap_cycles"])), int(row["cycles"]))
        yield from _dramsim3_points(row, result)


def _own_layout(row: dict[str, str]) -> dict[str, str]:
    _, stream, gap = row["stream"].split("_")
    clock = float(row["tCK_ns"])
    columns = {"activate": "act", "read": "read", "write": "write", "refresh": "ref", "total": "total"}
    energies = {f"{part}_nJ": str(float(row[f"{column}_energy_pJ"]) * clock / 1e3) for part, column in columns.items()}
    return {
        "configuration": row["config"],
        "stream": stream,
        "gap_cycles": gap.removeprefix("gap"),
        "cycles": row["cycles"],
        "bandwidth_GB_per_s": row["bandwidth_GBps"],
        "read_latency_cycles": row["avg_read_lat_cycles"],
        **energies,
    }


def _configuration(name: str, folder: Path | None) -> DramSpec:
    if folder is not None:
        return read_ini(folder / f"{name}.ini")
    path = _TABLES / "memory_configurations.yaml"
    return spec_of_sections(name, read_yaml(path).content[name], str(path))


def _trace(stream: str, gap: int) -> Trace:
    """100,000 requests, one each `gap` cycles: sequential or random over 1 GiB, reads or one write in three."""
    number = np.arange(_REQUESTS)
    rng = np.random.default_rng(_SEED)
    random, writes = stream.startswith("rnd"), stream.endswith("RW")
    burst = rng.integers(0, 2**24, _REQUESTS) if random else number
    write = (rng.random(_REQUESTS) < 1 / 3 if random else number % 3 == 2) & writes
    return Trace(number * gap, burst * 64, write)


def _dramsim3_points(row: dict[str, str], result: MemoryCycleResult) -> Iterator[Point]:
    gap = int(row["gap_cycles"])
    case = f"{row['configuration']} {row['stream']} gap {gap}"
    kind = "spaced" if gap > 1 else "saturated"

    def point(quantity: str, unit: str, key: str, ours: float, tolerance: Tolerance) -> Point:
        return Point(
            case=case,
            quantity=quantity,
            unit=unit,
            reference=float(row[key]),
            ours=ours,
            tolerance=tolerance,
            source="dramsim3",
            evidence="simulator",
        )

    yield point("bandwidth", "GB/s", "bandwidth_GB_per_s", result.request_bandwidth_B_per_s / 1e9, _BANDWIDTH)
    limit = _SPACED if gap > 1 else _SATURATED
    latency = result.average_read_latency_cycles
    yield point(f"read latency, {kind}", "cycle", "read_latency_cycles", latency, limit)
    parts = {**result.energy_by_part_J, "total": result.energy_J}
    for part in ("activate", "read", "write", "refresh", "total"):
        yield point(f"energy: {part}", "nJ", f"{part}_nJ", parts[part] * 1e9, _ENERGY)


# ---- Ramulator 2

_RAMULATOR: dict[str, tuple[str, int, dict[str, object]]] = {
    # its organization: 2 Gb per HBM2 channel, so a shorter refresh
    "DDR4_2400R": ("ddr4-2400", 1, {"nRCD": 16, "nCL": 16, "nRP": 16}),
    "DDR4_3200": ("ddr4-3200", 1, {}),
    "DDR5_4800": ("ddr5-4800", 1, {}),
    "HBM2_2000": ("hbm2-2000", 2, {"nRFC": "ns(160)"}),
}
_BURST_B = {"DDR4_2400R": (0.833, 64), "DDR4_3200": (0.625, 64), "DDR5_4800": (0.416, 64), "HBM2_2000": (1.0, 32)}


def _ramulator(folder: Path | None) -> Iterator[Point]:
    path = _TABLES / "memory_ramulator2.csv" if folder is None else folder / "ramulator2.csv"
    for row in _rows(path) if path.exists() else []:
        name = row["memory"] if folder is None else row["config"]
        kind = row["measurement"] if folder is None else row["kind"].split("_")[0]
        if name not in _RAMULATOR:
            fail("no memory of the library stands for this one", file=str(path), value=name, choices=_RAMULATOR)
        memory, channels, overrides = _RAMULATOR[name]
        spec = load_dram(memory, **overrides).with_channels(channels)
        clock_ns, burst_B = _BURST_B[name]
        if kind == "stream":
            reference = int(row["reads"]) * burst_B / (int(row["cycles"]) * clock_ns)
            result = CycleMemory(spec).run(requests(spec, "stream", 50_000))
            barred = name in ("DDR5_4800", "HBM2_2000")
            ours, tolerance = result.bandwidth_B_per_s / 1e9, _BANDWIDTH if barred else None
            yield Point(
                case=f"{name} read stream",
                quantity="bandwidth",
                unit="GB/s",
                reference=reference,
                ours=ours,
                tolerance=tolerance,
                source="ramulator2",
                evidence="simulator",
            )
        else:
            key = "read_latency_cycles" if folder is None else "avg_read_latency"
            probes = requests(spec, "random", 2_000, seed=_SEED)
            spaced = Trace(np.arange(2_000, dtype=np.int64) * 400, probes.address, probes.is_write)
            latency = CycleMemory(spec).run(spaced).average_read_latency_cycles
            yield Point(
                case=f"{name} idle probe",
                quantity="idle latency",
                unit="cycle",
                reference=float(row[key]),
                ours=latency,
                tolerance=None,
                source="ramulator2",
                evidence="simulator",
            )


# ---- closed forms and data sheets


def _peaks() -> Iterator[Point]:
    for name in dram_names():
        spec = load_dram(name).with_channels(1)
        result = CycleMemory(spec).run(requests(spec, "stream", 50_000))
        peak, ours = spec.channel_peak_B_per_s / 1e9, result.bandwidth_B_per_s / 1e9
        t = spec.timings
        # While all banks are refreshed the bus is idle.
        idle = t["nRFC"] / t["nREFI"] if spec.controller.refresh == "all-bank" else 0.0
        what = "of the peak rate less refresh"
        yield Point(
            case=f"{name} read stream",
            quantity=what,
            unit="GB/s",
            reference=peak * (1 - idle),
            ours=ours,
            tolerance=_PEAK,
            source=name,
            evidence="closed form",
        )


def _unloaded() -> Iterator[Point]:
    for name in dram_names():
        spec = load_dram(name, refresh="none").with_channels(1)
        t = spec.timings
        mapping = spec.address_map()
        row_B = spec.burst_bytes << mapping.position["ro"]
        column_B = spec.burst_bytes << mapping.position["co"]
        # One bank: first access (closed), another column of the row (open), another row (conflict), far apart.
        trace = Trace(np.array([0, 5_000, 10_000]), np.array([0, column_B, row_B]), np.zeros(3, np.bool_))
        latency = CycleMemory(spec).run(trace).latency_cycles - CONTROLLER_CYCLES
        burst = t["nCL"] + t["nBL"]
        expected = {"closed": t["nRCDRD"] + burst, "open": burst, "conflict": t["nRP"] + t["nRCDRD"] + burst}
        for ours, (state, cycles) in zip(latency.tolist(), expected.items(), strict=True):
            quantity = "unloaded read latency"
            yield Point(
                case=f"{name}, row {state}",
                quantity=quantity,
                unit="cycle",
                reference=cycles,
                ours=ours,
                tolerance=_EXACT,
                source=name,
                evidence="closed form",
            )


def _spacings() -> Iterator[Point]:
    for name in dram_names():
        spec = load_dram(name, ranks=2)
        checked, wrong = spacing_violations(spec, DeviceTiming)
        case = f"{name}: {checked} spacings allowed at n, refused at n - 1"
        yield Point(
            case=case,
            quantity="wrong spacings",
            unit="",
            reference=0,
            ours=wrong,
            tolerance=_EXACT,
            source=name,
            evidence="closed form",
        )
