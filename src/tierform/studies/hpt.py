"""HpT re-derived: full-parameter training on a GPU, then low-rank training on ReRAM tiers over a systolic tier.

Published (Dahal et al., TPDS 2025): up to 11.9 times less time and 12.05 times less energy than full-parameter training
on GPUs alone.  Here, for the four applications at batch 1: the GPU's step in full and in low-rank mode and the chip's
low-rank step through :func:`tierform.simulate`; the whole run's time and energy as a function of the step at which
training switches.  Charged: the trial (both models, on the GPU), moving the weights to the chip over a link, writing
its crossbars once, and, as the ends of the network keep learning, their cells' rewriting in every step (in the
simulated step and in the wear).
Limits: which GPU, its measured times, the chip's size and the switch steps of the paper were not available; the GPU's
time is a kernel model without the host's delays, so a batch-1 run of a framework is slower than modelled and the ratio
is a lower one.  Where the number of steps of an application is not known it is assumed, and marked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tierform.chip.component import WeightHolder
from tierform.chip.description import Chip
from tierform.errors import fail
from tierform.files import read_json
from tierform.provenance import Assumption
from tierform.simulation.result import Result
from tierform.studies.study import Check, StudyOptions, StudyResult, Table

TIME_PUBLISHED, ENERGY_PUBLISHED = 11.9, 12.05
SETTINGS = ("chip", "gpu", "ends", "link", "link_energy", "gpu_step", "log", "application")
RANK = 8
LINK_B_PER_S, LINK_J_PER_BIT = 32e9, 5e-12  # PCIe 4.0 x16, one direction; a serial link of this class


@dataclass(frozen=True, slots=True)
class Case:
    """An application's tokens, check window and steps in all; `known` says whether the steps are."""

    model: str
    tokens: int
    window: int
    steps: int
    known: bool
    why: str


CASES = {
    "swe": Case("hpt-swe", 323, 365, 24 * 3510, True, "24 epochs of 13 years of 270 days"),
    "weather": Case("hpt-weather", 29, 8000, 22 * 80_000, False, "22 epochs; ten check windows an epoch are assumed"),
    "covid": Case("hpt-covid", 50, 720, 20 * 7200, False, "20 epochs; ten check windows an epoch are assumed"),
    "wind": Case("hpt-wind", 57, 480, 24 * 6723, True, "24 epochs of the rows outside the test rows"),
}


def amdahl(before: float, twice: float, speedup: float) -> float:
    """1 / (f + g + (1 - f) / s): share before the switch, share of trial steps, speed-up of a step after it."""
    return 1 / (before + twice + (1 - before) / speedup)


def share_for(ratio: float, speedup: float, twice: float) -> float | None:
    """The share f before the switch at which the whole run is `ratio` times faster; None where no f gives it."""
    share = (1 / ratio - twice - 1 / speedup) / (1 - 1 / speedup) if speedup > 1 else -1.0
    return share if share >= 0 else None


def _costs(name: str, case: Case, options: StudyOptions, ends: bool) -> tuple[Any, dict[str, Any], list[Any]]:
    from tierform.chip.description import load_chip
    from tierform.simulation.simulate import simulate
    from tierform.tuning.costs import PhaseCost, StepCosts, low_rank_of, step_task
    from tierform.workload import Full, expand, load_model

    model = load_model(case.model)
    gpu, chip = (
        load_chip(options.settings.get(key, key_default)) for key, key_default in (("gpu", "a100"), ("chip", "hpt"))
    )
    options.say(f"{name}: GPU and chip, one step")
    full_task, low_task = step_task(model, Full()), step_task(model, low_rank_of(RANK, ends=ends))
    full, trial = simulate(model, full_task, gpu), simulate(model, low_task, gpu)
    low = simulate(model, low_task, chip)
    scale = _number(options, "gpu_step", 0.0) / full.latency_s or 1.0
    move_B = model.parameters * 2
    link, link_J = _number(options, "link", LINK_B_PER_S), _number(options, "link_energy", LINK_J_PER_BIT)
    move_s, move_J, reprogrammed = moving(low, chip, move_B, link, link_J)
    costs = StepCosts(
        PhaseCost.of(full).scaled(scale), PhaseCost.of(trial).scaled(scale), PhaseCost.of(low), move_s, move_J
    )
    device: Any = gpu.components.get("gpu")
    kernels = sum(times for _, _, _, times in expand(model, full_task).occurrences())
    more = {
        "operators": kernels,
        "launch_s": kernels * device.parameters.launch.value if device else math.nan,
        "crossbars": reprogrammed,
        "writes_per_step": low.wear.writes_per_cell,
        "endurance": low.wear.endurance_writes,
        "operations": full.operations,
    }
    return costs, more, [*full.assumptions, *low.assumptions]


