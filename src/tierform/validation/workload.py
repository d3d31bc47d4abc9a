"""The workload's counts: parameters, matmul operations, memory.

Parameters against the makers' statements; matmul operations, forward and backward, against PyTorch's flop counter on
the Hugging Face modules at their real sizes; stored activations, optimizer memory, caches and the share of operations
on static weights against published formulas.  With a folder, its ``workload_flops.csv`` and ``workload_parameters.csv``
(the same columns) take the place of the built-in tables.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from tierform.errors import fail
from tierform.files import read_text
from tierform.validation.ledger import EngineLedger, Point, Tolerance
from tierform.workload import (
    FineTuning,
    Full,
    Inference,
    Kind,
    LoRA,
    Model,
    Workload,
    expand,
    load_model,
    model_from_config,
)

_TABLES = Path(__file__).parent / "tables"
_EXACT = Tolerance()


def ledger(folder: Path | None = None) -> EngineLedger:
    """Every point computed anew; see the module's text."""
    points = [*_parameters(folder or _TABLES), *_flops(folder or _TABLES), *_memory(), _share()]
    remarks = (
        "The flop counter counts what the eager code computes: masked halves in full, logits of every token. The "
        "default expansion leaves out what inference does not need; these points use eager=True.",
        "Makers round their totals; the Hugging Face modules of the same configurations are matched exactly (tests).",
    )
    return EngineLedger("workload", points, remarks)


def _rows(folder: Path, name: str) -> list[dict[str, str]]:
    lines = [line for line in read_text(folder / name).splitlines() if line and not line.startswith("#")]
    return list(csv.DictReader(lines))


def _number(row: dict[str, str], key: str, name: str) -> float:
    try:
        return float(row[key])
    except (KeyError, TypeError, ValueError):
        fail("a number is needed in this column", file=name, key=key, value=row.get(key))


def _parameters(folder: Path) -> Iterator[Point]:
    name = "workload_parameters.csv"
    for row in _rows(folder, name):
        model = load_model(row["model"])
        tolerance = Tolerance(relative=_number(row, "tolerance", name))
        for column, ours in (("total", model.parameters), ("active", model.active_parameters)):
            if row.get(column):
                stated = _number(row, column, name)
                yield Point(
                    case=model.name,
                    quantity=f"{column} parameters",
                    unit="",
                    reference=stated,
                    ours=ours,
                    tolerance=tolerance,
                    source=row["source"],
                    evidence="published",
                )


def _flops(folder: Path) -> Iterator[Point]:
    name = "workload_flops.csv"
    for row in _rows(folder, name):
        method = LoRA(int(row["method"].split()[1])) if row["method"].startswith("lora") else Full()
        task = FineTuning(method, batch=1, sequence=int(_number(row, "sequence", name)))
        workload = expand(load_model(row["model"]), task, eager=True)
        for stage in ("forward", "backward"):
            yield Point(
                case=f"{row['model']}, {row['method']}, {row['sequence']} tokens",
                quantity=f"matmul operations {stage}",
                unit="op",
                reference=_number(row, stage, name),
                ours=2.0 * _macs(workload, stage),
                tolerance=_EXACT,
                source="PyTorch flop counter",
                evidence="simulator",
            )


def _macs(workload: Workload, stage: str) -> int:
    return sum(o.macs * times for s, _, o, times in workload.occurrences() if s.name == stage)


def _layers(layers: int) -> Model:
    return model_from_config(
        {
            "model_type": "gpt2",
            "n_embd": 1600,
            "n_head": 25,
            "n_layer": layers,
            "n_positions": 1024,
            "vocab_size": 50257,
        }
    )


def _memory() -> Iterator[Point]:
    s, b, h, a = 1024, 4, 1600, 25
    cases = (("none", 34.0 + 5.0 * a * s / h), ("selective", 34.0), ("full", 2.0))
    for recomputation, factor in cases:
        task = FineTuning(batch=b, sequence=s, recomputation=recomputation)
        two, one = (expand(_layers(n), task).footprint.activations for n in (3, 2))
        yield Point(
            case=f"GPT-2 XL layer, recomputation {recomputation}",
            quantity="stored activations",
            unit="B",
            reference=s * b * h * factor,
            ours=two - one,
            tolerance=_EXACT,
            source="Korthikanti et al. 2022",
            evidence="closed form",
        )
    memory = expand(load_model("llama-3.1-8b"), FineTuning(sequence=128)).footprint
    states = memory.weights + memory.gradients + memory.optimizer_states + memory.master_weights
    yield Point(
        case="llama-3.1-8b, AdamW in mixed precision",
        quantity="model states",
        unit="B",
        reference=16.0 * 8030261248,
        ours=states,
        tolerance=_EXACT,
        source="Rajbhandari et al. 2020 (ZeRO)",
        evidence="closed form",
    )
    cache = expand(load_model("deepseek-v3"), Inference(sequence=1000)).footprint.kv_cache
    yield Point(
        case="deepseek-v3, 1000 tokens",
        quantity="KV cache",
        unit="B",
        reference=2.0 * 1000 * 61 * (512 + 64),
        ours=cache,
        tolerance=_EXACT,
        source="deepseek-v2-2024",
        evidence="closed form",
    )


def _share() -> Point:
    """Operations on static weights of one GPT-2 Medium layer, counted as published for Atleus (halved products)."""
    forward = expand(load_model("gpt2-medium"), FineTuning(LoRA(32), sequence=1024)).stages[0]
    layer = [o for o in max(forward.blocks, key=lambda block: block.count).operators if o.kind is Kind.MATMUL]
    static = sum(o.macs for o in layer if o.static_operand)
    other = sum(o.macs for o in layer if not o.static_operand) / 2
    return Point(
        case="gpt2-medium, LoRA 32, 1024 tokens",
        quantity="operations on static weights",
        unit="%",
        reference=91.9,
        ours=100.0 * static / (static + other),
        tolerance=Tolerance(absolute=0.1),
        source="atleus-2025",
        evidence="published",
    )
