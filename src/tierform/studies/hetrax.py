"""HeTraX re-derived: a ReRAM tier for feed-forward layers under tiers of multiprocessors, against HAIMA and TransPIM.

Published (P. Dhingra et al., ISLPED 2024): up to 5.6 times faster than the state of the art, an energy-delay product
better by 14.5, and thermally feasible; no temperature is stated in the abstract, and none is taken from elsewhere.
Here: inference on the library's three chips over models, lengths and batches, their temperatures, and the assumptions
that decide the ratios varied one by one.  Nothing is fitted to the published figures.
Limits: the paper's full text was not available.  Numbers of multiprocessors and tiers, HBM stacks of HAIMA, subarrays
at work in TransPIM are assumptions of the chip files; its placement search is that of weights
over tiles, with mapping and routes, and the order of the tiers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tierform import library
from tierform.chip.description import Chip, load_chip
from tierform.files import read_text
from tierform.studies.searched import SearchedPoint, searched_point, searched_table
from tierform.studies.study import Cell, Check, Picture, StudyOptions, StudyResult, Table
from tierform.studies.sweep import (
    Point,
    best,
    changed,
    evidence,
    mean,
    peak_C,
    points_table,
    run_point,
    verdict,
    what_if,
)

SPEED, PRODUCT = 5.6, 14.5  # published maxima
HETRAX = "hetrax"
BASELINES = ("haima", "transpim")
MODELS = ("bert-base", "gpt2", "bert-large")
DRAM_LIMIT_C = 95.0
SOURCES = ("hetrax-2024", "haima-2023", "transpim-2022", "newton-2020", "simdram-2021", "isaac-2016")
SETTINGS = ("models", "sequences", "batches")
FIGURES = (("latency_s", "time"), ("energy_J", "energy"), ("energy_delay_product_Js", "energy-delay product"))


def reram_first() -> Chip:
    """HeTraX with its ReRAM tier at the bottom, far from the heat sink."""
    lines = read_text(library.find("chips", HETRAX)).splitlines()
    tiers = [index for index, line in enumerate(lines) if line.strip().startswith("- {name:")]
    order = [tiers[-1], *tiers[:-1]]
    moved = [lines[index] for index in order]
    for place, line in zip(tiers, moved, strict=True):
        lines[place] = line
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hetrax.yaml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return load_chip(path)


def ratio_table(points: list[Point]) -> Table:
    """Time, energy and energy-delay product of the baselines over those of HeTraX."""
    rows = tuple(
        (p.label, p.model, chip, *(p.ratio(chip, HETRAX, figure) for figure, _ in FIGURES))
        for p in points
        for chip in BASELINES
    )
    head = ("point", "model", "chip", *(f"{name} over HeTraX's" for _, name in FIGURES))
    return Table("Ratios to HeTraX", head, rows, "All with 8-bit weights and activations.")


def heat_table(points: list[Point]) -> Table:
    """The hottest tile of each die of each chip, over all points, and the limit."""
    hottest: dict[tuple[str, str], tuple[float, float | None, str]] = {}
    for point in points:
        for chip, result in point.results.items():
            for die in (result.thermal or {"dies": []})["dies"]:
                found = (die["peak_K"] - 273.15, die["limit_K"] and die["limit_K"] - 273.15, point.label)
                if found[0] > hottest.get((chip, die["name"]), (0.0, None, ""))[0]:
                    hottest[chip, die["name"]] = found
    rows = tuple((chip, die, peak, limit, where) for (chip, die), (peak, limit, where) in hottest.items())
    note = (
        "Steady temperature at the mean power of the task; ambient 45 degC, a heat sink as large as the package allows."
    )
    return Table("Temperature", ("chip", "die", "peak (degC)", "limit (degC)", "hottest at"), rows, note)


def order_table(point: tuple[str, str, int, int]) -> tuple[Table, dict[str, float]]:
    """The ReRAM tier beside the heat sink, as HeTraX has it, and at the bottom."""
    rows: list[tuple[Cell, ...]] = []
    peaks: dict[str, float] = {}
    for where, chip in (("at the heat sink", load_chip(HETRAX)), ("at the bottom", reram_first())):
        result = run_point(*point, (chip,)).results[HETRAX]
        assert result.thermal is not None
        peaks[where] = next(die["peak_K"] for die in result.thermal["dies"] if die["name"] == "reram") - 273.15
        rows.append((where, peaks[where], peak_C(result), 1e3 * result.latency_s, 1e3 * result.energy_J))
    head = ("ReRAM tier", "ReRAM peak (degC)", "peak (degC)", "time (ms)", "energy (mJ)")
    return Table("Order of the tiers", head, tuple(rows), f"At {Point(*point, {}, {}).label}."), peaks


def deciding_table(point: tuple[str, str, int, int]) -> Table:
    """How the assumed figures of the three chips move the ratios at one point."""
    hetrax, haima, transpim = (load_chip(name) for name in (HETRAX, *BASELINES))
    sm: Any = getattr(hetrax.components["sm"], "parameters")
    lanes: Any = getattr(hetrax.components["lanes"], "parameters")
    near: Any = getattr(haima.components["dram"], "parameters").near_bank
    inside: Any = getattr(transpim.components["dram"], "parameters").in_bank

    def multiprocessors(units: int) -> Chip:
        return changed(changed(hetrax, "sm", units), "lanes", units)

    def clocked(factor: float) -> Chip:
        chip = changed(hetrax, "sm", clock=what_if(sm.clock.value * factor, "Hz"))
        return changed(chip, "lanes", clock=what_if(lanes.clock.value * factor, "Hz"))

    def reused(vectors: int) -> Chip:
        return changed(haima, "dram", near_bank=near.model_copy(update={"reuse": what_if(vectors, "1")}))

    def parallel(subarrays: int) -> Chip:
        return changed(transpim, "dram", in_bank=inside.model_copy(update={"subarrays": subarrays}))

    stacks = haima.components["dram"].units
    cases: list[tuple[str, Chip, Chip, Chip]] = [("as in the library", hetrax, haima, transpim)]
    cases += [(f"HeTraX: {n} multiprocessors", multiprocessors(n), haima, transpim) for n in (7, 84)]
    cases += [(f"HeTraX: clock x {f:g}", clocked(f), haima, transpim) for f in (0.5, 2)]
    cases += [(f"HAIMA: {n} HBM2 stacks", hetrax, changed(haima, "dram", stacks * n), transpim) for n in (2, 4, 8)]
    cases += [(f"HAIMA: {n} tokens for each pass over the rows", hetrax, reused(n), transpim) for n in (4, 16)]
    cases += [(f"TransPIM: {n} subarrays of a bank at once", hetrax, haima, parallel(n)) for n in (2, 4, 8, 16)]
    rows: list[tuple[Cell, ...]] = []
    for text, *chips in cases:
        tried = run_point(*point, chips)
        if tried.refused:
            rows.append((f"{text}: {next(iter(tried.refused.values()))}", *(None,) * 7))
            continue
        ratios = [tried.ratio(chip, HETRAX, f) for f in ("latency_s", "energy_delay_product_Js") for chip in BASELINES]
        rows.append(
            (text, 1e3 * tried.results[HETRAX].latency_s, *ratios, *(peak_C(tried.results[chip]) for chip in BASELINES))
        )
    head = (
        "case",
        "HeTraX (ms)",
        "HAIMA: time",
        "TransPIM: time",
        "HAIMA: energy-delay",
        "TransPIM: energy-delay",
        "HAIMA (degC)",
        "TransPIM (degC)",
    )
    note = (
        f"Ratios to HeTraX at {Point(*point, {}, {}).label}; peaks in degC, the limit of DRAM being {DRAM_LIMIT_C:g}."
    )
    return Table("What the assumptions decide", head, tuple(rows), note)


def published_table(points: list[Point]) -> Table:
    """What is published of the two baselines themselves, and what the library's chips give."""
    haima = mean(points, "transpim", "haima", "latency_s")
    rates = [
        p.results["transpim"].operations / p.results["transpim"].latency_s for p in points if "transpim" in p.results
    ]
    power = [p.results["transpim"].average_power_W for p in points if "transpim" in p.results]
    rows: list[tuple[Cell, ...]] = [
        ("HAIMA's speed over TransPIM and Newton", "1.4 to 1.5", haima, "one HBM2 stack against TransPIM's eight"),
        (
            "TransPIM's mean power (W)",
            "about 40",
            sum(power) / len(power),
            "published ratios of speed to energy, 22.1/138.1 to 114.9/666.6, of a 250 W board",
        ),
        ("TransPIM's largest rate (TOP/s)", None, max(rates) / 1e12, "one subarray of a bank at a time"),
    ]
    return Table("The baselines by themselves", ("figure", "published", "here", "by"), tuple(rows), "")


