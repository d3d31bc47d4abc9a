"""Perplexity at equal bytes: a language model run with its matrices in a plane store, uniform against importance.

For each seed a small model is trained (or one published model is loaded), calibrated, and run on the same windows of
text under each policy at each budget; its trace of precisions goes through the memory device.  Policies are compared
window by window, which removes what the windows have in common: the standard error is that of the mean difference over
windows, or over seeds where that is larger.  ``shuffled`` is the control: the static policy's own mix of bits, given to
groups by lot, so that what remains is importance and not the mix.
Limits: a small model on little text; a group is a head or an equal share of neurons.
"""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.studies.smartquant_device import PLANES, PlaneMemory, load_cost, parts_of
from tierform.studies.smartquant_lossless import kv_table
from tierform.studies.study import Check, StudyOptions, Table
from tierform.units import whole_number

if TYPE_CHECKING:
    from tierform.store.importance import PrecisionTrace

MEASURABLE_LOSS = 0.002  # of perplexity: below it, uniform precision is as good as exact and nothing can be told apart
LOWEST, HIGHEST = 4, 12  # bits a group may have
BUDGETS, QUICK_BUDGETS = (5.0, 6.0, 7.0, 8.0, 9.55), (5.0,)
IMPORTANCE_DRIVEN = ("static", "activation", "predictor")


@dataclass(slots=True)
class Found:
    """One policy at one budget: for each seed the mean loss of each window, bits a weight, and savings in percent."""

    losses: list[NDArray[np.float64]] = field(default_factory=list)
    bits: list[float] = field(default_factory=list)
    energy_saved: list[float] = field(default_factory=list)
    load_saved: list[float] = field(default_factory=list)

    @property
    def perplexities(self) -> list[float]:
        """Of each seed."""
        return [float(np.exp(one.mean())) for one in self.losses]


@dataclass(slots=True)
class Quality:
    """Everything the runs found: exact weights, policies by (budget, policy), and what to say about them."""

    exact: Found
    found: dict[tuple[float, str], Found]
    kv: Table
    checks: list[Check]
    remarks: list[str]


def against(one: Found, other: Found) -> tuple[float, float, int]:
    """How far `one`'s perplexity lies above `other`'s in percent, its standard error, seeds in which it is lower."""
    difference = np.array([a - b for a, b in zip(one.losses, other.losses, strict=True)])  # [seed, window]
    windows = difference.mean(axis=0)
    error = windows.std(ddof=1) / np.sqrt(windows.size) if windows.size > 1 else np.nan
    if len(difference) > 1:
        error = np.fmax(error, difference.mean(axis=1).std(ddof=1) / np.sqrt(len(difference)))
    lower = int((difference.mean(axis=1) < 0).sum())
    return 100 * float(np.expm1(difference.mean())), 100 * float(error), lower


def measure(options: StudyOptions, device: PlaneMemory, layout: str) -> Quality:
    """Run every policy at every budget for every seed."""
    from tierform.store.language_model import PlanedModel, calibrate
    from tierform.store.policies import Predictors
    from tierform.store.small_model import single_thread

    windows = number(options, "windows", 4 if options.quick else 24)
    rank = number(options, "rank", 8)
    budgets = budgets_of(options)
    quality = Quality(Found(), {}, Table("", (), ()), [], [])
    models = _models(options)
    threads = nullcontext if "model" in options.settings else single_thread
    for place, make in enumerate(models):
        with threads(), tempfile.TemporaryDirectory() as folder:
            text = make()
            planed = PlanedModel(text, Path(folder) / "model.tfs", LOWEST, HIGHEST)
            quality.exact.losses.append(planed.losses(windows))
            calibration = calibrate(planed, max(4, windows), options.say)
            predictors = Predictors(planed, calibration, rank)
            where = f"model {place + 1} of {len(models)}"
            for budget in budgets:
                _run_policies(quality, planed, budget, windows, calibration, predictors, device, layout, options, where)
            if place == 0:
                quality.kv = kv_table(planed, windows)
                known = [f"{name.split('.weight')[0]} {100 * one:.0f} %" for name, one in predictors.explained.items()]
                quality.remarks += [
                    f"Text: {texts_of(options)[2]}; perplexity is per {text.unit}, over {windows} windows of "
                    f"{text.context}.",
                    f"Variance of log activity that the rank-{rank} predictors explain on held-out tokens: "
                    f"{', '.join(known)}.",
                ]
    _check_better(quality)
    return quality


