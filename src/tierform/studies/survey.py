"""Every technique in one table: its gain on two GPUs and on Atleus, what a real model did, what is published.

Each row is one job beside the same job without the technique: decoding of a small Llama, batch 1, after 512 tokens.  A
chip's own formats hold where a row names none.  What a technique did to a real model was measured on SmolLM2-135M with
WikiText-2's test text (``benchmarks/decoding_smollm2.py`` and ``tierform compress``) and is quoted, not run again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tierform.chip.description import Chip, load_chip
from tierform.errors import TierformError
from tierform.simulation.choose import task_on
from tierform.simulation.simulate import simulate
from tierform.studies.study import Cell, Check, StudyOptions, StudyResult, Table
from tierform.workload import Inference, Model, load_model, resolved_precision
from tierform.workload.decoding import Decoding
from tierform.workload.kv_policy import KVPolicy
from tierform.workload.reduced import Reduction

CHIPS = ("a100", "h100", "atleus")


@dataclass(frozen=True, slots=True)
class Technique:
    """One row: what is changed, what was measured on a real model, what is published."""

    name: str
    weights: str = ""
    cache: str = ""
    reduction: Reduction | None = None
    decoding: Decoding | None = None
    kv: KVPolicy | None = None
    real: str = ""
    published: str = ""


TECHNIQUES = (
    Technique("int8 weights", weights="int8-channel", published="1.44 to 1.60 (A100)"),
    Technique("int4 weights, groups of 128", weights="int4-g128", published="1.45 to 1.90 (A100)"),
    Technique(
        "int4 cache, keys by channel",
        cache="int4-g64z",
        real="perplexity -0.1 %",
        published="2.35 to 3.47 times throughput (KIVI)",
    ),
    Technique(
        "window and sinks, half the cache",
        kv=KVPolicy(window=252, sinks=4),
        real="perplexity +5.4 % (512 tokens), +1.6 % (2,048)",
        published="quality kept (StreamingLLM)",
    ),
    Technique("heavy hitters, half the cache", kv=KVPolicy(window=128, heavy=128), published="quality kept (H2O)"),
    Technique("half of the cache behind the memory", kv=KVPolicy(offload=0.5)),
    Technique(
        "five of 16 attention sublayers left out",
        reduction=Reduction(attention="11-15"),
        real="perplexity 44 by choice, 65 the last (5 of 30)",
        published="1.21 (Llama-2 7B, Tyukin)",
    ),
    Technique("2:4 sparse", reduction=Reduction(sparse="2:4"), published="1.25 on int4 (A100)"),
    Technique("half of the FFN's width", reduction=Reduction(ffn_width=0.5)),
    Technique("half of the layers", reduction=Reduction(layers="8-15"), published="1.9 (DistilBERT: 1.6)"),
    Technique(
        "draft from nine planes",
        decoding=Decoding("planes", (0.94,), planes=9),
        real="0.94 accepted, text equal (10 prompts)",
    ),
    Technique("prompt lookup", decoding=Decoding("lookup", (0.4,)), real="text equal (10 prompts)", published="2 to 4"),
    Technique("Medusa heads", decoding=Decoding("medusa", (0.7, 0.5, 0.4), tree=(4, 2, 2)), published="2.2 to 3.6"),
    Technique("EAGLE", decoding=Decoding("eagle", (0.8, 0.75, 0.7), tree=(4, 2, 1)), published="2.7 to 3.5"),
    Technique("multi-token prediction", decoding=Decoding("mtp", (0.85,), 1), published="1.8 (DeepSeek-V3)"),
    Technique("early exit of half the tokens", decoding=Decoding("early-exit", (0.5,), exit_layer=8)),
)


def run(options: StudyOptions) -> StudyResult:
    """The study."""
    options.check_settings(["model", "chips"])
    names = [part.strip() for part in options.settings.get("chips", ",".join(CHIPS)).split(",") if part.strip()]
    chips = [load_chip(name) for name in names]
    model = load_model(options.settings.get("model", "llama-3.2-1b"))
    chosen = TECHNIQUES[::3] if options.quick else TECHNIQUES
    rows: list[tuple[Cell, ...]] = []
    missing: list[str] = []
    for technique in chosen:
        options.say(technique.name)
        gains = [_gain(model, technique, chip, missing) for chip in chips]
        rows.append((technique.name, *gains, technique.real, technique.published))
    head = ("technique", *(f"{chip.name} (times)" for chip in chips), "a real model", "published (times)")
    note = f"Tokens a second of {model.name} over plain decoding on the same chip, batch 1, 512 tokens before, 32 made."
    told = [float(one) for row in rows for one in row[1 : 1 + len(chips)] if isinstance(one, float)]
    return StudyResult(
        "survey",
        "Inference techniques side by side",
        (Table("Gain of each technique", head, tuple(rows), note),),
        (Check("every technique runs on a chip of each kind", len(told) >= len(rows), f"{len(told)} figures"),),
        (
            *dict.fromkeys(missing),
            "Acceptances of drafts other than planes are assumed: they depend on the text.",
            "Published figures are of other models, prompts and programs; they say the size of an effect.",
        ),
        sources=("KIVI (2024), StreamingLLM (2024), Tyukin (2024), Medusa (2024), EAGLE (2024), DeepSeek-V3 (2024)",),
    )


def _gain(model: Model, technique: Technique, chip: Chip, missing: list[str]) -> float | None:
    """Times as many tokens a second; None, with a remark, where the chip cannot."""
    task = task_on(Inference(1, 512, 32, prefill=False), chip)
    assert isinstance(task, Inference)
    plan = resolved_precision(task)
    if technique.weights:
        plan = plan.with_weights(technique.weights)
    if technique.cache:
        plan = replace(plan, kv_cache=technique.cache)
    changed = replace(task, precision=plan, decoding=technique.decoding, kv=technique.kv)
    reduced = technique.reduction.of(model) if technique.reduction is not None else model
    try:
        plain = simulate(model, task, chip, thermal="none").latency_s
        return plain / simulate(reduced, changed, chip, thermal="none").latency_s
    except TierformError as error:
        missing.append(f"{technique.name} on {chip.name}: {error.problems[0].what}")
        return None