def summary(points: list[Point], heat: Table, searched: list[SearchedPoint]) -> Table:
    """The published figures, each beside this study's."""
    rows: list[tuple[Cell, ...]] = []
    for figure, published, name in (
        ("latency_s", SPEED, "speed-up"),
        ("energy_delay_product_Js", PRODUCT, "energy-delay product"),
    ):
        for chip in BASELINES:
            top, middle = best(points, chip, HETRAX, figure), mean(points, chip, HETRAX, figure)
            if top and middle:
                told = verdict(published, top[0])
                rows.append((f"largest {name} over {chip}", published, top[0], top[0] / published, told, top[1]))
            if middle and len(points) > 1:
                rows.append((f"mean {name} over {chip}", None, middle, None, "", "over all points"))
            for one in searched:
                both = one.ratio(chip, HETRAX, figure)
                if both is not None:
                    told, where = verdict(published, both), f"at {one.point.label}"
                    rows.append((f"{name} over {chip}, both searched", published, both, both / published, told, where))
    for chip in (HETRAX, *BASELINES):
        own = [row for row in heat.rows if row[0] == chip and row[3] is not None]
        tight = min(own, key=lambda row: float(row[3] or 0) - float(row[2] or 0))
        claim = "feasible" if chip == HETRAX else None
        peak = float(tight[2] or 0)
        told = verdict(claim, peak, peak <= float(tight[3] or 0))
        rows.append((f"{chip}: hottest die with a limit of {tight[3]:g} degC", claim, peak, None, told, tight[4]))
    head = ("figure", "published", "here", "here / published", "verdict", "where")
    note = (
        "The abstract gives one maximum for all its baselines.  A number agrees within a quarter of the published one; "
    )
    note += "what can hold together is told by the study must-hold."
    return Table("Published and reproduced", head, tuple(rows), note, digits=3)


