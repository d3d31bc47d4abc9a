"""The sides, assumptions and claims of Atleus and HeTraX; see :mod:`tierform.studies.must_hold_parts`.

Ranges are of what the sources leave open.  A published number holds within a quarter of it: no assumption here is known
better than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from tierform.chip.description import Chip, load_chip
from tierform.exploration.evaluator import figures_of_result
from tierform.simulation.result import Result
from tierform.studies.atleus_tables import ATLEUS, ENERGY, OPERATIONS, SPEED, stage_times
from tierform.studies.must_hold_parts import Claim, Design, Floats, Knob, Side, System
from tierform.studies.sweep import changed, run_point, slower_software, what_if

WITHIN = 0.25
Point = tuple[str, str, int, int]
ATLEUS_POINTS: tuple[Point, ...] = (
    ("roberta-base", "inference", 1, 128),
    ("roberta-base", "fine-tuning", 1, 128),
    ("gpt2-medium", "inference", 1, 1024),
    ("gpt2-medium", "fine-tuning", 1, 1024),
)
HETRAX_POINTS: tuple[Point, ...] = (
    ("bert-base", "inference", 1, 128),
    ("bert-base", "inference", 1, 1024),
    ("bert-base", "inference", 8, 128),
)
BALANCED = 1.5

# Assumptions that stacks of ReRAM and arrays share.
ARRAYS = Knob("arrays", (2.0, 4.0, 8.0, 16.0, 32.0, 64.0), 16.0, "", "a number is not given; 16 ReRAM cores are")
CLOCK = Knob("array clock", (0.5, 1.0, 2.0), 1.0, "GHz", "not given; arrays of 10 nm run at 0.5 to 2")
ARRAY_ENERGY = Knob(
    "energy of arrays",
    (0.75, 1.0, 3.0, 6.0, 12.0),
    1.0,
    "times",
    "45 nm figures divided by 6; published factors are 5 to 8; undivided, and with clocks and control as much again",
)
LEAKAGE = Knob("leakage of a ReRAM tile", (1.0, 10.0, 30.0), 10.0, "mW", "ISAAC's 330 mW are not split; 0.3 to 9 %")
LINKS = Knob("link width", (64.0, 256.0), 256.0, "bit", "not given; narrow and as ISAAC's flit")
SOFTWARE = (
    Knob("kernels", ("fused", "one an operator"), "fused", "", "what libraries fuse, and a plain framework"),
    Knob("software time a kernel", (0.0, 10.0, 30.0, 100.0), 0.0, "us", "captured graphs to a host of an edge board"),
)


def near(
    name: str, published: float, figure: Callable[[Mapping[str, Floats]], Floats], *, counts: bool = True
) -> Claim:
    """A published number, within a quarter of it."""
    return Claim(name, published, published / (1 + WITHIN), published * (1 + WITHIN), figure, counts=counts)


def label(point: Point) -> str:
    """A point in a few characters."""
    return f"{point[0]} {point[1]} {point[2]} x {point[3]}"


def figures_at(
    points: tuple[Point, ...], chip: Chip, more: Callable[[Point, Result], dict[str, float]]
) -> dict[str, float]:
    """Time and energy of a chip at each point, nan where it cannot run, and how far it is beyond a limit at worst."""
    found: dict[str, float] = {"over_K": 0.0}
    for point in points:
        result = run_point(*point, (chip,)).results.get(chip.name)
        found[f"time {label(point)}"] = result.latency_s if result else math.nan
        found[f"energy {label(point)}"] = result.energy_J if result else math.nan
        if result:
            found["over_K"] = max(found["over_K"], figures_of_result(result)["kelvin_over"])
            found |= more(point, result)
    return found


def nothing(point: Point, result: Result) -> dict[str, float]:
    """No more figures."""
    return {}


def parameters(chip: Chip, name: str) -> Any:
    """The parameters of a component, whatever kind it is."""
    return getattr(chip.components[name], "parameters")


@lru_cache(maxsize=16)
def linked(name: str, width: float) -> Chip:
    """A stack with planar and vertical links of a width."""
    chip = load_chip(name)
    if chip.network is not None and chip.network.width.value == width:
        return chip
    return chip.vary({"network.width": f"{width:g} bit", "network.vertical.width": f"{width:g} bit"})


def counted(chip: Chip, units: float, arrays: str, vectors: str) -> Chip:
    """Another number of arrays and of the vector units beside them."""
    return changed(changed(chip, arrays, int(units)), vectors, int(units))


def clocked(chip: Chip, clock_Hz: float, arrays: str, vectors: str) -> Chip:
    """Arrays and vector units at another clock, the arrays' clock being `clock_Hz`; energies stay."""
    own, beside = (parameters(chip, name).clock.value for name in (arrays, vectors))
    chip = changed(chip, arrays, clock=what_if(clock_Hz, "Hz"))
    return changed(chip, vectors, clock=what_if(beside * clock_Hz / own, "Hz"))