def _run_policies(
    quality: Quality,
    planed: Any,
    budget: float,
    windows: int,
    calibration: Any,
    predictors: Any,
    device: PlaneMemory,
    layout: str,
    options: StudyOptions,
    where: str,
) -> None:
    from tierform.store.policies import KINDS, Policy

    full = load_cost(device, {PLANES: float(sum(group.weights for group in planed.groups))}, layout)
    for kind in KINDS:
        if kind == "uniform" and budget != int(budget):
            continue
        options.say(f"perplexity: {kind} at {budget:g} bits, {where}")
        policy = Policy(kind, planed, budget, calibration, predictors, options.seed)
        found = quality.found.setdefault((budget, kind), Found())
        found.losses.append(policy.losses(windows))
        trace = policy.trace()
        _must_meet(trace, budget, kind)
        cost = load_cost(device, trace.weights_by_bits(), layout)
        saved = [100 * (1 - part / of) for part, of in zip(parts_of(cost), parts_of(full), strict=True)]
        found.bits.append(trace.average_bits)
        found.energy_saved.append(saved[0])
        found.load_saved.append(saved[2])
        if kind == "static" and len(found.losses) == 1:
            _check_bytes(planed, policy.whole, quality.checks, budget)


def _models(options: StudyOptions) -> list[Any]:
    """Functions that give the models to run: one published, or one trained for each seed."""
    from tierform.files import cache_folder
    from tierform.store.language_model import load_published
    from tierform.store.small_model import SmallModel, trained_small

    train, test, _ = texts_of(options)
    if "model" in options.settings:
        for key in ("seeds", "steps"):
            if key in options.settings:
                fail("a model that is given is not trained", key=key, value=options.settings[key])
        return [lambda: load_published(options.settings["model"], train.decode("utf-8"), test.decode("utf-8"))]
    steps = number(options, "steps", 60 if options.quick else 300)
    folder = cache_folder("store")
    made = [
        SmallModel(width=128, layers=2 if options.quick else 3, batch=8, steps=steps, seed=options.seed + seed)
        for seed in range(number(options, "seeds", 1))
    ]
    return [lambda one=one: trained_small(train, test, one, folder, options.say)[0] for one in made]


def tables(quality: Quality) -> tuple[Table, Table]:
    """Perplexities with savings, and the comparisons window by window."""
    exact = quality.exact.perplexities
    rows: list[tuple[Any, ...]] = [("exact", 16.0, float(np.mean(exact)), min(exact), max(exact), 0.0, 0.0, 0.0)]
    pairs: list[tuple[Any, ...]] = []
    for (budget, kind), found in quality.found.items():
        each = found.perplexities
        above, _, _ = against(found, quality.exact)
        rows.append(
            (
                kind,
                float(np.mean(found.bits)),
                float(np.mean(each)),
                min(each),
                max(each),
                above,
                float(np.mean(found.energy_saved)),
                float(np.mean(found.load_saved)),
            )
        )
        for other in ("uniform", "shuffled"):
            if kind in IMPORTANCE_DRIVEN and (budget, other) in quality.found:
                difference, error, lower = against(found, quality.found[budget, other])
                pairs.append((budget, kind, other, difference, error, f"{lower} of {len(each)}"))
    head = (
        "policy",
        "bits a weight",
        "perplexity",
        "least seed",
        "most seed",
        "above exact (%)",
        "DRAM energy saved (%)",
        "load time saved (%)",
    )
    note = "Means over the seeds.  shuffled is the static mix of bits given to groups by lot: a control, not a policy."
    pair_head = ("bits a weight", "policy", "against", "perplexity (%)", "standard error (%)", "seeds in which lower")
    pair_note = "Differences window by window on the same text with the same model; negative is better."
    return (
        Table("Perplexity at equal bytes", head, tuple(rows), note),
        Table("Importance against none, at equal bytes", pair_head, tuple(pairs), pair_note),
    )


