"""SmartQuant under load: weights behind a CXL device, read at fewer bits while many requests wait.

A model's weights stay in a plane store behind a CXL memory controller and are streamed to the accelerator in every
step, as many planes as the present precision asks for; the accelerator computes meanwhile, so a step takes as long as
its weights need to arrive.  Requests come in bursts.  Three services of the same requests stand side by side: always
exact, always the coarsest, and *shed*: a level coarser each time that more requests than `up` wait or run, finer again
below `down` (:class:`tierform.serving.controls.Shedding`).  Time and energy of a load are the device model's; the
perplexity at each number of bits is measured in this run (a small language model in a plane store, static policy), or
given.

Limits: the papers do not serve; nothing here is held against a published figure.  Perplexity is that of a small model,
carried over in percent.  What the accelerator itself draws is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tierform.errors import fail
from tierform.serving.arrivals import Lengths, generate
from tierform.serving.controls import Level, Shedding
from tierform.serving.engine import Engine
from tierform.serving.fleet import Fleet
from tierform.serving.oracle import FormulaOracle
from tierform.serving.requests import Requests
from tierform.serving.serve import serve
from tierform.serving.service import Service
from tierform.serving.slo import Slo
from tierform.studies.smartquant_device import PlaneMemory, load_cost
from tierform.studies.study import Check, Picture, StudyOptions, StudyResult, Table
from tierform.units import whole_number

SETTINGS = ("memory", "layout", "model", "perplexity", "bits", "windows", "steps", "train", "test", "seeds", "rank")
SOURCES = ("smartquant-2024", "compression-aware-2025")
MODEL = "llama-3.1-8b"
BITS = (16, 10, 8, 6)
BATCH = 64
PROMPT, OUTPUT = 256, 64
LOADS = (0.5, 0.9, 1.3, 1.7)  # times what the exact weights can serve
UP, DOWN = 0.75, 0.4  # of the batch


@dataclass(frozen=True)
class _Served:
    """One service, and its perplexity above exact in percent."""

    service: Service
    above: float


def run(options: StudyOptions) -> StudyResult:
    """The whole study.  Settings: ``memory``, ``layout``, ``perplexity`` (percent above exact by bits, as
    ``10:0.1,8:0.9,6:4``, instead of measuring it), and those of `smartquant` for the measurement.
    """
    from tierform.library import citation
    from tierform.memory import load_memory
    from tierform.memory.cxl import CxlDevice
    from tierform.workload import load_model

    options.check_settings(SETTINGS)
    layout = options.settings.get("layout", "adjacent")
    device = load_memory(options.settings.get("memory", "cxl-ddr5-x8"))
    if not isinstance(device, CxlDevice):
        fail("this memory has no plane engine; a CXL device is needed", key="memory", value=options.settings["memory"])
    above, evidence = _perplexities(options, device, layout)
    levels = [bits for bits in BITS if bits in above]
    model = load_model(MODEL)
    oracles = {bits: _oracle(device, float(model.parameters), bits, layout) for bits in levels}
    capacity = BATCH / (oracles[levels[0]].step_ns * 1e-9) / OUTPUT
    number = 400 if options.quick else 4000
    head = (
        "load",
        "weights",
        "within the SLO (%)",
        "goodput (1/s)",
        "TTFT, 99 % (s)",
        "TPOT, mean (s)",
        "energy (J/token)",
        "perplexity (%)",
    )
    rows: list[tuple[Any, ...]] = []
    found: dict[tuple[float, str], _Served] = {}
    slo = Slo(ttft=6 * oracles[levels[0]].step_ns * 1e-9, tpot=1.2 * oracles[levels[0]].step_ns * 1e-9)
    for load in LOADS:
        options.say(f"serving at {load:g} times the exact capacity")
        requests = generate(
            load * capacity, number, Lengths(PROMPT), Lengths(OUTPUT), "bursts", ratio=4.0, seed=options.seed
        )
        for name in ("exact", "coarsest", "shed"):
            made = _serve(name, requests, levels, oracles, above, slo)
            found[load, name] = made
            figures: dict[str, Any] = made.service.to_dict()
            rows.append(
                (
                    load,
                    name,
                    100 * figures["within_slo"],
                    figures["goodput_per_s"],
                    figures["ttft_s"]["p99"],
                    figures["tpot_s"]["mean"],
                    sum(made.service.energy_J_by_component.values()) / made.service.output_tokens,
                    made.above,
                )
            )
    low, high = LOADS[0], LOADS[-1]

    def good(load: float, name: str) -> float:
        return float(np.mean(found[load, name].service.good))

    checks = (
        Check(
            "above the exact capacity, shedding serves more within the SLO than exact weights",
            good(high, "shed") > good(high, "exact"),
            f"{100 * good(high, 'shed'):.1f} % against {100 * good(high, 'exact'):.1f} % at {high:g} times",
        ),
        Check(
            "at half the capacity, shedding keeps the perplexity at least as near to exact as the coarsest weights",
            abs(found[low, "shed"].above) <= abs(found[low, "coarsest"].above),
            f"{found[low, 'shed'].above:+.2f} % against {found[low, 'coarsest'].above:+.2f} %",
        ),
        Check(
            "every token is given out in every service",
            all(one.service.output_tokens == number * OUTPUT for one in found.values()),
            f"{number * OUTPUT:,} tokens each",
        ),
    )
    by_bits = tuple((bits, oracles[bits].step_ns * 1e-9, oracles[bits].joules[0][0], above[bits]) for bits in levels)
    return StudyResult(
        study="smartquant-serving",
        title="SmartQuant under load: fewer bits while many wait",
        tables=(
            Table("Services side by side", head, tuple(rows), f"SLO: {slo}.  Bursts of four times the quiet rate."),
            Table(
                "A step by bits",
                ("bits a weight", "step (s)", "energy of a load (J)", "perplexity (%)"),
                by_bits,
                f"{MODEL}, all weights once; perplexity above exact, {evidence}.",
            ),
        ),
        checks=checks,
        remarks=(
            "Nothing here was published: the papers do not serve many requests over time.",
            "What the accelerator draws is left out: it is the same in all three services for the same tokens.",
        ),
        assumptions=tuple(device.assumptions),
        sources=tuple(citation(key).text for key in SOURCES),
        pictures=(
            Picture("Services side by side", "load", ("within the SLO (%)",), by="weights", kind="line", unit="%"),
            Picture("Services side by side", "load", ("perplexity (%)",), by="weights", kind="line", unit="%"),
        ),
    )


def _oracle(device: PlaneMemory, weights: float, bits: int, layout: str) -> FormulaOracle:
    """A step at so many bits: all weights once, whatever it computes."""
    cost = load_cost(device, {bits: weights}, layout)
    return FormulaOracle(
        step_ns=round(cost.load_s * 1e9), token_ns=0, components=("memory",), joules=((cost.total_J, 0.0, 0.0, 0.0),)
    )


def _serve(
    name: str,
    requests: Requests,
    levels: list[int],
    oracles: dict[int, FormulaOracle],
    above: dict[int, float],
    slo: Slo,
) -> _Served:
    """One service of the requests."""
    engine = Engine(num_gpu_blocks=2**16, max_num_seqs=BATCH, max_num_batched_tokens=2**14, max_model_len=4096)
    if name == "shed":
        shedding = Shedding(
            levels=[Level(f"{bits} bits", 1 + above[bits] / 100) for bits in levels],
            up=UP * BATCH,
            down=DOWN * BATCH,
            every_s=2 * oracles[levels[0]].step_ns * 1e-9,
        )
        fleet = Fleet(shedding=shedding, levels=[oracles[bits] for bits in levels[1:]])
        made = serve(MODEL, "h100", requests, engine=engine, oracle=oracles[levels[0]], slo=slo, fleet=fleet)
        return _Served(made, 100 * (shedding.perplexity - 1))
    bits = levels[0] if name == "exact" else levels[-1]
    made = serve(MODEL, "h100", requests, engine=engine, oracle=oracles[bits], slo=slo)
    return _Served(made, above[bits])


def _perplexities(options: StudyOptions, device: PlaneMemory, layout: str) -> tuple[dict[int, float], str]:
    """Percent above exact by bits, and where it is from."""
    text = options.settings.get("perplexity")
    if text is not None:
        found = {16: 0.0}
        for part in text.split(","):
            bits, _, percent = part.partition(":")
            try:
                value = float(percent)
            except ValueError:
                value = math.nan
            number = whole_number(bits.strip())
            if number is None or number not in BITS or not value >= 0:
                known = ", ".join(str(one) for one in BITS[1:])
                fail("bits:percent is needed", key="perplexity", value=part, fix=f"Bits: {known}; as 8:0.9,6:4.")
            found[number] = value
        if len(found) == 1:
            fail("fewer bits than 16 are needed", key="perplexity", value=text)
        return found, "as given"
    from dataclasses import replace

    from tierform.studies.smartquant_quality import measure, tables

    asked = replace(options, settings={"bits": ",".join(str(one) for one in BITS[1:]), **options.settings})
    options.say("perplexity by bits")
    table, _ = tables(measure(asked, device, layout))
    rows = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    measured = {
        bits: float(row["above exact (%)"])  # type: ignore[arg-type]
        for bits in BITS[1:]
        for row in rows
        if row["policy"] == "static" and abs(float(row["bits a weight"]) - bits) < 0.5  # type: ignore[arg-type]
    }
    return {16: 0.0, **measured}, "measured in this run on a small model, static policy"
