"""Skipping late attention: how many sublayers of Llama-2 must go for the published speed-up, and what else goes.

Tyukin's thesis (2024) reports 21 % faster one-token generation of Llama-2 7B on an A100 without some late attention
sublayers; neither the list of layers nor the sequence was seen.  By bytes alone 17 of 32 sublayers are needed: each
holds 67.1 of the 6,607 million weights that a token reads.  A GPU needs fewer, because a sublayer's kernels take longer
than its share of bytes (they are small and each has its own launch).
LLM-Drop (He et al., 2024) reports +48.4 % for Llama-2 70B without half of its attention sublayers, on hardware that was
not seen; shown beside two GPUs of this library.
"""

from __future__ import annotations

from dataclasses import replace

from tierform.simulation.simulate import simulate
from tierform.studies.study import Check, Picture, StudyOptions, StudyResult, Table
from tierform.workload import Inference, Model, Parallelism, PrecisionPlan, load_model

PUBLISHED, BY_BYTES = 1.21, 17
DROP_70B = 1.484
PLAN = PrecisionPlan(master_weights=None)


def run(options: StudyOptions) -> StudyResult:
    """The study."""
    options.check_settings(["chip", "sequence"])
    chip = options.settings.get("chip", "a100")
    sequence = options.whole_numbers("sequence", (128,))[0]
    model = load_model("llama-2-7b")
    numbers = range(0, 25, 4) if options.quick else range(0, 25)
    rows = []
    for kind in ("attention", "ffn", "layers"):
        options.say(f"skipping {kind}")
        whole = token_s(model, chip, sequence)
        for number in numbers:
            reduced = without_last(model, kind, number)
            seconds = token_s(reduced, chip, sequence)
            rows.append((kind, number, 1e3 * seconds, whole / seconds, reduced.parameters / 1e9))
    head = ("skipped", "sublayers", "ms a token", "speed-up", "parameters (G)")
    note = f"Llama-2 7B, bf16, batch 1, one token after {sequence}, on {chip}; the last sublayers."
    by_number = Table("Speed-up over skipped sublayers", head, tuple(rows), note)
    attention = [(row[1], row[3]) for row in rows if row[0] == "attention"]
    needed = next((number for number, speedup in attention if float(speedup) >= PUBLISHED), 0)
    more = [(row[1], row[3]) for row in rows if row[0] == "ffn"]
    drop = () if options.quick else _dropped(options)
    checks = (
        Check(
            f"+{100 * (PUBLISHED - 1):.0f} % is reached with at most the {BY_BYTES} sublayers that bytes alone need",
            0 < needed <= BY_BYTES,
            f"reached with {needed} of 32",
        ),
        Check(
            "one FFN sublayer saves more time than one of attention, as it holds twice the weights",
            float(more[1][1]) > float(attention[1][1]),
            f"{more[1][0]} sublayers: FFN {float(more[1][1]):.3f}, attention {float(attention[1][1]):.3f}",
        ),
    )
    return StudyResult(
        "tyukin",
        "Skipping late attention sublayers",
        (by_number, *drop),
        checks,
        (
            "What skipping does to quality is measured on a real model: docs/techniques.md.",
            "Not checkable: the thesis' own list of layers and its milliseconds were not seen.",
        ),
        sources=("Tyukin (arXiv 2404.05741), Tyukin et al. (arXiv 2407.15516), He et al. (arXiv 2406.15786)",),
        pictures=(Picture(by_number.title, "sublayers", ("speed-up",), by="skipped", kind="line"),),
    )


def without_last(model: Model, kind: str, number: int) -> Model:
    """The model without its last sublayers of a kind (attention, ffn), or whole layers."""
    if not number:
        return model
    return model.without(**{kind: f"{model.layers - number}-{model.layers - 1}"})


def token_s(model: Model, chip: str, sequence: int, tensor: int = 1) -> float:
    """Seconds of one generated token."""
    task = Inference(batch=1, sequence=sequence, decode=1, prefill=False, precision=PLAN)
    return simulate(model, task, chip, thermal="none", parallelism=Parallelism(tensor=tensor)).latency_s


def _dropped(options: StudyOptions) -> tuple[Table, ...]:
    """Llama-2 70B without half of its attention sublayers."""
    model, rows = load_model("llama-2-70b"), []
    for chip, tensor in (("a100", 2), ("h100", 2)):
        options.say(f"Llama-2 70B on {chip}")
        for sequence in (128, 4096):
            ratio = token_s(model, chip, sequence, tensor) / token_s(
                without_last(replace(model), "attention", 40), chip, sequence, tensor
            )
            rows.append((f"{tensor} {chip}", sequence, ratio, DROP_70B))
    head = ("chips", "tokens before", "speed-up", "published")
    return (Table("Llama-2 70B without 40 of 80 attention sublayers", head, tuple(rows), "Batch 1, bf16."),)
