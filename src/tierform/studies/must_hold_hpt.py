"""The sides, assumptions and claims of HpT; see :mod:`tierform.studies.must_hold_parts`.

Every application switches as early as its rule allows, after five windows.  Moving the weights takes milliseconds of
hours, whatever the link, and is charged with the study's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from tierform.errors import TierformError
from tierform.exploration.evaluator import figures_of_result
from tierform.simulation.simulate import simulate
from tierform.studies.hpt import CASES, ENERGY_PUBLISHED, LINK_B_PER_S, LINK_J_PER_BIT, RANK, TIME_PUBLISHED, moving
from tierform.studies.must_hold_chips import (
    ARRAY_ENERGY,
    ARRAYS,
    CLOCK,
    LEAKAGE,
    LINKS,
    SOFTWARE,
    near,
    software,
    stack,
)
from tierform.studies.must_hold_parts import Claim, Design, Floats, Knob, Side, System
from tierform.tuning.costs import low_rank_of, step_task
from tierform.workload import Full, load_model


def _on_gpu(design: Design) -> dict[str, float]:
    """A full and a low-rank step of each application."""
    gpu, found = software(design), {}
    for name, case in CASES.items():
        model = load_model(case.model)
        for phase, method in (("full", Full()), ("trial", low_rank_of(RANK))):
            result = simulate(model, step_task(model, method), gpu)
            found[f"{phase} s {name}"], found[f"{phase} J {name}"] = result.latency_s, result.energy_J
    return found


def _on_chip(design: Design) -> dict[str, float]:
    """A low-rank step of each application, and moving there."""
    chip, found = stack("hpt", design), {"over_K": 0.0}
    for name, case in CASES.items():
        model = load_model(case.model)
        method = low_rank_of(RANK, ends=design["ends of the network"] == "learn")
        keys = [f"{what} {unit} {name}" for what in ("low", "move") for unit in "sJ"]
        try:
            result = simulate(model, step_task(model, method), chip)
        except TierformError:
            found |= dict.fromkeys(keys, math.nan)
            continue
        move = moving(result, chip, model.parameters * 2, LINK_B_PER_S, LINK_J_PER_BIT)
        found |= dict(zip(keys, (result.latency_s, result.energy_J, *move[:2]), strict=True))
        found["over_K"] = max(found["over_K"], figures_of_result(result)["kelvin_over"])
    return found


def _gain(name: str, unit: str) -> Callable[[Mapping[str, Floats]], Floats]:
    """Full training over the run that switches as early as it may."""
    case = CASES[name]
    early, rest = 5 * case.window, case.steps - 5 * case.window

    def ratio(f: Mapping[str, Floats]) -> Floats:
        full, trial = f[f"GPU: full {unit} {name}"], f[f"GPU: trial {unit} {name}"]
        low, move = f[f"HpT: low {unit} {name}"], f[f"HpT: move {unit} {name}"]
        return np.asarray(case.steps * full / (early * full + case.window * trial + rest * low + move), np.float64)

    return ratio


def _over_all(unit: str, choose: Callable[[Floats, Floats], Floats]) -> Callable[[Mapping[str, Floats]], Floats]:
    def ratio(f: Mapping[str, Floats]) -> Floats:
        best = np.full(1, np.nan)
        for name in CASES:
            best = choose(best, _gain(name, unit)(f))
        return best

    return ratio


def hpt() -> System:
    """The chip of the low-rank phase and a GPU."""
    ends = Knob("ends of the network", ("learn", "frozen"), "learn", "", "they learn in the published code")
    arrays = Knob(ARRAYS.name, (4.0, 16.0, 64.0), 16.0, "", "not given; as of Atleus")
    gpu = Knob("GPU", ("a100", "v100"), "a100", "", "not given; boards of 2017 and 2020")
    return System(
        "HpT",
        (
            Side("HpT", (arrays, CLOCK, ARRAY_ENERGY, LEAKAGE, LINKS, ends), _on_chip),
            Side("GPU", (gpu, *SOFTWARE), _on_gpu),
        ),
        (
            near("largest gain in time", TIME_PUBLISHED, _over_all("s", np.fmax)),
            near("largest gain in energy", ENERGY_PUBLISHED, _over_all("J", np.fmax)),
            Claim("every application faster", "faster", 1.0, math.inf, _over_all("s", np.fmin)),
            Claim("every application takes less energy", "less", 1.0, math.inf, _over_all("J", np.fmin)),
            Claim("kelvin beyond a limit of HpT", "none", 0.0, 0.0, lambda f: f["HpT: over_K"], "K"),
        ),
    )