def heavier(chip: Chip, factor: float, arrays: str) -> Chip:
    """Arrays whose products and SRAM take so many times the energy."""
    p = parameters(chip, arrays)
    energies = {form: what_if(one.value * factor, "J") for form, one in p.mac_energy.items()}
    return changed(chip, arrays, mac_energy=energies, sram_energy=what_if(p.sram_energy.value * factor, "J/B"))


def stack(name: str, design: Design) -> Chip:
    """Atleus, or the chip of HpT, with these assumptions."""
    chip = linked(name, _number(design, LINKS))
    chip = counted(chip, _number(design, ARRAYS), "systolic", "vector")
    chip = clocked(chip, 1e9 * _number(design, CLOCK), "systolic", "vector")
    chip = heavier(chip, _number(design, ARRAY_ENERGY), "systolic")
    return changed(chip, "reram", leakage=what_if(1e-3 * _number(design, LEAKAGE), "W"))


def _number(design: Design, knob: Knob) -> float:
    return float(design[knob.name])


def software(design: Design) -> Chip:
    """A GPU with the software and number format of a design."""
    gpu = load_chip(str(design["GPU"]))
    if design.get("numbers") == "int8":
        assert gpu.precision is not None
        gpu = replace(gpu, precision=replace(gpu.precision, weights="int8", activations="int8"))
    kernels, wait = (design[knob.name] for knob in SOFTWARE)
    return slower_software(gpu, 1e-6 * float(wait), fused=kernels == "fused")


def haima(design: Design) -> Chip:
    """HAIMA with so many stacks and tokens for each pass over its rows."""
    chip = load_chip("haima")
    bank = parameters(chip, "dram").near_bank.model_copy(update={"reuse": what_if(float(design["tokens a pass"]), "1")})
    return changed(chip, "dram", chip.components["dram"].units * int(float(design["HBM2 stacks"])), near_bank=bank)


def _haima_side(points: tuple[Point, ...]) -> Side:
    knobs = (
        Knob("HBM2 stacks", (1.0, 2.0, 4.0, 8.0), 1.0, "", "not given; a GPU's board has four to eight"),
        Knob("tokens a pass", (1.0, 4.0, 16.0), 1.0, "", "how often rows are streamed is not given"),
    )
    return Side("HAIMA", knobs, lambda design: figures_at(points, haima(design), nothing))


def _tpu(design: Design) -> Chip:
    chip = counted(load_chip("tpu-3d"), float(design["arrays"]), "systolic", "vector")
    return clocked(chip, 1e9 * float(design["array clock"]), "systolic", "vector")


def _atleus_more(point: Point, result: Result) -> dict[str, float]:
    if point != ATLEUS_POINTS[-1]:
        return {}
    parts = result.energy_J_by_component
    active = {name: e - result.energy_J_by_part.get(f"{name}: idle and leakage", 0.0) for name, e in parts.items()}
    stages = stage_times(result)
    return {
        "reram share": 100 * active["reram"] / math.fsum(active.values()),
        "balance": max(stages) / min(stages),
        "operations": 100 * result.operation_share.get("reram", 0.0),
    }


