"""Speculative decoding: tokens a second over drafts, drafted tokens, acceptance and batch; where it stops paying.

Published beside it: gpt-fast's Llama-2 70B with a 7B draft, both in int4, on one A100 (48.4 tokens/s against 25.25;
five tokens are drafted, its default; the acceptance is not stated, so the study gives the one that the
figure implies); Leviathan et al.'s T5-XXL with T5-small (3.4 times at best); Medusa (2.2 to 3.6 times).
Drafts from planes of the same weights are shown on GPUs, whose memory bounds a token, with the acceptance that was
measured on a real model.
"""

from __future__ import annotations

from dataclasses import replace

from tierform.simulation.choose import choose
from tierform.simulation.drafted import speeds
from tierform.simulation.job import Job
from tierform.simulation.simulate import simulate
from tierform.studies.study import Check, Picture, StudyOptions, StudyResult, Table
from tierform.workload import Inference, PrecisionPlan
from tierform.workload.decoding import Decoding

PLAN = PrecisionPlan(master_weights=None)
INT4 = PLAN.with_weights("int4-g32z")
GPT_FAST, GPT_FAST_PLAIN, GPT_FAST_TOKENS = 48.4, 25.25, 5
PLANES, PLANES_ACCEPTED = 9, 0.94  # measured on SmolLM2: the sum of min(p, q) on text
# What drafts Llama 3.1 8B, with the acceptance that is assumed or was measured.
DRAFTS = {
    "Llama 3.2 1B": Decoding("model", (0.8,), model="llama-3.2-1b"),
    "nine planes of itself": Decoding("planes", (PLANES_ACCEPTED,), planes=PLANES),
    "without attention in 20-31": Decoding("skip", (0.7,), skip="20-31"),
    "lookup": Decoding("lookup", (0.4,)),
    "a layer for each token": Decoding("mtp", (0.8, 0.7, 0.6)),
}


def run(options: StudyOptions) -> StudyResult:
    """The study."""
    options.check_settings(["model", "chips"])
    model = options.settings.get("model", "llama-3.1-8b")
    chips = [part.strip() for part in options.settings.get("chips", "a100,h100").split(",") if part.strip()]
    tables = [_by_tokens(options, model, chips), _by_batch(options, model, chips[0])]
    implied, table = _implied(options)
    rows = [(row[1], float(row[5] or 0.0)) for row in tables[0].rows if row[0] == chips[0]]
    best = {name: max(speedup for other, speedup in rows if other == name) for name, _ in rows}
    falls = [float(row[3] or 0.0) for row in tables[1].rows]
    checks = (
        Check(
            "the acceptance that gpt-fast's 70B figure implies is one that drafts of the same family have",
            0.55 <= implied <= 0.95,
            f"{implied:.2f} with five drafted tokens",
        ),
        Check(
            "a draft from planes of the same weights pays where memory bounds a token",
            best.get("nine planes of itself", 0.0) >= 1.15,
            ", ".join(f"{name} {speedup:.2f}" for name, speedup in best.items()),
        ),
        Check("with a larger batch there is less to gain", falls[-1] < falls[0], f"{falls[0]:.2f} to {falls[-1]:.2f}"),
    )
    return StudyResult(
        "speculative",
        "Speculative decoding: what it gains, and where it stops",
        (*tables, table),
        checks,
        (
            "Acceptance depends on model, text and temperature; measure it with `tierform decode`.",
            "The acceptance of nine planes was measured on SmolLM2-135M; other drafts' are assumed.",
        ),
        sources=("Leviathan et al. (2023), Chen et al. (2023), Cai et al. (Medusa, 2024), gpt-fast (2024)",),
        pictures=(Picture(tables[1].title, "batch", ("speed-up",), kind="line"),),
    )


def _by_tokens(options: StudyOptions, model: str, chips: list[str]) -> Table:
    rows = []
    for chip in chips:
        for name, decoding in list(DRAFTS.items())[: 2 if options.quick else None]:
            options.say(f"{name} on {chip}")
            job = Job(model, _task(1, decoding), chip, thermal="none").loaded()
            tried = speeds(job, choose)[: 4 if options.quick else None]
            chance = decoding.acceptance[0]
            rows += [(chip, name, chance, one.tokens, one.tokens_a_step, one.speedup) for one in tried]
    head = ("chip", "draft", "acceptance", "tokens drafted", "tokens a step", "speed-up")
    return Table("Speed-up over drafted tokens", head, tuple(rows), f"{model}, bf16, batch 1, after 512 tokens.")


def _by_batch(options: StudyOptions, model: str, chip: str) -> Table:
    rows = []
    for batch in (1, 16, 64) if options.quick else (1, 2, 4, 8, 16, 32, 64, 128):
        options.say(f"batch {batch}")
        job = Job(model, _task(batch, DRAFTS["Llama 3.2 1B"]), chip, thermal="none").loaded()
        top = min(speeds(job, choose), key=lambda one: one.token_s)
        rows.append((batch, top.tokens, top.tokens_a_step, top.speedup))
    head = ("batch", "best tokens", "tokens a step", "speed-up")
    note = f"{model} on {chip} with Llama 3.2 1B drafting, acceptance 0.8."
    return Table("Best drafted tokens by batch", head, tuple(rows), note)


def _implied(options: StudyOptions) -> tuple[float, Table]:
    """The acceptance at which Llama-2 70B drafted by 7B, both int4, gains on an A100 what gpt-fast published."""
    options.say("Llama-2 70B drafted by 7B")
    task = replace(_task(1, None), precision=INT4)
    plain = simulate("llama-2-70b", task, "a100", thermal="none", runtime="gpt-fast").latency_s
    wanted, rows = GPT_FAST / GPT_FAST_PLAIN, []
    low, high = 0.0, 1.0
    for _ in range(4 if options.quick else 7):
        middle = (low + high) / 2
        decoding = Decoding("model", (middle,), GPT_FAST_TOKENS, model="llama-2-7b")
        fast = simulate(
            "llama-2-70b", replace(task, decoding=decoding), "a100", thermal="none", runtime="gpt-fast"
        ).latency_s
        low, high = (low, middle) if plain / fast > wanted else (middle, high)
        rows.append((middle, plain / fast, wanted))
    rows.sort()
    head = ("acceptance", "speed-up", "published")
    note = "Llama-2 70B drafted by 7B, five tokens, int4 in groups of 32, one A100."
    return (low + high) / 2, Table("The acceptance that a published figure implies", head, tuple(rows), note)


def _task(batch: int, decoding: Decoding | None) -> Inference:
    return Inference(batch, 512, 64, prefill=False, precision=PLAN, decoding=decoding)