def run(options: StudyOptions) -> StudyResult:
    """The whole study.  Settings: ``models``, ``sequences``, ``batches`` (comma-separated)."""
    options.check_settings(SETTINGS)
    quick = options.quick
    models = tuple((options.settings.get("models") or ",".join(MODELS[:1] if quick else MODELS)).split(","))
    lengths = options.whole_numbers("sequences", (128,) if quick else (128, 256, 512, 1024))
    batches = options.whole_numbers("batches", (1,) if quick else (1, 8))
    chips = [load_chip(name) for name in (HETRAX, *BASELINES)]
    points = []
    for model in models:
        for batch in batches:
            for length in lengths:
                options.say(f"{model}, batch {batch}, {length} tokens")
                points.append(run_point(model, "inference", batch, length, chips))
    points = [point for point in points if HETRAX in point.results]
    first = (models[0], "inference", batches[0], lengths[0])
    options.say("order of tiers, sensitivity")
    heat = heat_table(points)
    wide = () if quick else ((models[0], "inference", batches[-1], 512),)
    searched = [searched_point(point, chips, options) for point in (first, *wide)]
    order, peaks = order_table((models[0], "inference", batches[-1], lengths[0]))
    deciding, ratios = deciding_table(first), ratio_table(points)
    fits = [p for p in points if not p.results[HETRAX].crossbar_writes]
    cool = [row for row in heat.rows if row[0] == HETRAX and row[3] is not None]
    checks = (
        Check(
            "HeTraX is faster than HAIMA and TransPIM wherever its feed-forward weights fit",
            all((p.ratio(chip, HETRAX, "latency_s") or 2) > 1 for p in fits for chip in BASELINES) and bool(fits),
            f"{len(fits)} of {len(points)} points",
        ),
        Check(
            "HeTraX stays below its limits",
            all(float(row[2] or 0) <= float(row[3] or 0) for row in cool),
            "; ".join(f"{row[1]} {row[2]:.1f} of {row[3]:.0f} degC" for row in cool),
        ),
        Check(
            "ReRAM is cooler beside the heat sink than at the bottom",
            peaks["at the heat sink"] < peaks["at the bottom"],
            f"{peaks['at the heat sink']:.1f} against {peaks['at the bottom']:.1f} degC",
        ),
    )
    every = points_table("Every point", points, (HETRAX, *BASELINES), "8-bit weights and activations.")
    return StudyResult(
        study="hetrax",
        title="HeTraX: multiprocessors over a ReRAM tier, against HAIMA and TransPIM",
        tables=(
            summary(points, heat, searched),
            *(searched_table(one, HETRAX) for one in searched),
            ratios,
            heat,
            order,
            published_table(points),
            deciding,
            every,
        ),
        checks=checks,
        remarks=_remarks(points, fits, heat, deciding),
        assumptions=evidence(chips),
        sources=tuple(library.citation(key).text for key in SOURCES),
        pictures=(
            Picture(
                table=ratios.title,
                x="point",
                y=(ratios.head[3],),
                by="chip",
                kind="bar",
                title="Time over that of HeTraX",
                unit="times",
                log=True,
                marks=(("published maximum", SPEED),),
            ),
            Picture(
                table=ratios.title,
                x="point",
                y=(ratios.head[5],),
                by="chip",
                kind="bar",
                title="Energy-delay product over that of HeTraX",
                unit="times",
                log=True,
                marks=(("published maximum", PRODUCT),),
            ),
            Picture(heat.title, "die", ("peak (degC)", "limit (degC)"), "chip", unit="degC"),
            Picture(deciding.title, "case", tuple(deciding.head[2:6]), unit="times", log=True),
            Picture(
                deciding.title,
                "case",
                tuple(deciding.head[6:]),
                title="Peak temperature",
                unit="degC",
                marks=(("limit of DRAM", DRAM_LIMIT_C),),
            ),
        ),
    )