def over(chip: str, own: str, figure: str, point: Point) -> Callable[[Mapping[str, Floats]], Floats]:
    """How many times more of a figure a chip takes than the own one at a point."""
    return lambda f: f[f"{chip}: {figure} {label(point)}"] / f[f"{own}: {figure} {label(point)}"]


def largest(
    chips: tuple[str, ...], own: str, figures: tuple[str, ...], points: tuple[Point, ...]
) -> Callable[[Mapping[str, Floats]], Floats]:
    """The largest ratio (of products of `figures`) over the points and chips."""

    def ratio(f: Mapping[str, Floats]) -> Floats:
        best = np.full(1, np.nan)
        for chip in chips:
            for point in points:
                one = np.ones(1)
                for figure in figures:
                    one = one * over(chip, own, figure, point)(f)
                best = np.fmax(best, one)
        return best

    return ratio


def over_best(
    chips: tuple[str, ...], own: str, figures: tuple[str, ...], points: tuple[Point, ...]
) -> Callable[[Mapping[str, Floats]], Floats]:
    """The largest over the points of the smallest ratio over the chips: against the best of them."""

    def ratio(f: Mapping[str, Floats]) -> Floats:
        best = np.full(1, np.nan)
        for point in points:
            lowest = np.full(1, np.nan)
            for chip in chips:
                lowest = np.fmin(lowest, largest((chip,), own, figures, (point,))(f))
            best = np.fmax(best, lowest)
        return best

    return ratio


def least(chip: str, own: str, figure: str, points: tuple[Point, ...]) -> Callable[[Mapping[str, Floats]], Floats]:
    """The smallest ratio over the points."""

    def ratio(f: Mapping[str, Floats]) -> Floats:
        best = np.full(1, np.nan)
        for point in points:
            best = np.fmin(best, over(chip, own, figure, point)(f))
        return best

    return ratio


def _axis(key: str) -> Callable[[Mapping[str, Floats]], Floats]:
    return lambda f: f[key]


def _closer(f: Mapping[str, Floats]) -> Floats:
    """HAIMA's time over Atleus's in fine-tuning over that in inference, mean over equal points."""
    apart = [
        over("HAIMA", "Atleus", "time", tuned)(f) / over("HAIMA", "Atleus", "time", read)(f)
        for read, tuned in (ATLEUS_POINTS[:2], ATLEUS_POINTS[2:])
    ]
    return np.asarray(np.sqrt(apart[0] * apart[1]), np.float64)


def atleus() -> System:
    """Atleus, a GPU, HAIMA and the 3D-stacked TPU."""
    points = ATLEUS_POINTS
    gpu = (
        Knob("GPU", ("a100", "jetson-agx-orin"), "a100", "", "not given; a data centre's or an edge board"),
        Knob("numbers", ("bf16", "int8"), "bf16", "", "native, or as wide as on Atleus"),
        *SOFTWARE,
    )
    tpu = (Knob("arrays", (4.0, 8.0, 16.0, 64.0), 64.0, "", "not given; one to sixteen a tier"), CLOCK)
    return System(
        "Atleus",
        (
            Side(
                "Atleus",
                (ARRAYS, CLOCK, ARRAY_ENERGY, LEAKAGE, LINKS),
                lambda design: figures_at(points, stack(ATLEUS, design), _atleus_more),
            ),
            Side("GPU", gpu, lambda design: figures_at(points, software(design), nothing)),
            _haima_side(points),
            Side("3D-TPU", tpu, lambda design: figures_at(points, _tpu(design), nothing)),
        ),
        (
            near("largest speed-up over the GPU", SPEED, largest(("GPU",), "Atleus", ("time",), points)),
            near("largest energy saving over the GPU", ENERGY, largest(("GPU",), "Atleus", ("energy",), points)),
            Claim("operations on ReRAM", OPERATIONS, 91.8, 92.0, _axis("Atleus: operations"), "%"),
            Claim(
                "ReRAM's energy, leakage left out",
                "the smaller part",
                -math.inf,
                50.0,
                _axis("Atleus: reram share"),
                "%",
            ),
            Claim("longest stage over shortest", "balanced", 1.0, BALANCED, _axis("Atleus: balance")),
            Claim("HAIMA slower", "slower", 1.0, math.inf, least("HAIMA", "Atleus", "time", points)),
            Claim("HAIMA closer in inference", "a bit closer", 1.0, math.inf, _closer),
            Claim("3D-TPU slower", "slower", 1.0, math.inf, least("3D-TPU", "Atleus", "time", points)),
            Claim("3D-TPU takes more energy", "more", 1.0, math.inf, least("3D-TPU", "Atleus", "energy", points)),
            Claim("kelvin beyond a limit of Atleus", "none", 0.0, 0.0, _axis("Atleus: over_K"), "K"),
        ),
    )


