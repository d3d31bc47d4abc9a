"""Figures of a Result about cells that wear, where things are held, and on what evidence."""

from __future__ import annotations

import hashlib
from typing import Any

import tierform
from tierform import library
from tierform.chip.crossbar.wear import WearLedger
from tierform.errors import TierformError
from tierform.provenance import Assumption, Citation, assumptions_first
from tierform.simulation.records import Wear
from tierform.simulation.run import STATIC_TEMPERATURE_K, Run
from tierform.workload.graph import Workload
from tierform.workload.task import describe


# -- memory, network, cells --------------------------------------------------------------------------------------
def placed(run: Run) -> dict[str, dict[str, int]]:
    """Bytes of each part of the footprint in each memory tier."""
    if run.placement is None:
        return {}
    return {
        part: {share.tier_name: share.size_B for share in shares if share.size_B}
        for part, shares in run.placement.shares.items()
        if any(share.size_B for share in shares)
    }


def crossbars(run: Run) -> dict[str, int]:
    """Crossbars of all holders: available, used, of streamed weights, of first copies."""
    holders = list(run.chip.can.holders.values())
    if not holders:
        return {}
    placements = run.mapping.placements
    return {
        "available": sum(int(part.crossbars) for part in holders),
        "used": sum(placement.total_crossbars for placement in placements),
        "streamed": sum(p.crossbars * p.copies * p.layers for p in placements if not p.resident),
        "first_copies": sum(p.crossbars * p.copies * p.layers for p in placements if p.resident),
    }


def wear(run: Run) -> Wear:
    """What is written to cells that wear, for the component that wears out first."""
    found: list[Wear] = []
    for name, part in run.chip.can.wearing.items():
        writes = run.ledger.cell_writes.get(name, 0)
        if not writes:
            found.append(Wear(0, 0.0, float(part.endurance_writes), None, None))
            continue
        found.append(_wear(run, name, part, writes))
    if not found:
        return Wear(0, 0.0, 0.0, None, None)
    return min(found, key=lambda made: made.lifetime_s if made.lifetime_s is not None else float("inf"))


def _wear(run: Run, name: str, part: Any, writes: int) -> Wear:
    ledger = WearLedger.of(part)
    own = [placement for placement in run.mapping.placements if placement.component == name]
    learning = sum(placement.total_crossbars for placement in own if placement.trainable)
    resident = sum(placement.total_crossbars for placement in own)
    ledger.write(0, min(learning, ledger.crossbars))
    # Streamed weights take turns in what is left; operands written for each product in all of them if nothing is.
    first = resident if resident < ledger.crossbars else 0
    ledger.rotate(first, ledger.crossbars - first, writes / ledger.cells_each - learning)
    most = ledger.most
    tasks = float(part.endurance_writes) / (most * run.steps)
    return Wear(
        writes * run.scale, most * run.steps, float(part.endurance_writes), tasks, tasks * run.pass_s * run.steps
    )


# -- evidence ----------------------------------------------------------------------------------------------------
def assumptions(run: Run) -> tuple[Assumption, ...]:
    """Every constant that was used, weakest evidence first."""
    lines = [*run.chip.assumptions(), *run.fabric.assumptions(), *run.memory.assumptions(), *run.runtime.evidence]
    if run.heat is None:
        note = "mean die temperature while no thermal model is asked for"
        lines.append(Assumption("static power", f"at {STATIC_TEMPERATURE_K:g} K", "assumed", "", note))
    return tuple(assumptions_first(lines))


def citations(run: Run, evidence: tuple[Assumption, ...]) -> tuple[Citation, ...]:
    """The sources of all constants and of the model, in full."""
    keys = sorted({line.source for line in evidence if line.source} | {run.workload.model.source} - {""})
    found = []
    for key in keys:
        try:
            found.append(library.citation(key))
        except TierformError:
            found.append(Citation(key, key))
    return tuple(found)


def versions(run: Run) -> dict[str, str]:
    """What produced the figures."""
    return {"tierform": tierform.__version__, "chip_sha256": run.chip.fingerprint, "inputs_sha256": run.inputs}


def hash_of(workload: Workload) -> str:
    """A hash of model, task and split."""
    text = f"{workload.model!r}|{describe(workload.task)!r}|{workload.parallelism!r}"
    return hashlib.sha256(text.encode()).hexdigest()
