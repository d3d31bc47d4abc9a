"""Atleus re-derived: transformers on ReRAM tiers over a systolic tier, against GPU, 3D-TPU and HAIMA.

Published (P. Dhingra et al., IEEE TCAD 2025): up to 56 times faster and 64.5 times less energy than the GPU; 91.9 % of
the operations on ReRAM (GPT-2 Medium, 1024 tokens), which takes the smaller part of the energy; a four-stage pipeline
with balanced stages; energy nearly in proportion to the bits of the weights, less so on the GPU, which unpacks them;
M8F4 saving more than M4F8; HAIMA closer in inference than in fine-tuning.
Here: the library's chips simulated on the paper's four models, over lengths and batches, with the assumptions that
decide the ratios varied one by one.  Nothing is fitted to the published figures.
Limits: the paper's full text was not available.  Its GPU, the number and clock of its systolic arrays, its network and
its figures by model are not known; the 3D-TPU and HAIMA are this library's readings of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tierform.chip.description import Chip, load_chip
from tierform.simulation.result import Result
from tierform.simulation.simulate import simulate
from tierform.studies import atleus_accuracy, atleus_mechanisms
from tierform.studies.study import Cell, Check, Picture, StudyOptions, StudyResult, Table
from tierform.studies.sweep import (
    RANK,
    TASKS,
    Point,
    best,
    changed,
    evidence,
    mean,
    points_table,
    run_point,
    slope,
    task_of,
    what_if,
)
from tierform.workload import FineTuning, QLoRA

SPEED, ENERGY, OPERATIONS = 56.0, 64.5, 91.9  # published: times, times, percent
MODELS = ("roberta-base", "bert-large", "gpt2-medium", "bloom-560m")
GPUS = ("a100", "jetson-agx-orin")
OTHERS = ("tpu-3d", "haima", "atleus-2.5d")
ATLEUS = "atleus"
SOURCES = ("atleus-2025", "isaac-2016", "haima-2023", "horowitz-2014", "nvidia-a100")
SETTINGS = ("models", "sequences", "batches", "gpu", "accuracy")


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
        busy = {
            o.name: o.busy_s / o.times for o in result.operators if o.stage == "forward" and o.block.startswith("layer")
        }

        def longest(*names: str, of: dict[str, float] = busy) -> float:
            return max(of[name] for name in names)

        attention = sum(busy[f"attention.{name}"] for name in ("scores", "softmax", "context"))
        stages = (
            longest("attention.q", "attention.k", "attention.v"),
            attention,
            busy["attention.o"],
            longest("ffn.up", "ffn.down"),
        )
        balanced = arrays * attention / stages[0]
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

    def slower(seconds: float) -> Chip:
        launch: dict[str, Any] = {"launch": what_if(p.launch.value + seconds, "s"), "fusion": False}
        if p.products is not None:
            cycles = what_if(p.products.launch.value + seconds * p.clock.value, "1")
            launch["products"] = p.products.model_copy(update={"launch": cycles})
        return changed(gpu, name, **launch)

    assert gpu.precision is not None
    narrow = replace(gpu.precision, weights="int8", activations="int8")
    cases: list[tuple[str, Callable[[], Chip]]] = [
        ("library kernels in int8, as wide as on Atleus", lambda: replace(gpu, precision=narrow)),
        ("library kernels, fused where libraries fuse", lambda: gpu),
        ("one kernel an operator", lambda: changed(gpu, name, fusion=False)),
        ("one kernel an operator, 10 us more each", lambda: slower(10e-6)),
        ("one kernel an operator, 30 us more each", lambda: slower(30e-6)),
        ("one kernel an operator, 100 us more each", lambda: slower(100e-6)),
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


def summary(
    points: list[Point],
    gpus: tuple[str, ...],
    shares: Table,
    balance: Table,
    arrays: float,
    slopes: dict[str, tuple[float, float]],
    saved: dict[str, float],
    values: Table | None,
) -> Table:
    """The published figures, each beside this study's."""
    rows: list[tuple[Cell, ...]] = []

    def line(what: str, published: float | str | None, here: float | None, deciding: str) -> None:
        ratio = here / published if isinstance(published, float) and here is not None else None
        rows.append((what, published, here, ratio, deciding))

    for figure, published, name in (("latency_s", SPEED, "speed-up"), ("energy_J", ENERGY, "energy saving")):
        for gpu in gpus:
            top = best(points, gpu, ATLEUS, figure)
            where = f"largest at {top[1]}; the paper's GPU and its software are not known" if top else "did not run"
            line(f"largest {name} over the GPU, {gpu}", published, top[0] if top else None, where)
    reram = next(row for row in shares.rows if row[0] == "reram")
    share = float(reram[1] or 0)
    line("operations on ReRAM (%)", OPERATIONS, share, "a count: 12 n d2 + n2 d + 2 n d r")
    line("operations on ReRAM over systolic", 12.0, share / (100 - share), "follows from the share")
    line(
        "energy on ReRAM (%), leakage left out",
        "minority",
        float(reram[3] or 0),
        f"systolic energies, assumed as of 45 nm / 6: half at {half_factor(shares):.2g} times as much",
    )
    line(
        "longest stage over shortest",
        1.0,
        float(balance.rows[-1][5] or 0),
        f"number of arrays, not known: {arrays:.2g} would balance",
    )
    for kind, slower in zip(TASKS, paired(points, "haima"), strict=False):
        line(
            f"HAIMA's time over Atleus's, {kind}, mean of equal points",
            "closer in inference",
            slower,
            "one HBM2 stack assumed, rows streamed for every token",
        )
    for chip in OTHERS:
        line(
            f"{chip}: time over Atleus's, mean",
            "> 1" if chip != "atleus-2.5d" else None,
            mean(points, chip, ATLEUS, "latency_s"),
            "arrays, clock and links assumed",
        )
        line(
            f"{chip}: energy over Atleus's, mean",
            "> 1" if chip != "atleus-2.5d" else None,
            mean(points, chip, ATLEUS, "energy_J"),
            "arrays, clock and links assumed",
        )
    line("slope of energy over bits, Atleus", "near-linear", slopes[ATLEUS][0], f"R2 {slopes[ATLEUS][1]:.4f}")
    line(f"slope of energy over bits, {gpus[0]}", "< 1", slopes[gpus[0]][0], f"R2 {slopes[gpus[0]][1]:.4f}")
    line("M8F4 saves (%)", "more than M4F8", saved["M8F4"], "the FFN holds two thirds of the weights")
    line("M4F8 saves (%)", None, saved["M4F8"], "")
    told = ((atleus_accuracy.WITH, f"< {atleus_accuracy.PUBLISHED_LOSS}"), (atleus_accuracy.WITHOUT, "more"))
    for text, claim in told if values is not None else ():
        loss = atleus_accuracy.lost(values, text)
        if loss is not None:
            line(
                f"points lost, {text}",
                claim,
                loss[0],
                f"{'a single run' if loss[1] > 100 else f'+- {loss[1]:.2g}'}; sigma is not known",
            )
    head = ("figure", "published", "here", "here / published", "where, and what decides it")
    return Table("Published and reproduced", head, tuple(rows), "Ratios of Atleus to a baseline; > 1 is in its favour.")


