"""Chips side by side under one trace at one SLO: an Atleus-like stack, DRAM-PIM beside a GPU, a systolic stack, GPUs.

Every chip serves the same requests (Azure's conversations of 2023, as many as are built in, or a trace of one's own)
with the same model, number format and engine.  For each the highest load is searched at which a share of the requests
keeps the SLO; there its goodput, its joules of a token, its power and its silicon are compared.  A chip with no room
for the batch gets as many KV blocks as fit it, which is its own answer.

Limits: one chip a replica.  GPUs run vLLM's software with its host times; the others run ideal software, since nobody
has published theirs: a second row gives the GPUs the same.  What each chip leaves out stands in its own file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tierform.chip.description import load_chip
from tierform.errors import TierformError, fail
from tierform.serving.engine import Engine
from tierform.serving.find import Load, highest_load
from tierform.serving.requests import Requests
from tierform.serving.serve import serve
from tierform.serving.service import Service
from tierform.serving.slo import Slo, parse_slo
from tierform.serving.traces import load_trace
from tierform.studies.study import Check, Picture, StudyOptions, StudyResult, Table
from tierform.studies.sweep import evidence
from tierform.workload import Model, load_model
from tierform.workload.precision import PrecisionPlan

SETTINGS = ("model", "chips", "trace", "slo", "within", "requests", "batch")
MODEL = "llama-3.2-1b"
CHIPS = ("atleus", "attacc-like", "tpu-3d", "h100", "l40s")
SLO = "ttft=2s,tpot=50ms"
WITHIN = 0.95
BATCH, BUDGET, LONGEST = 32, 512, 4096
INT8 = PrecisionPlan(weights="int8", activations="int8", kv_cache="int8", master_weights=None)
SOURCES = ("atleus-2025", "attacc-2024", "azure-llm-traces")
_BUILT_IN = Path(__file__).parents[1] / "validation" / "tables" / "serving" / "vllm019-azure-conv.requests.csv"
TITLE = "At the highest load that keeps the SLO"


@dataclass(frozen=True)
class _Served:
    """A chip at the highest load that keeps the SLO."""

    chip: str
    software: str
    best: Load | None
    service: Service | None
    why: str = ""


def run(options: StudyOptions) -> StudyResult:
    """The whole study.  Settings: ``model``, ``chips``, ``trace``, ``slo``, ``within``, ``requests``, ``batch``."""
    from tierform.library import citation

    options.check_settings(SETTINGS)
    given = options.settings
    model = load_model(given.get("model", MODEL))
    slo, within = parse_slo(given.get("slo", SLO)), _share(given.get("within"))
    number = options.whole_numbers("requests", (60 if options.quick else 300,))[0]
    (batch,) = options.whole_numbers("batch", (8 if options.quick else BATCH,))
    asked = _requests(given.get("trace"), number)
    requests = asked.take(np.flatnonzero(asked.prompt + asked.output <= LONGEST))
    if not len(requests):
        fail(f"no request has at most {LONGEST:,} tokens", key="trace", value=given.get("trace"))
    names = tuple(one.strip() for one in given["chips"].split(",")) if "chips" in given else CHIPS
    if options.quick and "chips" not in given:
        names = ("attacc-like", "tpu-3d", "h100")
    found = []
    for name in names:
        board = len(load_chip(name).can.boards) == 1 == len(load_chip(name).components)
        for software in ("vllm", "ideal") if board else ("ideal",):
            options.say(f"{name}, {software} software")
            found.append(_best(model, name, software, requests, slo, within, batch, options.seed))
    return StudyResult(
        study="serving-chips",
        title="Chips side by side under Azure's conversations at one SLO",
        tables=(_table(found, slo, within),),
        checks=tuple(_checks(found, within, len(requests))),
        remarks=(
            "Nothing here was published: the papers of these chips do not serve requests over time.",
            "GPUs run vLLM's software and, in a second row, the ideal software that the other chips are given.",
            f"Requests of more than {LONGEST:,} tokens are left out: {len(asked) - len(requests)} of {len(asked)}.",
            *(f"{one.chip}: {one.why}" for one in found if one.why),
        ),
        assumptions=evidence([load_chip(name) for name in names]),
        sources=tuple(citation(key).text for key in SOURCES),
        pictures=(
            Picture(TITLE, "chip", ("goodput (1/s)",), by="software", unit="1/s", log=True),
            Picture(TITLE, "chip", ("energy (J/token)",), by="software", unit="J", log=True),
        ),
    )


def _share(text: str | None) -> float:
    try:
        share = WITHIN if text is None else float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        fail("a share above 0 and up to 1 is needed", key="within", value=text)
    return share


def _requests(path: str | None, number: int) -> Requests:
    """The first requests of a trace; by default those that are built in."""
    if path is not None:
        return load_trace(path).first(number)
    rows = np.loadtxt(_BUILT_IN, delimiter=",", skiprows=1, dtype=np.int64)
    arrival, prompt, output = rows.T[1:4]
    return Requests(arrival, prompt, output, source="Azure conversations of 2023").first(number)


def _best(
    model: Model,
    name: str,
    software: str,
    requests: Requests,
    slo: Slo,
    within: float,
    batch: int,
    seed: int,
) -> _Served:
    """The highest load that a chip serves within the SLO, and the service at it."""
    engine = Engine(max_num_seqs=batch, max_num_batched_tokens=BUDGET, max_model_len=LONGEST)

    def served(some: Requests) -> Service:
        return serve(model, name, some, engine=engine, runtime=software, precision=INT8, slo=slo, seed=seed)

    try:
        best, _ = highest_load(served, requests, within)
        if best is None:
            return _Served(name, software, None, None, "no load keeps the SLO")
        return _Served(name, software, best, served(requests.faster(best.factor)))
    except TierformError as error:
        return _Served(name, software, None, None, "; ".join(problem.what for problem in error.problems))


def _table(found: list[_Served], slo: Slo, within: float) -> Table:
    head = (
        "chip",
        "software",
        "load (1/s)",
        "goodput (1/s)",
        "output (tokens/s)",
        "TTFT, 99 % (s)",
        "TPOT, mean (s)",
        "energy (J/token)",
        "power (W)",
        "area (mm2)",
        "goodput by area (1/s/cm2)",
    )
    rows: list[tuple[Any, ...]] = []
    for one in found:
        if one.best is None or one.service is None:
            rows.append((one.chip, one.software, *(None,) * (len(head) - 2)))
            continue
        figures: dict[str, Any] = one.service.to_dict()
        area_m2 = load_chip(one.chip).area_m2
        rows.append(
            (
                one.chip,
                one.software,
                one.best.offered_per_s,
                figures["goodput_per_s"],
                figures["output_tokens_per_s"],
                figures["ttft_s"]["p99"],
                figures["tpot_s"]["mean"],
                figures["energy_J_per_output_token"],
                figures["average_power_W"],
                area_m2 * 1e6,
                figures["goodput_per_s"] / (area_m2 * 1e4),
            )
        )
    note = (
        f"SLO: {slo} for {100 * within:g} % of the requests; int8 everywhere; area without memory stacks of their own."
    )
    return Table(TITLE, head, tuple(rows), note)


def _checks(found: list[_Served], within: float, requests: int) -> list[Check]:
    """What must hold whatever the figures are."""
    good = [one for one in found if one.best is not None and one.service is not None]
    kept = [float(one.service.good.mean()) for one in good if one.service is not None]
    lost = [one.chip for one in good if one.service is not None and int(one.service.finished.sum()) != requests]
    by_software = {(one.chip, one.software): one.best.offered_per_s for one in good if one.best is not None}
    slower = [
        chip
        for chip, software in by_software
        if software == "vllm" and (chip, "ideal") in by_software
        if by_software[chip, "ideal"] < by_software[chip, "vllm"] * 0.98
    ]
    return [
        Check(
            "every service shown keeps the SLO", all(one >= within for one in kept), f"least {min(kept, default=0):.1%}"
        ),
        Check("every request is served on every chip", not lost, ", ".join(lost) or f"{requests} requests each"),
        Check("software that takes no time serves no less", not slower, ", ".join(slower) or "on every GPU"),
    ]
