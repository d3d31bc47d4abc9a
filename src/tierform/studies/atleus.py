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

from tierform.chip.description import load_chip
from tierform.studies import atleus_accuracy, atleus_mechanisms
from tierform.studies.atleus_tables import (
    ATLEUS,
    ENERGY,
    OPERATIONS,
    OTHERS,
    SPEED,
    bits_table,
    chip_table,
    gpu_table,
    half_factor,
    mixed_table,
    operations_table,
    paired,
    ratio_table,
    stage_table,
)
from tierform.studies.searched import SearchedPoint, searched_point, searched_table
from tierform.studies.study import Cell, Check, Picture, StudyOptions, StudyResult, Table
from tierform.studies.sweep import (
    TASKS,
    Point,
    best,
    evidence,
    mean,
    points_table,
    run_point,
    verdict,
)

MODELS = ("roberta-base", "bert-large", "gpt2-medium", "bloom-560m")
GPUS = ("a100", "jetson-agx-orin")
SOURCES = ("atleus-2025", "isaac-2016", "haima-2023", "horowitz-2014", "nvidia-a100")
SETTINGS = ("models", "sequences", "batches", "gpu", "accuracy")


def summary(
    points: list[Point],
    gpus: tuple[str, ...],
    shares: Table,
    balance: Table,
    arrays: float,
    slopes: dict[str, tuple[float, float]],
    saved: dict[str, float],
    values: Table | None,
    searched: list[SearchedPoint],
) -> Table:
    """The published figures, each beside this study's."""
    rows: list[tuple[Cell, ...]] = []

    def line(
        what: str, published: float | str | None, here: float | None, deciding: str, holds: bool | None = None
    ) -> None:
        ratio = here / published if isinstance(published, float) and here is not None else None
        rows.append((what, published, here, ratio, verdict(published, here, holds), deciding))

    for figure, published, name in (("latency_s", SPEED, "speed-up"), ("energy_J", ENERGY, "energy saving")):
        for gpu in gpus:
            top = best(points, gpu, ATLEUS, figure)
            where = f"largest at {top[1]}; the paper's GPU and its software are not known" if top else "did not run"
            line(f"largest {name} over the GPU, {gpu}", published, top[0] if top else None, where)
            for one in searched:
                both = one.ratio(gpu, ATLEUS, figure)
                line(f"{name} over {gpu}, both searched", published, both, f"at {one.point.label}")
    reram = next(row for row in shares.rows if row[0] == "reram")
    share = float(reram[1] or 0)
    line("operations on ReRAM (%)", OPERATIONS, share, "a count: 12 n d2 + n2 d + 2 n d r")
    line("operations on ReRAM over systolic", 12.0, share / (100 - share), "follows from the share")
    line(
        "energy on ReRAM (%), leakage left out",
        "minority",
        float(reram[3] or 0),
        f"systolic energies, assumed as of 45 nm / 6: half at {half_factor(shares):.2g} times as much",
        float(reram[3] or 0) < 50,
    )
    line(
        "longest stage over shortest",
        1.0,
        float(balance.rows[-1][5] or 0),
        f"number of arrays, not known: {arrays:.2g} would balance",
    )
    slower = paired(points, "haima")
    for kind, ratio in zip(TASKS, slower, strict=False):
        line(
            f"HAIMA's time over Atleus's, {kind}{', mean of equal points' if len(points) > len(TASKS) else ''}",
            "closer in inference",
            ratio,
            "one HBM2 stack assumed, rows streamed for every token",
            len(slower) == len(TASKS) and slower[0] < slower[1],
        )
    for chip in OTHERS:
        for figure, name in (("latency_s", "time"), ("energy_J", "energy")):
            middle = mean(points, chip, ATLEUS, figure)
            line(
                f"{chip}: {name} over Atleus's{', mean' if len(points) > 1 else ''}",
                "> 1" if chip != "atleus-2.5d" else None,
                middle,
                "arrays, clock and links assumed",
                middle is not None and middle > 1,
            )
    straight, bent = slopes[ATLEUS], slopes[gpus[0]]
    line("slope of energy over bits, Atleus", "near-linear", straight[0], f"R2 {straight[1]:.4f}", straight[1] > 0.98)
    line(f"slope of energy over bits, {gpus[0]}", "< 1", bent[0], f"R2 {bent[1]:.4f}", bent[0] < 1)
    more = saved["M8F4"] > saved["M4F8"]
    line("M8F4 saves (%)", "more than M4F8", saved["M8F4"], "the FFN holds two thirds of the weights", more)
    line("M4F8 saves (%)", None, saved["M4F8"], "")
    told = ((atleus_accuracy.WITH, f"< {atleus_accuracy.PUBLISHED_LOSS}"), (atleus_accuracy.WITHOUT, "more"))
    lost = {text: atleus_accuracy.lost(values, text) for text, _ in told} if values is not None else {}
    for text, claim in told if values is not None else ():
        loss, other = lost[text], lost[atleus_accuracy.WITH]
        if loss is not None:
            line(
                f"points lost, {text}",
                claim,
                loss[0],
                f"{'a single run' if loss[1] > 100 else f'+- {loss[1]:.2g}'}; sigma is not known",
                loss[0] < atleus_accuracy.PUBLISHED_LOSS if claim != "more" else other is None or loss[0] > other[0],
            )
    head = ("figure", "published", "here", "here / published", "verdict", "where, and what decides it")
    note = (
        "Ratios of Atleus to a baseline; > 1 is in its favour.  A number agrees within a quarter of the published one; "
    )
    note += "what can hold together is told by the study must-hold."
    return Table("Published and reproduced", head, tuple(rows), note, digits=3)


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
    first = (models[0], "inference", 1, lengths[0])
    wide = () if quick else ((models[min(1, len(models) - 1)], "fine-tuning", batches[-1], 512),)
    searched = [searched_point(point, chips.values(), options) for point in (first, *wide)]
    options.say("sensitivity")
    small = (models[0], "inference", 1, lengths[0])
    software = gpu_table(gpu, small)
    deciding = chip_table(gpu, (models[0], "fine-tuning", batches[-1], lengths[0]))
    ratios = ratio_table(points, gpus)
    head = summary(points, gpus, shares, balance, balanced, slopes, saved, values, searched)
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
        study="atleus",
        title="Atleus: ReRAM tiers over a systolic tier, against GPU, 3D-TPU and HAIMA",
        tables=(
            head,
            *(searched_table(one, ATLEUS) for one in searched),
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
        checks=tuple(checks),
        remarks=(*_remarks(points, gpus, balanced, deciding), on_values, on_mended),
        assumptions=evidence(chips.values()),
        sources=tuple(citation(k).text for k in SOURCES),
        pictures=(
            Picture(
                table="Ratios to Atleus",
                x="point",
                y=("time over Atleus's",),
                by="chip",
                kind="bar",
                title="Time over that of Atleus",
                unit="times",
                log=True,
                marks=(("published maximum over the GPU", SPEED),),
            ),
            Picture(
                table="Ratios to Atleus",
                x="point",
                y=("energy over Atleus's",),
                by="chip",
                kind="bar",
                title="Energy over that of Atleus",
                unit="times",
                log=True,
                marks=(("published maximum over the GPU", ENERGY),),
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
        "The network of the chip file is a mesh with dimension order; the table of the search has, for every chip "
        "alike, the mapping, the places of weights and the routes that were found for a point.",
        "Weights are on the crossbars before a task begins, as the paper assumes; nothing is written in fine-tuning.",
    ]
    return tuple(said)