def run(options: StudyOptions) -> StudyResult:
    """The whole study.  Settings: ``models``, ``sequences``, ``batches`` (comma-separated), ``gpu`` (a chip's name),
    ``accuracy`` (short, long, none, or a file that ``tierform accuracy --json`` wrote).
    """
    from tierform.library import citation

    options.check_settings(SETTINGS)
    values, on_values = atleus_accuracy.accuracy(options, ATLEUS)
    mended, on_mended = atleus_mechanisms.mechanisms(options, ATLEUS)
    quick = options.quick
    models = tuple((options.settings.get("models") or ",".join(MODELS[:1] if quick else MODELS)).split(","))
    lengths = options.whole_numbers("sequences", (128,) if quick else (128, 512, 1024))
    batches = options.whole_numbers("batches", (1,) if quick else (1, 8))
    gpus: tuple[str, ...] = (options.settings["gpu"],) if "gpu" in options.settings else GPUS
    chips = {name: load_chip(name) for name in (ATLEUS, *gpus, *OTHERS)}
    gpus = tuple(chips[name].name for name in gpus)
    points = []
    for model in models:
        for kind in TASKS:
            for batch in batches:
                for length in lengths:
                    options.say(f"{model}, {kind}, batch {batch}, {length} tokens")
                    points.append(run_point(model, kind, batch, length, chips.values()))
    points = [point for point in points if ATLEUS in point.results]
    gpu = next(chip for chip in chips.values() if chip.name == gpus[0])
    options.say("operations, stages, bits")
    arrays = chips[ATLEUS].components["systolic"].units
    shares, _ = operations_table(quick)
    balance, balanced = stage_table((128,) if quick else (128, 512, 1024), arrays)
    bits, slopes = bits_table(gpu, 1 if quick else 8, 128 if quick else 512)
    mixed, saved = mixed_table(1 if quick else 8, 128 if quick else 512)
    options.say("sensitivity")
    small = (models[0], "inference", 1, lengths[0])
    software = gpu_table(gpu, small)
    deciding = chip_table(gpu, (models[0], "fine-tuning", batches[-1], lengths[0]))
    ratios = ratio_table(points, gpus)
    head = summary(points, gpus, shares, balance, balanced, slopes, saved, values)
    every = points_table(
        "Every point", points, (ATLEUS, *gpus, *OTHERS), "8-bit weights; bf16 on GPUs; ambient 45 degC."
    )
    share = float(next(row for row in shares.rows if row[0] == "reram")[1] or 0)
    checks = [
        Check(
            "M8F4 saves more energy than M4F8",
            saved["M8F4"] > saved["M4F8"] > 0,
            f"{saved['M8F4']:.3g} % against {saved['M4F8']:.3g} %",
        ),
        Check(
            "Atleus's energy falls nearly linearly with bits, the GPU's more slowly",
            slopes[ATLEUS][1] > 0.98 and slopes[gpus[0]][0] < slopes[ATLEUS][0],
            f"slope {slopes[ATLEUS][0]:.3g} with R2 {slopes[ATLEUS][1]:.4f}, GPU {slopes[gpus[0]][0]:.3g}",
        ),
    ]
    if not quick:
        what = "ReRAM takes 91.9 % of the operations of GPT-2 Medium at 1024 tokens, within 0.1 points"
        checks.insert(0, Check(what, abs(share - OPERATIONS) <= 0.1, f"{share:.2f} %"))
    slower = paired(points, "haima")
    if slower:
        figures = f"{min(slower):.3g} times in {TASKS[slower.index(min(slower))]}, {max(slower):.3g} in the other task"
        checks.append(Check("HAIMA is slower than Atleus in inference and in fine-tuning", min(slower) > 1, figures))
    return StudyResult(
        "atleus",
        "Atleus: ReRAM tiers over a systolic tier, against GPU, 3D-TPU and HAIMA",
        (
            head,
            ratios,
            shares,
            balance,
            bits,
            mixed,
            software,
            deciding,
            *(one for one in (values, mended) if one),
            every,
        ),
        tuple(checks),
        (*_remarks(points, gpus, balanced, deciding), on_values, on_mended),
        evidence(chips.values()),
        tuple(citation(k).text for k in SOURCES),
        (
            Picture(
                "Ratios to Atleus",
                "point",
                ("time over Atleus's",),
                "chip",
                "bar",
                "Time over that of Atleus",
                "times",
                True,
                (("published maximum over the GPU", SPEED),),
            ),
            Picture(
                "Ratios to Atleus",
                "point",
                ("energy over Atleus's",),
                "chip",
                "bar",
                "Energy over that of Atleus",
                "times",
                True,
                (("published maximum over the GPU", ENERGY),),
            ),
            Picture(bits.title, "bits", tuple(bits.head[3:]), kind="line", unit="of the energy at 16 bits"),
            Picture(balance.title, "tokens", tuple(balance.head[1:5]), unit="us", log=True),
            Picture(shares.title, "component", tuple(shares.head[1:]), unit="%"),
            Picture(
                software.title,
                "GPU utilization (%)",
                ("speed-up",),
                kind="line",
                log=True,
                unit="times",
                marks=(("published maximum", SPEED),),
            ),
            Picture(deciding.title, "case", tuple(deciding.head[4:]), unit="times", log=True),
        ),
    )