def _remarks(points: list[Point], fits: list[Point], heat: Table, deciding: Table) -> tuple[str, ...]:
    """What was missed, by how much, and which assumption decides it."""
    said = []
    for figure, published, name in (
        ("latency_s", SPEED, "speed-up"),
        ("energy_delay_product_Js", PRODUCT, "gain in energy-delay product"),
    ):
        tops = {chip: best(points, chip, HETRAX, figure) for chip in BASELINES}
        texts = [f"{top[0]:.3g} over {chip}" for chip, top in tops.items() if top]
        said.append(
            f"The largest {name} is {' and '.join(texts)}, against {published:g} published over its baselines.  "
            "HAIMA's number of stacks, tokens for each pass over its rows, and TransPIM's subarrays at work decide it."
        )
    streamed = len(points) - len(fits)
    if streamed:
        said.append(
            f"At {streamed} of {len(points)} points the feed-forward weights exceed the one ReRAM tier and are written "
            "for every pass; these points are in the tables and not in the first check."
        )
    dram = [row for row in heat.rows if row[0] in BASELINES and row[3] is not None]
    hottest = max(float(row[2] or 0) for row in dram)
    said += [
        f"The DRAM of the baselines reaches {hottest:.1f} degC here, below its limit of {DRAM_LIMIT_C:g}.  In the "
        f"sensitivity table HAIMA reaches {max(float(row[6] or 0) for row in deciding.rows):.1f} with more stacks and "
        f"TransPIM {max(float(row[7] or 0) for row in deciding.rows):.1f} with more subarrays at work.",
        "Not checked, because not known: the paper's temperatures, its models and lengths, its own placement.",
    ]
    return tuple(said)
