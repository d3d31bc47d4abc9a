"""SmartQuant re-derived: bit planes behind a CXL memory controller, read at a precision that follows importance.

Published (R. Xie et al., IEEE CAL 2024): up to 40.3 % less DRAM access energy, up to 42.1 % shorter model load, and
better perplexity than uniform quantization; its successors add lossless compression (25.2 % of the weights' footprint,
46.9 % of the KV cache's).  Here: the device model's energy and load time for every number of planes, held against
1 - k/16; the mix of precisions that the published maxima imply; a language model run for real with its matrices in a
plane store, uniform against importance-driven at equal bytes, whose traces go through the same device; and the lossless
figures on weights and on that model's own keys and values.
Limits: the papers' tables were not available, so their model sizes, precision mixes and predictor are not known; a
group is a head or an equal share of neurons, and formats are the first k planes of fp16.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tierform.errors import fail
from tierform.studies.study import Check, StudyOptions, StudyResult, Table

if TYPE_CHECKING:
    from tierform.store.importance import PrecisionTrace

PLANES = 16
ENERGY_SAVED, LOAD_SAVED = 0.403, 0.421  # published maxima of SmartQuant
WEIGHTS_SAVED, KV_SAVED = 0.252, 0.469  # published lossless footprints of its successors
MODEL_WEIGHTS = 6_400_000_000  # a model load of the OPT-6.7B class: its decoder layers' matrices
DRAM_PARTS = ("activate", "read", "write", "io", "refresh", "background")
MEASURABLE_LOSS = 0.002  # of perplexity: what two runs at full precision levels differ by is about a tenth of this
SETTINGS = ("model", "train", "test", "memory", "layout", "bits", "windows", "steps", "rank")
SOURCES = ("smartquant-2024", "compression-aware-2025", "trace-2025", "dejavu-2023")


class PlaneMemory(Protocol):
    """What the study needs of a memory: the cost of reading some of the planes of some weights."""

    def read_planes(
        self, weights: int, planes_read: int, planes_stored: int, layout: str = ..., compressed_B: float | None = ...
    ) -> Any:
        """A cost with latency_s, busy_s, energy_J and energy_by_part_J."""


@dataclass(frozen=True, slots=True)
class LoadCost:
    """One pass over a model's matrices: DRAM energy, energy with link and controller, time to load."""

    dram_J: float
    total_J: float
    load_s: float


def load_cost(device: PlaneMemory, weights_by_bits: dict[int, float], layout: str) -> LoadCost:
    """Reading so many weights at each precision, one after the other as a stream; 0 bits costs nothing."""
    dram = total = busy = latency = 0.0
    for bits, weights in sorted(weights_by_bits.items()):
        if bits == 0 or weights < 1:
            continue
        cost = device.read_planes(max(1, round(weights)), bits, PLANES, layout)
        dram += sum(cost.energy_by_part_J.get(part, 0.0) for part in DRAM_PARTS)
        total += cost.energy_J
        busy += cost.duration_s - cost.latency_s
        latency = max(latency, cost.latency_s)
    return LoadCost(dram, total, busy + latency)


def proportionality(device: PlaneMemory, layout: str) -> tuple[Table, float]:
    """Energy and load time saved by reading k of 16 planes, beside 1 - k/16; the largest deviation in points."""
    whole = load_cost(device, {PLANES: MODEL_WEIGHTS}, layout)
    rows, worst = [], 0.0
    for bits in range(1, PLANES + 1):
        cost = load_cost(device, {bits: MODEL_WEIGHTS}, layout)
        ideal = 100 * (1 - bits / PLANES)
        saved = [100 * (1 - part / of) for part, of in zip(_parts(cost), _parts(whole), strict=True)]
        worst = max([worst, *(abs(one - ideal) for one in saved)])
        rows.append((bits, ideal, *saved, cost.dram_J, cost.load_s))
    head = ("planes", "1 - k/16 (%)", "DRAM energy saved (%)", "all energy saved (%)", "load time saved (%)")
    note = f"One load of {MODEL_WEIGHTS / 1e9:g} billion fp16 weights.  DRAM energy leaves out link and controller."
    return Table("Reading k of 16 planes", (*head, "DRAM energy (J)", "load (s)"), tuple(rows), note), worst


def _parts(cost: LoadCost) -> tuple[float, float, float]:
    return cost.dram_J, cost.total_J, cost.load_s