def _remarks(points: list[Point], gpus: tuple[str, ...], balanced: float, deciding: Table) -> tuple[str, ...]:
    """What was missed, by how much, and which assumption decides it."""
    said = []
    for gpu in gpus:
        speed, energy = best(points, gpu, ATLEUS, "latency_s"), best(points, gpu, ATLEUS, "energy_J")
        if speed and energy:
            said.append(
                f"Missed: the largest speed-up over {gpu} is {speed[0]:.3g} against 56 published "
                f"({SPEED / speed[0]:.3g} times short), the largest energy saving {energy[0]:.3g} against 64.5 "
                f"({ENERGY / energy[0]:.3g} times).  The GPU's utilization decides it: see the table on it."
            )
    slowest = mean(points, "tpu-3d", ATLEUS, "latency_s")
    if slowest is not None and slowest < 1:
        said.append(
            f"Missed: the 3D-TPU of the library takes {slowest:.3g} of Atleus's time; the paper has Atleus first.  "
            "It was given 64 arrays at 1 GHz, 16 a tier as in Atleus; the table on assumptions shows fewer.  The "
            f"balanced pipeline that the paper reports needs about {balanced:.2g} arrays in Atleus, so that its arrays "
            "are likely fewer."
        )
    reram = [row for row in deciding.rows if str(row[0]) == "as in the library" or "energies x" in str(row[0])]
    texts = "; ".join(f"{row[0]}: {row[3]:.3g} %" for row in reram)
    said.append(f"ReRAM's part of the energy without leakage, at the point of the sensitivity table: {texts}.")
    said += [
        "Not checked, because not known: speed-ups by model, the paper's GPU, its temperatures, its network.",
        "Weights are on the crossbars before a task begins, as the paper assumes; nothing is written in fine-tuning.",
    ]
    return tuple(said)