def moving(low: Result, chip: Chip, size_B: float, link: float, link_J: float) -> tuple[float, float, int]:
    """Seconds and joules of moving the weights to the chip and writing its crossbars once, and how many there are."""
    move_s, move_J, written = size_B / link, 8 * size_B * link_J, 0
    placements = low.mapping.placements if low.mapping else ()
    for name, component in chip.components.items():
        count = sum(p.total_crossbars for p in placements if p.resident and p.component == name)
        if count and isinstance(component, WeightHolder):
            one = component.programming_cost(count)
            move_s, move_J, written = move_s + one.latency_s, move_J + one.total_energy_J, written + count
    return move_s, move_J, written


def _number(options: StudyOptions, key: str, default: float) -> float:
    text = options.settings.get(key)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        fail("a number greater than 0 is needed", key=key, value=text)
    return value


def _measured(options: StudyOptions) -> tuple[str, float, float, int, int] | None:
    """Application, shares of steps before the switch and on trial, windows before it and on trial, from a log."""
    path = options.settings.get("log")
    if path is None:
        return None
    name = options.settings.get("application", "wind")
    log = read_json(Path(path)).content
    if not isinstance(log, dict) or log.get("schema") != "tierform.tuning-log/1":
        fail("this is not a log.json of tierform tune", file=path)
    if not log["switch_step"]:
        fail("the logged run never switched", file=path)
    rows = log["rows"]
    trial = sum(row[1] == "trial" for row in rows)
    window = log["decisions"][0]["step"]  # the first decision ends the first window
    return name, log["switch_step"] / len(rows), trial / len(rows), log["switch_step"] // window, trial // window