def _hetrax(design: Design) -> Chip:
    chip = linked("hetrax", _number(design, LINKS))
    chip = counted(chip, float(design["multiprocessors"]), "sm", "lanes")
    chip = clocked(chip, 1e9 * float(design["clock"]), "sm", "lanes")
    chip = heavier(chip, float(design["energy of multiprocessors"]), "sm")
    return changed(chip, "reram", leakage=what_if(1e-3 * _number(design, LEAKAGE), "W"))


def _transpim(design: Design) -> Chip:
    chip = load_chip("transpim")
    inside = parameters(chip, "dram").in_bank
    parallel = inside.model_copy(update={"subarrays": int(float(design["subarrays at once"]))})
    return changed(chip, "dram", in_bank=parallel)


def hetrax() -> System:
    """HeTraX, HAIMA and TransPIM."""
    points, both = HETRAX_POINTS, ("HAIMA", "TransPIM")
    knobs = (
        Knob("multiprocessors", (7.0, 21.0, 42.0, 84.0), 21.0, "", "recalled, not verified"),
        Knob("clock", (0.7, 1.4, 2.1), 1.4, "GHz", "not given; multiprocessors run at 0.7 to 2.1"),
        Knob("energy of multiprocessors", (0.6, 1.0, 5.0), 1.0, "times", "45 nm figures divided by 5; by 8, undivided"),
        LEAKAGE,
        LINKS,
    )
    at_once = Knob("subarrays at once", (1.0, 2.0, 4.0, 8.0, 16.0), 1.0, "", "how many of a bank work is not given")
    time, delay = ("time",), ("time", "energy")
    return System(
        "HeTraX",
        (
            Side("HeTraX", knobs, lambda design: figures_at(points, _hetrax(design), nothing)),
            _haima_side(points),
            Side("TransPIM", (at_once,), lambda design: figures_at(points, _transpim(design), nothing)),
        ),
        (
            near("largest speed-up over the better baseline", 5.6, over_best(both, "HeTraX", time, points)),
            near("largest energy-delay gain over the better", 14.5, over_best(both, "HeTraX", delay, points)),
            near("read otherwise: speed-up, either", 5.6, largest(both, "HeTraX", time, points), counts=False),
            near("read otherwise: energy-delay, either", 14.5, largest(both, "HeTraX", delay, points), counts=False),
            Claim("HAIMA no faster", "slower", 1.0, math.inf, least("HAIMA", "HeTraX", "time", points)),
            Claim("TransPIM no faster", "slower", 1.0, math.inf, least("TransPIM", "HeTraX", "time", points)),
            Claim("kelvin beyond a limit of HeTraX", "none", 0.0, 0.0, _axis("HeTraX: over_K"), "K"),
            near("HAIMA's speed over TransPIM", 1.45, over("TransPIM", "HAIMA", "time", points[0])),
        ),
    )