def _check_better(quality: Quality) -> None:
    """Each importance-driven policy against uniform, wherever uniform loses enough to tell them apart."""
    for (budget, kind), uniform in quality.found.items():
        if kind != "uniform":
            continue
        loss = against(uniform, quality.exact)[0] / 100
        if loss < MEASURABLE_LOSS:
            quality.remarks.append(
                f"At {budget:g} bits uniform precision is within {100 * MEASURABLE_LOSS:g} % of exact "
                f"({100 * loss:+.2f} %), so nothing can be told about policies there."
            )
            continue
        differences = {one: against(quality.found[budget, one], uniform) for one in IMPORTANCE_DRIVEN}
        figures = ", ".join(f"{one} {d:+.2f} % (+- {e:.2f})" for one, (d, e, _) in differences.items())
        what = f"every importance-driven policy has lower perplexity than uniform, at {budget:g} bits and equal bytes"
        quality.checks.append(Check(what, all(d < 0 for d, _, _ in differences.values()), figures))


def _must_meet(trace: PrecisionTrace, budget: float, kind: str) -> None:
    """The average of a trace is at most the budget, and short of it by less than one group's bit."""
    total = sum(group.weights for group in trace.groups)
    short = (budget - trace.average_bits) * total
    largest = max(group.weights for group in trace.groups)
    if not -1e-6 * total <= short < largest:
        raise AssertionError(f"{kind}: {trace.average_bits} bits a weight for a budget of {budget}")


def _check_bytes(planed: Any, bits: Any, checks: list[Check], budget: float) -> None:
    """The store counts what it reads; a file is read and verified by pages of 64 blocks, the device by 64-byte rows."""
    from tierform.store.elements import BLOCK_WEIGHTS, PAGE_BLOCKS, PLANE_BYTES

    expected = bursts = at = 0
    for site in planed.sites:
        edges = np.arange(site.count + 1) * site.groups[0].weights
        blocks = -(-int(edges[-1]) // BLOCK_WEIGHTS)
        each = np.zeros(blocks, np.int64)
        for group in range(site.count):
            span = slice(edges[group] // BLOCK_WEIGHTS, -(-edges[group + 1] // BLOCK_WEIGHTS))
            each[span] = np.maximum(each[span], bits[at + group])
        starts = np.arange(0, blocks, PAGE_BLOCKS)
        rows = np.minimum(PAGE_BLOCKS, blocks - starts)
        expected += int((np.maximum.reduceat(each, starts) * rows).sum()) * PLANE_BYTES
        bursts += int(each.sum()) * PLANE_BYTES
        at += site.count
    counted = planed.bytes_for(bits)
    what = f"the store reads exactly the pages that the trace needs, at {budget:g} bits"
    figures = f"{counted:,} B counted in pages of 4 KiB, {expected:,} B expected, {bursts:,} B in 64-byte rows"
    checks.append(Check(what, counted == expected, figures))


def texts_of(options: StudyOptions) -> tuple[bytes, bytes, str]:
    """Training and test text: the user's files, or the language reference that comes with Python."""
    given = [options.settings.get(key) for key in ("train", "test")]
    if given[0] and given[1]:
        from tierform.files import read_text

        first, second = (read_text(path, 64 * 2**20).encode("utf-8") for path in given if path)
        return first, second, "the texts given"
    if given[0] or given[1]:
        fail("a training and a test text belong together", key="train, test", fix="Give both, or neither.")
    from pydoc_data.topics import topics

    whole = "\n".join(topics[key] for key in sorted(topics)).encode("utf-8")
    split = len(whole) * 9 // 10
    return whole[:split], whole[split:], "Python's own language reference (last tenth as the test)"


def number(options: StudyOptions, key: str, default: int) -> int:
    """A setting that is a whole number of at least 1."""
    text = options.settings.get(key)
    if text is None:
        return default
    return whole_number(text) or fail("a whole number of at least 1 is needed", key=key, value=text)


def budgets_of(options: StudyOptions) -> tuple[float, ...]:
    """The average bits to spend: the setting ``bits``, or this size's own."""
    text = options.settings.get("bits")
    if text is None:
        return QUICK_BUDGETS if options.quick else BUDGETS
    try:
        found = tuple(float(one) for one in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(LOWEST <= one <= HIGHEST for one in found):
        fail("budgets of 4 to 12 bits a weight are needed", key="bits", value=text, fix="For example bits=5,6.5,8.")
    return found
