"""DRAM with arithmetic against the memory engine and against what its designs publish.

- Banks streamed row after row by a product with one vector, as it is charged, and one bank of the same DRAM in the
  cycle engine (a simulator).
- Published of TransPIM and HAIMA: the ratio of their speeds, TransPIM's power as its speed and energy ratios imply it.

There is no measured silicon in it, and no user's data can replace the built-in points.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from tierform.chip.description import load_component
from tierform.chip.pim import DramPim
from tierform.chip.sample_operators import product
from tierform.errors import fail
from tierform.memory import CycleMemory, Trace, load_dram
from tierform.simulation import charge
from tierform.simulation.simulate import simulate
from tierform.validation.charged import chip_of
from tierform.validation.ledger import EngineLedger, Point, Tolerance
from tierform.workload import Inference

_STREAM = Tolerance(relative=0.03)
_ROWS = 400
_BOARD_W = 250.0  # the board that TransPIM's ratios are to
_SPEED, _ENERGY = (22.1, 114.9), (138.1, 666.6)  # least and largest published, in this order
_SIZES = (("bert-base", 1, 128), ("bert-base", 1, 512), ("gpt2", 1, 256), ("gpt2", 8, 512), ("bert-large", 1, 512))


def ledger(folder: Path | None = None) -> EngineLedger:
    """Every point computed anew; see the module's text."""
    if folder is not None:
        fail("this engine has no points that data of yours could replace", value=str(folder))
    points = [_streamed("haima-dram", "hbm2"), _streamed("attacc-hbm3", "hbm3"), *_published()]
    remarks = (
        "The published figures were in view when two unknown whole numbers were assumed, HAIMA's one stack and the one "
        "subarray of a bank at work in TransPIM; they count as fitted.",
        "TransPIM's power is implied: a 250 W board times the ratio of its speed to its energy saving.",
    )
    return EngineLedger("pim", points, remarks)


def _streamed(component: str, memory: str) -> Point:
    """Bytes a second of one bank while a matrix that fills so many rows of every bank is multiplied by one vector."""
    spec = load_dram(memory).with_channels(1)
    spec = replace(spec, controller=replace(spec.controller, refresh="all-bank"))
    position = spec.address_map().position
    row, column = np.divmod(np.arange(_ROWS * spec.bursts_per_row, dtype=np.int64), spec.bursts_per_row)
    address = ((row << position["ro"]) + (column << position["co"])) * spec.burst_bytes
    nothing = np.zeros(address.size, np.int64)
    run = CycleMemory(spec).run(Trace(nothing, address, nothing.astype(bool)))
    part = cast(DramPim, load_component(component, 1, component))
    held_B = _ROWS * part.parameters.banks * int(part.parameters.timing.row_bytes.value)
    edge = math.isqrt(held_B)
    operator = product(1, held_B // edge, edge)
    (cost,) = charge(chip_of(part), (operator,))
    return Point(
        case=f"{component}, {_ROWS} rows of one bank",
        quantity="bandwidth of a bank",
        unit="GB/s",
        reference=run.bandwidth_B_per_s / 1e9,
        ours=cost.memory_read_B / part.parameters.banks / cost.occupancy_s / 1e9,
        tolerance=_STREAM,
        source="cycle engine of this project, itself held against DRAMsim3",
        evidence="simulator",
    )


def _published() -> list[Point]:
    ratios, powers = [], []
    for model, batch, sequence in _SIZES:
        task = Inference(batch=batch, sequence=sequence)
        haima, transpim = (simulate(model, task, chip) for chip in ("haima", "transpim"))
        ratios.append(transpim.latency_s / haima.latency_s)
        powers.append(transpim.average_power_W)
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    implied = sum(_BOARD_W * speed / energy for speed, energy in zip(_SPEED, _ENERGY, strict=True)) / 2
    return [
        Point(
            case="HAIMA over TransPIM, mean of five sizes",
            quantity="speed",
            unit="",
            reference=1.45,
            ours=mean,
            tolerance=Tolerance(relative=0.25),
            source="haima-2023",
            evidence="published",
            fitted=True,
            note="1.4 to 1.5",
        ),
        Point(
            case="TransPIM, mean of five sizes",
            quantity="power",
            unit="W",
            reference=implied,
            ours=sum(powers) / len(powers),
            tolerance=Tolerance(relative=0.25),
            source="transpim-2022",
            evidence="published",
            fitted=True,
        ),
    ]
