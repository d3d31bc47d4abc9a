"""The tables of the Atleus study: shares, stages, bits, ratios against other chips, each from its own simulations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import fsum
from typing import Any

from tierform.chip.description import Chip, load_chip
from tierform.simulation.result import Result
from tierform.simulation.simulate import simulate
from tierform.studies.study import Cell, Table
from tierform.studies.sweep import (
    RANK,
    TASKS,
    Point,
    changed,
    mean,
    run_point,
    slope,
    slower_software,
    task_of,
    what_if,
)
from tierform.workload import FineTuning, QLoRA

SPEED, ENERGY, OPERATIONS = 56.0, 64.5, 91.9  # published: times, times, percent
OTHERS = ("tpu-3d", "haima", "atleus-2.5d")
ATLEUS = "atleus"


def operations_table(quick: bool) -> tuple[Table, Result]:
    """Shares of operations and of energy by component, GPT-2 Medium fine-tuned at 1024 tokens."""
    result = simulate("gpt2-medium", task_of("fine-tuning", 1, 256 if quick else 1024), ATLEUS)
    idle = {
        name: result.energy_J_by_part.get(f"{name}: idle and leakage", 0.0) for name in result.energy_J_by_component
    }
    active = {name: energy - idle[name] for name, energy in result.energy_J_by_component.items()}
    rows = tuple(
        (
            name,
            100 * result.operation_share.get(name, 0.0),
            100 * energy / result.energy_J,
            100 * active[name] / sum(active.values()),
        )
        for name, energy in result.energy_J_by_component.items()
    )
    note = "Operations as the paper's 91.9 % implies they were counted: 12 n d2 over 12 n d2 + n2 d + 2 n d r, forward."
    head = ("component", "operations (%)", "energy (%)", "energy without leakage (%)")
    return Table("Where the work and the energy are", head, rows, note), result


def stage_table(sequences: tuple[int, ...], arrays: int) -> tuple[Table, float]:
    """Time of each stage of the pipeline of one layer, and the number of arrays at which they would balance."""
    rows: list[tuple[Cell, ...]] = []
    balanced = 0.0
    for sequence in sequences:
        result = simulate("gpt2-medium", task_of("fine-tuning", 1, sequence), ATLEUS, thermal="none")
        stages = stage_times(result)
        balanced = arrays * stages[1] / stages[0]
        rows.append((sequence, *(1e6 * one for one in stages), max(stages) / min(stages), balanced))
    head = (
        "tokens",
        "QKV, ReRAM (us)",
        "attention, systolic (us)",
        "output, ReRAM (us)",
        "FFN, ReRAM (us)",
        "longest over shortest",
        "arrays for balance",
    )
    note = f"GPT-2 Medium, one sequence, {arrays} arrays of 128 x 32 with their vector units at 1 GHz (assumed)."
    return Table("Balance of the four-stage pipeline", head, tuple(rows), note), balanced


def stage_times(result: Result) -> tuple[float, float, float, float]:
    """Seconds of the four stages of a layer's pipeline: projections, attention, its output, feed-forward."""
    busy = {
        o.name: o.busy_s / o.times for o in result.operators if o.stage == "forward" and o.block.startswith("layer")
    }

    def longest(*names: str) -> float:
        return max(busy[name] for name in names)

    return (
        longest("attention.q", "attention.k", "attention.v"),
        fsum(busy[f"attention.{name}"] for name in ("scores", "softmax", "context")),
        busy["attention.o"],
        longest("ffn.up", "ffn.down"),
    )


def bits_table(gpu: Chip, batch: int, sequence: int) -> tuple[Table, dict[str, tuple[float, float]]]:
    """Energy of a fine-tuning step by bits of the weights, on Atleus and on the GPU, and the slope of each."""
    atleus = load_chip(ATLEUS)
    assert atleus.precision is not None and gpu.precision is not None
    energy: dict[str, list[float]] = {ATLEUS: [], gpu.name: []}
    steps = (16, 8, 4, 2)
    for width in steps:
        plan = replace(atleus.precision, weights=f"int{width}")
        here = simulate("roberta-base", task_of("fine-tuning", batch, sequence, plan), atleus)
        kept = f"int{width}" if width < 16 else "bf16"
        task: FineTuning = FineTuning(method=QLoRA(RANK, ("q", "v"), kept), batch=batch, sequence=sequence)
        task = task if width < 16 else task_of("fine-tuning", batch, sequence)  # type: ignore[assignment]
        there = simulate("roberta-base", replace(task, precision=replace(gpu.precision, weights=kept)), gpu)
        energy[ATLEUS].append(here.energy_J)
        energy[gpu.name].append(there.energy_J)
    rows = tuple(
        (width, *(1e3 * energy[name][i] for name in energy), *(energy[name][i] / energy[name][0] for name in energy))
        for i, width in enumerate(steps)
    )
    names = list(energy)
    head = ("bits", *(f"{name} (mJ)" for name in names), *(f"{name}, relative to 16 bits" for name in names))
    note = "RoBERTa-base, LoRA; activations 8 bits on Atleus, bf16 on the GPU, which unpacks narrower weights."
    return Table("Energy by bits of the weights", head, rows, note), {n: slope(steps, e) for n, e in energy.items()}