def run(options: StudyOptions) -> StudyResult:
    """The study; settings: chip, gpu, ends (learn or frozen), link (B/s), link_energy (J/bit), gpu_step (s), log."""
    from tierform.tuning.costs import whole_run

    options.check_settings(SETTINGS)
    ends = options.settings.get("ends", "learn")
    if ends not in ("learn", "frozen"):
        fail("not a known choice", key="ends", value=ends, choices=("learn", "frozen"), fix="learn or frozen")
    chosen = options.settings.get("application")
    if chosen is not None and chosen not in CASES:
        fail("no such application", key="application", value=chosen, choices=CASES, fix=", ".join(CASES))
    if "gpu_step" in options.settings and chosen is None:
        fail("a measured step is of one application", key="gpu_step", fix="Set application too.")
    names = [chosen] if chosen else (["wind"] if options.quick else list(CASES))
    measured = _measured(options)
    steps_rows, run_rows, bound_rows, wear_rows, logged = [], [], [], [], []
    assumptions: dict[Any, None] = {}
    checks: list[Check] = []
    best_time = best_energy = 0.0
    for name in names:
        case = CASES[name]
        costs, more, assumed = _costs(name, case, options, ends == "learn")
        assumptions |= dict.fromkeys(assumed)
        s, e = costs.full.seconds / costs.low.seconds, costs.full.joules / costs.low.joules
        steps_rows.append(
            (
                name,
                1e3 * costs.full.seconds,
                1e3 * costs.trial.seconds,
                1e3 * costs.low.seconds,
                s,
                1e3 * costs.full.joules,
                1e3 * costs.low.joules,
                e,
                more["operators"],
                1e3 * more["launch_s"],
            )
        )
        earliest = 5 * case.window
        places = [earliest, *(round(share * case.steps) for share in (0.05, 0.1, 0.2, 0.5))]
        previous = math.inf
        falling = True
        for switch in sorted({place for place in places if earliest <= place < case.steps}):
            whole = whole_run(costs, case.steps, switch, case.window)
            faster, less = whole.full_s / whole.seconds, whole.full_J / whole.joules
            run_rows.append(
                (
                    name,
                    switch,
                    100 * switch / case.steps,
                    whole.full_s,
                    whole.seconds,
                    faster,
                    less,
                    case.known,
                )
            )
            best_time, best_energy = max(best_time, faster), max(best_energy, less)
            falling &= (faster <= previous) or costs.low.seconds > costs.full.seconds
            previous = faster
        checks.append(Check(f"{name}: the later the switch, the smaller the gain", falling, f"s = {s:.2f}"))
        twice = case.window / case.steps
        early = amdahl(earliest / case.steps, twice, s)
        needed = TIME_PUBLISHED
        limit = 1 / (earliest / case.steps + twice)
        share = share_for(needed, s, twice)
        f, g = earliest / case.steps, twice
        rest = 1 / needed - f - g
        bound_rows.append(
            (
                name,
                100 * f,
                100 * g,
                s,
                early,
                limit,
                (1 - f) / rest if rest > 0 else None,
                None if share is None else 100 * share,
            )
        )
        writes = 1 + more["writes_per_step"] * (case.steps - earliest)
        wear_rows.append(
            (
                name,
                more["crossbars"],
                more["writes_per_step"],
                writes,
                more["endurance"],
                100 * writes / more["endurance"],
                1e3 * costs.move_s,
                1e3 * costs.move_J,
            )
        )
        if measured and measured[0] == name:
            _, before, trial, windows, repeated = measured
            for what, switch, twice_steps in (
                ("the same share of the run", round(before * case.steps), round(trial * case.steps)),
                ("as many windows", windows * case.window, repeated * case.window),
            ):
                whole = whole_run(costs, case.steps, switch, twice_steps)
                logged.append(
                    (
                        name,
                        what,
                        switch,
                        100 * switch / case.steps,
                        100 * twice_steps / case.steps,
                        whole.full_s / whole.seconds,
                        whole.full_J / whole.joules,
                    )
                )
    tables = [
        Table(
            "One step at batch 1",
            (
                "application",
                "GPU full (ms)",
                "GPU low-rank (ms)",
                "chip low-rank (ms)",
                "time ratio",
                "GPU full (mJ)",
                "chip low-rank (mJ)",
                "energy ratio",
                "operators",
                "launches alone (ms)",
            ),
            tuple(steps_rows),
            "Launches alone: operators times the GPU model's launch time, no fusion.  The host's delays are not in.",
        ),
        Table(
            "The whole run by the step of the switch",
            (
                "application",
                "switch step",
                "of all (%)",
                "GPU only (s)",
                "hybrid (s)",
                "time ratio",
                "energy ratio",
                "steps known",
            ),
            tuple(run_rows),
            f"Published maxima: {TIME_PUBLISHED} (time) and {ENERGY_PUBLISHED} (energy).  Trial, transfer and "
            "programming are charged; the first row of each is the earliest switch, five windows.",
        ),
        Table(
            "Amdahl's bound",
            (
                "application",
                "earliest f (%)",
                "g (%)",
                "s",
                "ratio",
                "ratio if s were infinite",
                "s needed for 11.9",
                "latest f for 11.9 (%)",
            ),
            tuple(bound_rows),
            "1 / (f + g + (1 - f)/s); empty: out of reach.",
        ),
        Table(
            "Wear and moving",
            (
                "application",
                "crossbars",
                "writes a step",
                "writes a run",
                "endurance",
                "used (%)",
                "moving (ms)",
                "moving (mJ)",
            ),
            tuple(wear_rows),
            "Writes of the most written cell; they come from the ends of the network, which keep learning.",
        ),
    ]
    if logged:
        tables.append(
            Table(
                "The switch that was measured",
                (
                    "application",
                    "carried over as",
                    "switch step",
                    "before the switch (%)",
                    "trial (%)",
                    "time ratio",
                    "energy ratio",
                ),
                tuple(logged),
                "The logged run is shorter than the published one: its switch carried over as its share "
                "of the run, and as the number of its windows.",
            )
        )
    summary = Table(
        "Published and reproduced",
        ("figure", "published, up to", "here, best"),
        (
            ("training time, GPU only over hybrid", TIME_PUBLISHED, best_time),
            ("training energy, GPU only over hybrid", ENERGY_PUBLISHED, best_energy),
        ),
        f"Of {', '.join(names)}; no constant was chosen to meet the published figures.",
    )
    own = [
        Assumption(f"steps of {name}", str(CASES[name].steps), "assumed", "", CASES[name].why)
        for name in names
        if not CASES[name].known
    ]
    for key, default, note in (
        ("link", "32e9 B/s", "PCIe 4.0 x16, one direction"),
        ("link_energy", "5e-12 J/bit", "a serial link of this class"),
    ):
        if key not in options.settings:
            own.append(Assumption(key, default, "assumed", "", note))
    from tierform.library import citation

    remarks = (
        f"The GPU is {options.settings.get('gpu', 'a100')}, modelled at batch 1; none was measured for these tables.  "
        "A framework that launches every operator from the host is slower than this model (set gpu_step to a measured "
        "time of one application).",
        "Not checked, because the paper's text was not available: its GPU, its chip's size, the steps at which its "
        "runs switched, and its results by application.",
        "The published maxima are met only where the chip's step is about 17 times faster than the GPU's (at the "
        "earliest switch of the snow-water application); the table of one step says what this model gives.",
    )
    return StudyResult(
        study="hpt",
        title="HpT: full-parameter training on a GPU, then low-rank training on ReRAM over systolic",
        tables=(summary, *tables),
        checks=tuple(checks),
        remarks=remarks,
        assumptions=tuple(own) + tuple(assumptions),
        sources=(citation("hpt-2024").text,),
    )
