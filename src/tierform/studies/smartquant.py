"""SmartQuant re-derived: bit planes behind a CXL memory controller, read at a precision that follows importance.

Published (R. Xie et al., IEEE CAL 2024): up to 40.3 % less DRAM access energy, up to 42.1 % shorter model load, and
better perplexity than uniform quantization; its successors add lossless compression (25.2 % of the weights' footprint,
46.9 % of the KV cache's).  Here: the device model's energy and load time for every number of planes, held against
1 - k/16; the mix of precisions that the published maxima imply; a language model run for real with its matrices in a
plane store, uniform against importance-driven at equal bytes, whose traces go through the same device; and the lossless
figures on weights and on that model's own keys and values.  Where a real model has been fetched, precision by input
channel and token with nested integers is shown on it, with intervals (:mod:`tierform.studies.smartquant_channels`).
Limits: the papers' tables were not available, so their model sizes, precision mixes and predictor are not known; a
group is a head or an equal share of neurons, and formats are the first k planes of fp16.
"""

from __future__ import annotations

from typing import Any

from tierform.errors import fail
from tierform.studies.smartquant_channels import measured
from tierform.studies.smartquant_device import ENERGY_SAVED, LOAD_SAVED, implied_mix, proportionality
from tierform.studies.smartquant_lossless import KV_SAVED, WEIGHTS_SAVED, lossless
from tierform.studies.smartquant_quality import measure, tables, texts_of
from tierform.studies.study import Check, StudyOptions, StudyResult, Table

SETTINGS = ("model", "train", "test", "memory", "layout", "bits", "windows", "seeds", "steps", "rank")
SOURCES = ("smartquant-2024", "compression-aware-2025", "trace-2025", "dejavu-2023")


def _summary(quality: Table, kv: Table, weights_saved: float) -> Table:
    """The published figures, each beside this run's nearest."""
    rows = [dict(zip(quality.head, row, strict=True)) for row in quality.rows]
    runs = [row for row in rows if row["policy"] == "static"]
    near = min(runs, key=lambda row: abs(float(row["DRAM energy saved (%)"] or 0) - 100 * ENERGY_SAVED))
    thrifty = max(
        (row for row in runs if float(row["above exact (%)"] or 0) < 0.5),
        default=near,
        key=lambda row: float(row["DRAM energy saved (%)"] or 0),
    )
    both = next(row for row in kv.rows if row[0] == "both")

    def at(row: dict[str, Any]) -> str:
        return f"static policy, {row['bits a weight']:.4g} bits a weight, perplexity {row['above exact (%)']:+.2f} %"

    lines = (
        ("DRAM access energy saved (%), up to", 100 * ENERGY_SAVED, near["DRAM energy saved (%)"], at(near)),
        ("model load time saved (%), up to", 100 * LOAD_SAVED, near["load time saved (%)"], at(near)),
        ("DRAM access energy saved (%), most below +0.5 %", None, thrifty["DRAM energy saved (%)"], at(thrifty)),
        ("lossless weights saved (%)", 100 * WEIGHTS_SAVED, 100 * weights_saved, "Gaussian bf16"),
        ("lossless KV cache saved (%)", 100 * KV_SAVED, both[2], "the run model's own keys and values"),
    )
    return Table("Published and reproduced", ("figure", "published", "here", "here is"), lines)


def run(options: StudyOptions) -> StudyResult:
    """The whole study.  Settings: ``model`` (an OPT folder or Hub id), ``train`` and ``test`` (text files), ``memory``,
    ``layout``, ``bits`` (budgets), ``windows``, ``seeds`` (how many models are trained, from --seed on), ``steps`` (of
    training), ``rank`` (of the predictor).
    """
    from tierform.library import citation
    from tierform.memory import load_memory
    from tierform.memory.cxl import CxlDevice

    options.check_settings(SETTINGS)
    layout = options.settings.get("layout", "adjacent")
    device = load_memory(options.settings.get("memory", "cxl-ddr5-x8"))
    if not isinstance(device, CxlDevice):
        fail("this memory has no plane engine; a CXL device is needed", key="memory", value=options.settings["memory"])
    options.say("energy and load time by planes")
    planes, worst = proportionality(device, layout)
    mix = implied_mix(device, layout)
    weights, saved = lossless(options.seed, options.quick)
    quality = measure(options, device, layout)
    perplexity, pairs = tables(quality)
    options.say("precision by input channel on a real model")
    train, test, _ = texts_of(options)
    channels = measured(options, train.decode("utf-8"), test.decode("utf-8"))
    summary = _summary(perplexity, quality.kv, saved)
    claims = [
        Check("energy and load time fall within 2 points of 1 - k/16", worst <= 2.0, f"largest deviation {worst:.2f}"),
        Check("lossless planes save 24 to 27 % of bf16 weights", 0.24 <= saved <= 0.27, f"{100 * saved:.1f} %"),
        *quality.checks,
        *channels.checks,
    ]
    remarks = [
        *quality.remarks,
        *channels.remarks,
        "Fewer than 6 bits cut into fp16's exponent, and the fifth bit gains less than the sixth: at 5 bits part of "
        "the advantage over uniform is that groups are read at 4 and at 6; comparing with shuffled leaves that out.",
        "Embeddings, norms and biases stay exact and are left out of the bits, the bytes and the energy.",
        "Not checked, because the papers' tables were not available: the OPT sizes, the mix of precisions behind "
        "40.3 % and 42.1 %, their perplexities, the DDR5 configuration of their DRAM simulator, and their predictor.",
        "The two published maxima are met here by a mean of about 9.5 planes; they are a matter of the mix chosen, so "
        "what this study tests is proportionality and quality at equal bytes, not those two numbers.",
    ]
    return StudyResult(
        study="smartquant",
        title="SmartQuant: variable-precision weights behind a CXL memory controller",
        tables=(summary, *channels.tables, perplexity, pairs, planes, mix, weights, quality.kv),
        checks=tuple(claims),
        remarks=tuple(remarks),
        assumptions=tuple(device.assumptions),
        sources=tuple(citation(key).text for key in SOURCES),
    )