def mixed_table(batch: int, sequence: int) -> tuple[Table, dict[str, float]]:
    """Energy saved by 8-bit attention with 4-bit FFN weights, and by the reverse, against 8 bits."""
    atleus = load_chip(ATLEUS)
    assert atleus.precision is not None
    whole = simulate("roberta-base", task_of("fine-tuning", batch, sequence), atleus)
    saved: dict[str, float] = {}
    rows: list[tuple[Cell, ...]] = [("int8", 8.0, 1e3 * whole.energy_J, 0.0)]
    for name, mean_bits in (("M4F8", 20 / 3), ("M8F4", 16 / 3)):
        plan = atleus.precision.with_weights(name)
        result = simulate("roberta-base", task_of("fine-tuning", batch, sequence, plan), atleus)
        saved[name] = 100 * (1 - result.energy_J / whole.energy_J)
        rows.append((name, mean_bits, 1e3 * result.energy_J, saved[name]))
    return Table("Mixed precision", ("weights", "mean bits", "energy (mJ)", "saved (%)"), tuple(rows), ""), saved


def gpu_table(gpu: Chip, point: tuple[str, str, int, int]) -> Table:
    """Speed-up and saving over the GPU at one point, by what the GPU's software achieves."""
    name = next(iter(gpu.components))
    p: Any = getattr(gpu.components[name], "parameters")
    atleus = run_point(*point, (load_chip(ATLEUS),)).results[ATLEUS]
    peak = p.peak_rate["bf16"].value

    assert gpu.precision is not None
    narrow = replace(gpu.precision, weights="int8", activations="int8")
    cases: list[tuple[str, Callable[[], Chip]]] = [
        ("library kernels in int8, as wide as on Atleus", lambda: replace(gpu, precision=narrow)),
        ("library kernels, fused where libraries fuse", lambda: gpu),
        ("one kernel an operator", lambda: slower_software(gpu, 0.0)),
        ("one kernel an operator, 10 us more each", lambda: slower_software(gpu, 10e-6)),
        ("one kernel an operator, 30 us more each", lambda: slower_software(gpu, 30e-6)),
        ("one kernel an operator, 100 us more each", lambda: slower_software(gpu, 100e-6)),
    ]
    rows: list[tuple[Cell, ...]] = []
    for text, make in cases:
        result = run_point(*point, (make(),)).results[gpu.name]
        use = result.operations / (result.latency_s * peak)
        rows.append(
            (
                text,
                1e3 * result.latency_s,
                100 * use,
                result.average_power_W,
                result.latency_s / atleus.latency_s,
                result.energy_J / atleus.energy_J,
            )
        )
    needed = SPEED * atleus.latency_s
    rows.append(
        ("what 56 times would need", 1e3 * needed, 100 * atleus.operations / (needed * peak), None, SPEED, None)
    )
    head = ("GPU software", "GPU time (ms)", "GPU utilization (%)", "GPU power (W)", "speed-up", "energy saving")
    label = Point(*point, {}, {}).label
    note = f"{gpu.name}, bf16 unless stated, utilization of its bf16 peak, at {label}; "
    note += f"Atleus takes {1e3 * atleus.latency_s:.3g} ms at 8-bit weights."
    return Table("Speed-up against the GPU's utilization", head, tuple(rows), note)