def implied_mix(device: PlaneMemory, layout: str) -> Table:
    """Mean planes that each published maximum implies, and shares of two precisions that give it."""
    whole = load_cost(device, {PLANES: MODEL_WEIGHTS}, layout)
    rows = []
    for what, saved, part in (("DRAM energy", ENERGY_SAVED, 0), ("load time", LOAD_SAVED, 2)):
        mean = _invert(device, layout, saved, part, _parts(whole)[part])
        shares = {low: 100 * (PLANES - mean) / (PLANES - low) for low in (4, 6, 8)}
        rows += [(what, 100 * saved, mean, f"{low} and 16 bits", share) for low, share in shares.items()]
    head = ("published maximum of", "saved (%)", "implied mean planes", "if made of", "share at the fewer bits (%)")
    note = (
        "Derived, not published: planes are fetched in proportion to bits.  The two maxima need not come from one mix."
    )
    return Table("What the headline implies", head, tuple(rows), note)


def _invert(device: PlaneMemory, layout: str, saved: float, part: int, whole: float) -> float:
    """The mean number of planes at which the device saves `saved`, between the whole numbers by their mix."""
    for bits in range(PLANES - 1, 0, -1):
        below = 1 - _parts(load_cost(device, {bits: MODEL_WEIGHTS}, layout))[part] / whole
        if below >= saved:
            above = 1 - _parts(load_cost(device, {bits + 1: MODEL_WEIGHTS}, layout))[part] / whole
            return bits + (below - saved) / (below - above)
    return 1.0