def chip_table(gpu: Chip, point: tuple[str, str, int, int]) -> Table:
    """How the assumed figures of Atleus, and of its baselines, move the ratios at one point."""
    atleus, tpu = load_chip(ATLEUS), load_chip("tpu-3d")
    s: Any = getattr(atleus.components["systolic"], "parameters")
    r: Any = getattr(atleus.components["reram"], "parameters")
    v: Any = getattr(atleus.components["vector"], "parameters")

    def clocked(factor: float) -> Chip:
        chip = changed(atleus, "systolic", clock=what_if(s.clock.value * factor, "Hz"))
        return changed(chip, "vector", clock=what_if(v.clock.value * factor, "Hz"))

    def heavier(factor: float) -> Chip:
        energies = {form: what_if(one.value * factor, "J") for form, one in s.mac_energy.items()}
        sram = what_if(s.sram_energy.value * factor, "J/B")
        return changed(atleus, "systolic", mac_energy=energies, sram_energy=sram)

    def counted(chip: Chip, units: int) -> Chip:
        return changed(changed(chip, "systolic", units), "vector", units)

    cases: list[tuple[str, Chip, Chip]] = [("as in the library", atleus, tpu)]
    cases += [(f"Atleus: {n} systolic arrays", counted(atleus, n), tpu) for n in (2, 4, 64)]
    cases += [(f"Atleus: systolic clock x {f:g}", clocked(f), tpu) for f in (0.25, 2)]
    cases += [(f"Atleus: systolic energies x {f:g}", heavier(f), tpu) for f in (6, 12)]
    for milliwatts in (1, 30):
        leaky = changed(atleus, "reram", leakage=what_if(1e-3 * milliwatts, "W"))
        cases.append((f"Atleus: {milliwatts} mW of leakage a ReRAM tile", leaky, tpu))
    for crossbars in (2 * r.crossbars, 4 * r.crossbars):
        cases.append((f"Atleus: {crossbars} crossbars a tile", changed(atleus, "reram", crossbars=crossbars), tpu))
    cases += [(f"3D-TPU: {n} arrays", atleus, counted(tpu, n)) for n in (4, 8, 16)]
    other = run_point(*point, (gpu,)).results[gpu.name]
    rows: list[tuple[Cell, ...]] = []
    for text, here, stacked in cases:
        tried = run_point(*point, (here, stacked))
        if tried.refused:
            rows.append((f"{text}: {next(iter(tried.refused.values()))}", *(None,) * 7))
            continue
        a, t = tried.results[ATLEUS], tried.results["tpu-3d"]
        parts = a.energy_J_by_component
        active = {n: e - a.energy_J_by_part.get(f"{n}: idle and leakage", 0.0) for n, e in parts.items()}
        rows.append(
            (
                text,
                1e3 * a.latency_s,
                1e3 * a.energy_J,
                100 * active["reram"] / sum(active.values()),
                other.latency_s / a.latency_s,
                other.energy_J / a.energy_J,
                t.latency_s / a.latency_s,
                t.energy_J / a.energy_J,
            )
        )
    head = (
        "case",
        "Atleus (ms)",
        "Atleus (mJ)",
        "ReRAM's energy without leakage (%)",
        f"speed over {gpu.name}",
        f"energy against {gpu.name}",
        "speed over 3D-TPU",
        "energy against 3D-TPU",
    )
    return Table("What the assumptions decide", head, tuple(rows), f"At {Point(*point, {}, {}).label}.")


def ratio_table(points: list[Point], gpus: tuple[str, ...]) -> Table:
    """Time and energy of every other chip over those of Atleus."""
    rows = [
        (p.label, p.model, p.kind, chip, p.ratio(chip, ATLEUS, "latency_s"), p.ratio(chip, ATLEUS, "energy_J"))
        for p in points
        for chip in (*gpus, *OTHERS)
    ]
    head = ("point", "model", "task", "chip", "time over Atleus's", "energy over Atleus's")
    return Table("Ratios to Atleus", head, tuple(rows), "GPUs compute in bf16, the others with 8-bit weights.")


def paired(points: list[Point], chip: str) -> list[float]:
    """Mean time of a chip over Atleus's by task, over the points at which it runs both; empty without any."""
    ran: dict[tuple[str, int, int], list[Point]] = {}
    for point in points:
        if point.ratio(chip, ATLEUS, "latency_s") is not None:
            ran.setdefault((point.model, point.batch, point.sequence), []).append(point)
    both = [point for group in ran.values() if len(group) == len(TASKS) for point in group]
    means = [mean([p for p in both if p.kind == kind], chip, ATLEUS, "latency_s") for kind in TASKS]
    return [one for one in means if one is not None]


def half_factor(shares: Table) -> float:
    """How many times more energy the systolic tier would have to take for ReRAM to take half (leakage left out)."""
    part = {str(row[0]): float(row[3] or 0) for row in shares.rows}
    arrays = part["systolic"]
    return (part["reram"] - (sum(part.values()) - part["reram"] - arrays)) / arrays