def lossless(seed: int, quick: bool) -> tuple[Table, float]:
    """Footprint of bf16 Gaussian weights: ordinary words and bit planes under zstd; the planes' saving."""
    from tierform.store.bench import gaussian_bf16
    from tierform.store.reader import Store
    from tierform.store.writer import PackOptions, _zstd, pack_tensors

    codes = gaussian_bf16(2**20 if quick else 2**22, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gauss.tfs"
        pack_tensors({"w": codes}, path, PackOptions(codec="zstd"), elements={"w": "bf16"})
        planes = 1 - path.stat().st_size / codes.nbytes
        with Store(path) as store:
            store.codes("w", 9)
            nine = store.count.planes_B / codes.nbytes
    words = 1 - len(_zstd().ZstdCompressor(level=3).compress(codes.tobytes())) / codes.nbytes
    rows = (
        ("words, zstd", 100 * words, None),
        ("bit planes, zstd, index and checksums included", 100 * planes, 100 * WEIGHTS_SAVED),
        ("bit planes, 9 of 16 read: bytes saved", 100 * (1 - nine), None),
    )
    note = "Gaussian weights of standard deviation 0.02 truncated to bf16; the published figure is for real weights."
    return Table("Lossless compression of weights", ("form", "saved (%)", "published (%)"), rows, note), planes


def synthetic_kv(tokens: int, channels: int) -> dict[str, Any]:
    """bf16 codes of three made-up caches: independent, with channel means, and with tokens that resemble the last."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((tokens, channels))
    means = 4 * rng.standard_normal(channels)
    walk = noise.copy()
    for token in range(1, tokens):
        walk[token] = 0.98 * walk[token - 1] + np.sqrt(1 - 0.98**2) * noise[token]
    made = {"independent": noise, "channel means": noise + means, "means, tokens correlated 0.98": walk + means}
    return {
        name: (one.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16) for name, one in made.items()
    }


def kv_table(planed: Any, windows: int) -> Table:
    """Lossless footprint of the run model's own keys and values in the plane KV cache."""
    import torch

    from tierform.store.kvcache import PlaneKVCache
    from tierform.store.writer import _zstd

    kept: dict[tuple[int, str], list[Any]] = {}
    handles = []
    for site in planed.sites:
        if site.kind in ("k_proj", "v_proj"):

            def keep(_: Any, __: Any, out: Any, site: Any = site) -> None:
                kept.setdefault((site.layer, site.kind), []).append(out.detach().reshape(-1, out.shape[-1]))

            handles.append(site.linear.register_forward_hook(keep))
    with torch.no_grad():
        for ids in planed.text.batches(planed.text.test, windows):
            planed.text.model(input_ids=ids)
    for handle in handles:
        handle.remove()
    rows: list[tuple[str, float, float, float | None]] = []
    plain = planes = words = 0
    for kind in ("k_proj", "v_proj"):
        size = stored = compressed = 0
        for (_, one), parts in kept.items():
            if one != kind:
                continue
            codes = torch.cat(parts).to(torch.bfloat16)
            cache = PlaneKVCache(codes.shape[1])
            cache.append_torch(codes)
            size, stored = size + cache.plain_B, stored + cache.stored_B
            compressed += len(_zstd().ZstdCompressor(level=3).compress(codes.view(torch.int16).numpy().tobytes()))
        rows.append(
            (
                {"k_proj": "keys", "v_proj": "values"}[kind],
                100 * (1 - compressed / size),
                100 * (1 - stored / size),
                None,
            )
        )
        plain, planes, words = plain + size, planes + stored, words + compressed
    rows.append(("both", 100 * (1 - words / plain), 100 * (1 - planes / plain), 100 * KV_SAVED))
    for name, codes in synthetic_kv(1024, 256).items():
        cache = PlaneKVCache(codes.shape[1])
        cache.append(codes)
        small = len(_zstd().ZstdCompressor(level=3).compress(codes.tobytes()))
        saved = 100 * (1 - cache.stored_B / cache.plain_B)
        rows.append((f"made up: {name}", 100 * (1 - small / codes.nbytes), saved, None))
    head = (
        "cache",
        "token-major words, zstd: saved (%)",
        "planes with exponent differences: saved (%)",
        "published (%)",
    )
    note = (
        "This model's own keys and values as bf16, and made-up ones; the published figure is for large models on long "
        "texts, and needs channels with a mean of their own and tokens that resemble each other."
    )
    return Table("Lossless compression of the KV cache", head, tuple(rows), note)


def _texts(options: StudyOptions) -> tuple[bytes, bytes, str]:
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


def perplexities(options: StudyOptions, device: PlaneMemory, layout: str) -> tuple[list[Table], list[Check], list[str]]:
    """Run the language model at each budget under each policy; traces through the device."""
    from tierform.store.language_model import PlanedModel, calibrate, load_published, train_small
    from tierform.store.policies import KINDS, Policy, Predictors

    quick, say = options.quick, options.say
    steps = _number(options, "steps", 60 if quick else 400)
    windows = _number(options, "windows", 4 if quick else 24)
    rank = _number(options, "rank", 8)
    train, test, origin = _texts(options)
    if "model" in options.settings:
        text = load_published(options.settings["model"], train.decode("utf-8"), test.decode("utf-8"))
    else:
        layers = 2 if quick else 3
        text = train_small(train, test, width=128, layers=layers, batch=8, steps=steps, seed=options.seed, say=say)
    budgets = _budgets(options, (5.0,) if quick else (5.0, 6.0, 7.0, 8.0, 9.55))
    lowest, highest = 4, 12
    rows: list[tuple[Any, ...]] = []
    checks: list[Check] = []
    remarks: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        planed = PlanedModel(text, Path(folder) / "model.tfs", lowest, highest)
        exact = planed.perplexity(windows)
        calibration = calibrate(planed, max(4, windows), say)
        predictors = Predictors(planed, calibration, rank)
        full = load_cost(device, {PLANES: float(sum(group.weights for group in planed.groups))}, layout)
        rows.append(("exact", 16.0, exact, 0.0, 0.0, 0.0))
        better: list[tuple[float, dict[str, float]]] = []
        for budget in budgets:
            found: dict[str, float] = {}
            for kind in KINDS:
                if kind == "uniform" and budget != int(budget):
                    continue
                say(f"perplexity: {kind} at {budget:g} bits")
                policy = Policy(kind, planed, budget, calibration, predictors)
                found[kind] = policy.perplexity(windows)
                trace = policy.trace()
                _must_meet(trace, budget, kind)
                cost = load_cost(device, trace.weights_by_bits(), layout)
                saved = [100 * (1 - part / of) for part, of in zip(_parts(cost), _parts(full), strict=True)]
                rows.append(
                    (kind, trace.average_bits, found[kind], 100 * (found[kind] / exact - 1), saved[0], saved[2])
                )
                if kind == "static":
                    _check_bytes(planed, policy.whole, checks, budget)
            if "uniform" in found:
                better.append((budget, found))
        kv = kv_table(planed, windows)
    _check_better(better, exact, checks, remarks)
    explained = ", ".join(f"{name.split('.weight')[0]} {100 * one:.0f} %" for name, one in predictors.explained.items())
    remarks.append(f"Text: {origin}; perplexity is per {text.unit}, over {windows} windows of {text.context}.")
    remarks.append(f"Variance of log activity that the rank-{rank} predictors explain on held-out tokens: {explained}.")
    remarks.append(
        "Fewer than 6 bits cut into fp16's exponent, and the fifth bit gains less than the sixth: at 5 bits part of "
        "the advantage over uniform is that groups are read at 4 and at 6."
    )
    remarks.append("One training run and one seed: differences below about 0.05 % of perplexity are noise.")
    remarks.append("Embeddings, norms and biases stay exact and are left out of the bits, the bytes and the energy.")
    head = ("policy", "bits a weight", "perplexity", "above exact (%)", "DRAM energy saved (%)", "load time saved (%)")
    note = "oracle knows the true activity of the neurons in time, which no device does: a bound, not a policy."
    return [Table("Perplexity at equal bytes", head, tuple(rows), note), kv], checks, remarks


def _check_better(
    better: list[tuple[float, dict[str, float]]], exact: float, checks: list[Check], remarks: list[str]
) -> None:
    """Each importance-driven policy against uniform, wherever uniform loses enough to tell them apart."""
    for budget, found in better:
        loss = found["uniform"] / exact - 1
        if loss < MEASURABLE_LOSS:
            remarks.append(
                f"At {budget:g} bits uniform precision is within {100 * MEASURABLE_LOSS:g} % of exact "
                f"({100 * loss:+.2f} %), so nothing can be told about policies there."
            )
            continue
        others = {kind: found[kind] for kind in ("static", "activation", "predictor")}
        figures = f"uniform {found['uniform']:.4g}; " + ", ".join(f"{kind} {one:.4g}" for kind, one in others.items())
        what = f"every importance-driven policy has lower perplexity than uniform, at {budget:g} bits and equal bytes"
        checks.append(Check(what, max(others.values()) < found["uniform"], figures))


def _must_meet(trace: PrecisionTrace, budget: float, kind: str) -> None:
    """The average of a trace is at most the budget, and short of it by less than one group's bit."""
    total = sum(group.weights for group in trace.groups)
    short = (budget - trace.average_bits) * total
    largest = max(group.weights for group in trace.groups)
    if not -1e-6 * total <= short < largest:
        raise AssertionError(f"{kind}: {trace.average_bits} bits a weight for a budget of {budget}")


def _check_bytes(planed: Any, bits: Any, checks: list[Check], budget: float) -> None:
    """The store counts what it reads; a file is read and verified by pages of 64 blocks, the device by 64-byte rows."""
    from tierform.store.elements import BLOCK_WEIGHTS, PLANE_BYTES
    from tierform.store.layout import PAGE_BLOCKS

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


def _summary(tables: list[Table], weights_saved: float) -> Table:
    """The published figures, each beside this run's nearest."""
    quality, kv = tables
    rows = [dict(zip(quality.head, row, strict=True)) for row in quality.rows]
    runs = [row for row in rows if row["policy"] == "static"]
    near = min(runs, key=lambda row: abs(float(row["DRAM energy saved (%)"] or 0) - 100 * ENERGY_SAVED))
    thrifty = max((row for row in runs if float(row["above exact (%)"] or 0) < 0.5), default=near,
                  key=lambda row: float(row["DRAM energy saved (%)"] or 0))  # fmt: skip
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


def _number(options: StudyOptions, key: str, default: int) -> int:
    text = options.settings.get(key)
    if text is None:
        return default
    if not text.isdigit() or int(text) < 1:
        fail("a whole number of at least 1 is needed", key=key, value=text)
    return int(text)


def _budgets(options: StudyOptions, default: tuple[float, ...]) -> tuple[float, ...]:
    text = options.settings.get("bits")
    if text is None:
        return default
    try:
        found = tuple(float(one) for one in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(4 <= one <= 12 for one in found):
        fail("budgets of 4 to 12 bits a weight are needed", key="bits", value=text, fix="For example bits=5,6.5,8.")
    return found


def run(options: StudyOptions) -> StudyResult:
    """The whole study.  Settings: ``model`` (an OPT folder or Hub id), ``train`` and ``test`` (text files), ``memory``,
    ``layout``, ``bits`` (budgets), ``windows``, ``steps`` (of training), ``rank`` (of the predictor).
    """
    from tierform.library import citation
    from tierform.memory import load_memory

    options.check_settings(SETTINGS)
    layout = options.settings.get("layout", "adjacent")
    device: Any = load_memory(options.settings.get("memory", "cxl-ddr5-x8"))
    if not hasattr(device, "read_planes"):
        fail("this memory has no plane engine; a CXL device is needed", key="memory", value=options.settings["memory"])
    options.say("energy and load time by planes")
    planes, worst = proportionality(device, layout)
    mix = implied_mix(device, layout)
    weights, saved = lossless(options.seed, options.quick)
    tables, checks, remarks = perplexities(options, device, layout)
    summary = _summary(tables, saved)
    claims = [
        Check("energy and load time fall within 2 points of 1 - k/16", worst <= 2.0, f"largest deviation {worst:.2f}"),
        Check("lossless planes save 24 to 27 % of bf16 weights", 0.24 <= saved <= 0.27, f"{100 * saved:.1f} %"),
        *checks,
    ]
    remarks += [
        "Not checked, because the papers' tables were not available: the OPT sizes, the mix of precisions behind "
        "40.3 % and 42.1 %, their perplexities, the DDR5 configuration of their DRAM simulator, and their predictor.",
        "The two published maxima are met here by a mean of about 9.5 planes; they are a matter of the mix chosen, so "
        "what this study tests is proportionality and quality at equal bytes, not those two numbers.",
    ]
    return StudyResult(
        "smartquant", "SmartQuant: variable-precision weights behind a CXL memory controller",
        (summary, planes, mix, weights, *tables), tuple(claims), tuple(remarks), tuple(device.assumptions),
        tuple(citation(key).text for key in SOURCES),
    )  # fmt: skip
