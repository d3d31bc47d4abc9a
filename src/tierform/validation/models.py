"""Whole models against measured machines: inference steps, energy, power, training steps and memory.

Built in are published measurements of models and chips of the library (``tables/models.csv``, one figure a row with its
source); with a folder its ``cases.csv`` in the same columns, whose models and chips may be files of the folder.  Every
row goes through `tierform.simulate` with the runtime that its group names (``tables/models_groups.csv``) or that its
own column `runtime` does; a column `parallel` says of a split what tensor, pipeline and data do not.  In tables without
it, published runs are split as their source says (``tables/models_splits.csv``); a checkpoint that keeps some matrices
in 16 bits does so here, too (``tables/models_formats.csv``); remarks tell how many rows.  Rows on which a constant was
fitted (``tables/models_fitted.csv``) stand apart.

Single rows are shown for information; what passes or fails is the median of |ours / measured - 1| of a group over all
of its rows against its bar.  A group whose bar is not reached is shown with it, the remarks say why, and it is held to
the error that was last recorded for it (column `recorded`, with half a point for rounding): it may not get worse.
The best error of another tool on the same rows stands beside ours where one was run.

A JSON file of ``benchmarks/device.py`` in the folder's place: see :mod:`tierform.validation.measured_device`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from tierform.errors import Problem, TierformError, fail, nearest
from tierform.files import read_text
from tierform.simulation import Result, simulate
from tierform.validation.ledger import EngineLedger, Point, Tolerance
from tierform.validation.measured_device import device_ledger
from tierform.workload import Full, Inference, LastLayers, LoRA, PrecisionPlan, QLoRA, Task, Training, load_model
from tierform.workload.parallel import Parallelism
from tierform.workload.split_text import read_parallel
from tierform.workload.task import FineTuning

_ROUNDING = 0.5  # per cent: what an error may be above the recorded one
_TABLES = Path(__file__).parent / "tables"
_INPUTS = (
    "model",
    "chip",
    "task",
    "method",
    "batch",
    "sequence",
    "decode",
    "prefill",
    "precision",
    "optimizer",
    "recomputation",
    "accumulation",
    "micro_batches",
    "tensor",
    "pipeline",
    "data",
)
_COLUMNS = {"group", "case", "metric", "measured", "unit", "source", *_INPUTS}
_ALL = ("q", "k", "v", "o", "up", "gate", "down")
_MLP = ("up", "gate", "down")
# The last layer alone learns and its backward pass is not counted: a forward pass with the logits of all tokens.
_METHODS: dict[str, Any] = {
    "full": Full(),
    "forward-only": LastLayers(1),
    "qlora8": QLoRA(8, ("q", "v")),
    "qlora8-all": QLoRA(8, _ALL),
    "lora10-mlp": LoRA(10, _MLP),
    **{f"lora{rank}-all": LoRA(rank, _ALL) for rank in (8, 16)},
    **{f"lora{rank}-qv": LoRA(rank, ("q", "v")) for rank in (32, 64)},
    "lora8": LoRA(8, ("q", "v")),
    "lora32-qkv": LoRA(32, ("q", "k", "v")),
}


def _stages(result: Result, *kinds: str) -> float:
    return sum(stage.latency_s for stage in result.stages if stage.name.startswith(kinds))


def _tokens(result: Result) -> int:
    return int(result.task["batch"]) * int(result.task["decode"])


def _weights_busy_s(result: Result) -> float:
    rows = (row for row in result.operators if row.block.startswith("layer") and row.kind == "matmul")
    core = ("attention.scores", "attention.context")
    return sum(row.busy_s for row in rows if row.stage != "update" and not row.name.startswith(core))


_METRICS: dict[str, Callable[[Result], float]] = {
    "step_s": lambda result: result.latency_s,
    "forward_s": lambda result: _stages(result, "forward"),
    "forward_backward_s": lambda result: _stages(result, "forward", "backward"),
    "prefill_s": lambda result: _stages(result, "prefill"),
    "decode_step_s": lambda result: _stages(result, "decode") / int(result.task["decode"]),
    "out_tokens_per_s": lambda result: _tokens(result) / result.latency_s,
    "J_per_token": lambda result: result.energy_J / _tokens(result),
    "power_W": lambda result: result.average_power_W,
    "layer_s": lambda result: result.latency_s / load_model(result.model).layers,
    "layers_busy_s": _weights_busy_s,
    "memory_B": lambda result: float(sum(result.memory_footprint_B.values())),
    "activations_B": lambda result: float(result.memory_footprint_B["activations"]),
    "states_B": lambda result: float(
        sum(size for part, size in result.memory_footprint_B.items() if part != "activations")
    ),
}


@dataclass(frozen=True, slots=True)
class Group:
    """What a group of rows is held to: per cent of the median, and the best of other tools on the same rows."""

    name: str
    runtime: str
    quantized_runtime: str
    bar: float | None
    judged: bool
    recorded: float | None
    peer: str
    reason: str


def _unlisted(name: str) -> Group:
    """A group that our own table does not hold to anything."""
    return Group(
        name=name, runtime="ideal", quantized_runtime="", bar=None, judged=False, recorded=None, peer="", reason=""
    )


def ledger(folder: Path | None = None) -> EngineLedger:
    """Every row computed anew; see the module's text."""
    if folder is not None and folder.suffix == ".json":
        return device_ledger(folder)
    path = _TABLES / "models.csv" if folder is None else folder / "cases.csv"
    rows, completed = _completed(_rows(path))
    groups, fitted = _groups(), _fitted()
    known: dict[tuple[str, ...], Result | TierformError] = {}
    points: list[Point] = []
    errors: dict[str, list[float]] = {}
    refused = []
    for row in rows:
        group = groups.get(row["group"], _unlisted(row["group"]))
        runtime = row.get("runtime") or _runtime_of(row, group)
        try:
            ours = _METRICS[row["metric"]](_simulated(row, runtime, folder, known))
        except TierformError as error:
            refused.append(f"{row['case']}: {str(error).splitlines()[0]}")
            continue
        point = Point(
            case=row["case"],
            quantity=f"{row['group']} ({runtime})",
            unit=row["unit"],
            reference=float(row["measured"]),
            ours=ours,
            tolerance=None,
            source=row["source"],
            evidence="measured",
            fitted=(row["group"], row["case"]) in fitted,
            note=row.get("note", ""),
        )
        points.append(point)
        errors.setdefault(row["group"], []).append(100 * abs(point.relative_error))
    verdicts = [
        _verdict(groups[name], found, own_rows=folder is None) for name, found in errors.items() if name in groups
    ]
    return EngineLedger(
        "models",
        [*points, *verdicts],
        (*_remarks(groups, errors), *completed, *(f"refused: {text}" for text in refused)),
    )


def _verdict(group: Group, errors: list[float], *, own_rows: bool) -> Point:
    """What a group is held to: its bar, or on our own rows what was recorded where it does not reach that."""
    bar, limit, missed = group.bar, group.bar if group.judged else None, ""
    if not group.judged and group.recorded is not None and own_rows:
        limit, missed = group.recorded + _ROUNDING, f" not held, recorded {group.recorded:g} %"
    return Point(
        case=f"{group.name}, {len(errors)} rows",
        quantity="one plus the median error of a group",
        unit="ratio",
        reference=1.0,
        ours=1.0 + median(errors) / 100,
        tolerance=Tolerance(absolute=limit / 100) if limit is not None else None,
        source="models_groups.csv",
        evidence="measured",
        note=f"bar {bar or 0:g} %{missed}; others on these rows: {group.peer or 'none run'}",
    )


def _remarks(groups: dict[str, Group], errors: dict[str, list[float]]) -> list[str]:
    return [
        f"{name}: median {median(found):.1f} %, bar {groups[name].bar:g} % not held: {groups[name].reason}"
        for name, found in errors.items()
        if name in groups and groups[name].bar is not None and not groups[name].judged
    ]


def _runtime_of(row: dict[str, str], group: Group) -> str:
    return group.quantized_runtime if group.quantized_runtime and row["precision"] == "nf4" else group.runtime


def _simulated(
    row: dict[str, str], runtime: str, folder: Path | None, known: dict[tuple[str, ...], Result | TierformError]
) -> Result:
    """The simulation of a row; rows that differ in the metric alone share it."""
    key = (runtime, row.get("parallel") or "", *(row[name] for name in _INPUTS))
    if key not in known:
        try:
            known[key] = simulate(
                _at(row["model"], folder),
                _task(row),
                _at(row["chip"], folder),
                thermal="none",
                parallelism=_split(row),
                micro_batches=int(row["micro_batches"]) if row["micro_batches"] else None,
                runtime=runtime,
            )
        except TierformError as error:
            known[key] = error
    found = known[key]
    if isinstance(found, TierformError):
        raise found
    return found


def _split(row: dict[str, str]) -> Parallelism:
    """How chips share a row: its degrees, and what the column `parallel` adds (``sequence,interleave=3``)."""
    degrees = f"tensor={row['tensor']},pipeline={row['pipeline']},data={row['data']}"
    return read_parallel(f"{degrees},{row['parallel']}" if row.get("parallel") else degrees)


def _at(name: str, folder: Path | None) -> str:
    """A file of the folder, or a name of the library."""
    return str(folder / name) if folder is not None and name.endswith(".yaml") else name


def _task(row: dict[str, str]) -> Task:
    """The task that a row describes."""
    plan = _plan(row["precision"], inference=row["task"] == "inference")
    if row["task"] == "inference":
        return Inference(
            batch=int(row["batch"]),
            sequence=int(row["sequence"]),
            decode=int(row["decode"]),
            prefill=row["prefill"] == "1",
            precision=plan,
        )
    make = Training if row["task"] == "train" else FineTuning
    return make(
        batch=int(row["batch"]),
        sequence=int(row["sequence"]),
        method=_METHODS[row["method"]],
        optimizer=row["optimizer"],  # type: ignore[arg-type]
        recomputation=row["recomputation"],
        gradient_accumulation=int(row["accumulation"]),
        precision=plan,
    )


_FORMS = {
    "fp8-kv16": "fp8",
    "fp8-ffn-kv16": "fp8",
    "nf4": "bf16",
    "fp16-train": "fp16",
    "fp16-main32": "fp16",
    "fp8-train": "bf16",
    "pure-bf16": "bf16",
}


@cache
def _plan(name: str, *, inference: bool) -> PrecisionPlan:
    """The number formats that a row names."""
    form = _FORMS.get(name, name)
    plan = PrecisionPlan(weights=form, activations=form, kv_cache=form, gradients=form, adapters=form)
    if inference or name == "fp32":
        plan = replace(plan, master_weights=None)
    if name in ("fp8-kv16", "fp8-ffn-kv16"):
        plan = replace(plan, activations="bf16", kv_cache="bf16", adapters="bf16", matmul_inputs="fp8")
        plan = replace(plan, embedding_weights="bf16", head_weights="bf16")  # as quantizers keep them
    if name == "fp8-ffn-kv16":
        plan = replace(plan, attention_weights="bf16")
    if name == "nf4":
        plan = replace(plan, weights="nf4")
    elif name == "fp8-train":
        plan = replace(plan, weights="fp8", activations="fp8")
    elif name == "fp16-main32":
        plan = replace(plan, main_gradients="fp32")
    elif name == "pure-bf16":
        plan = replace(plan, optimizer_states="bf16", master_weights=None)
    return plan


# -- tables ------------------------------------------------------------------------------------------------------
def _table(path: Path) -> list[dict[str, str]]:
    lines = [line for line in read_text(path).splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table; TierformError with everything that is wrong in it."""
    rows = _table(path)
    if not rows:
        fail("the table has no rows", file=str(path))
    missing = _COLUMNS - set(rows[0])
    if missing:
        fail(f"columns are missing: {', '.join(sorted(missing))}", file=str(path))
    problems = []
    for line, row in enumerate(rows, 2):
        for column, choices in (("metric", _METRICS), ("method", _METHODS)):
            if row[column] not in choices:
                problems.append(
                    Problem(
                        "not known",
                        file=str(path),
                        line=line,
                        key=column,
                        value=row[column],
                        nearest=nearest(row[column], list(choices)),
                        fix=f"Choose one of {', '.join(choices)}.",
                    )
                )
        for column in ("batch", "sequence", "decode", "accumulation", "tensor", "pipeline", "data", "measured"):
            try:
                number = float(row[column])
            except (TypeError, ValueError):
                number = -1.0
            if number < 0 or (column != "measured" and number != int(number)):
                problems.append(Problem("a number is needed", file=str(path), line=line, key=column, value=row[column]))
    if problems:
        raise TierformError(problems)
    return rows


def _completed(rows: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[str]]:
    """Rows with what their sources say of formats and, without a column `parallel`, of the split; remarks."""
    rows, said = _with_formats(rows)
    if "parallel" in rows[0]:
        return rows, said
    known = {_run_of(row): row["parallel"] for row in _table(_TABLES / "models_splits.csv")}
    made = [{**row, "parallel": known.get(_run_of(row), known.get(_runs_of(row), ""))} for row in rows]
    number = sum(bool(row["parallel"]) for row in made)
    if number:
        said.append(
            f"{number} rows are split as their source says (sequence, interleave, expert): no column says parallel"
        )
    return made, said


def _with_formats(rows: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[str]]:
    """Rows whose checkpoint keeps some matrices in another format than the row names, with these, and a remark."""
    known = _table(_TABLES / "models_formats.csv")
    made, number = [], 0
    for row in rows:
        for line in known:
            if line["checkpoint"] in row["source"] and line["given"] == row["precision"]:
                row, number = {**row, "precision": line["precision"]}, number + 1
        made.append(row)
    said = f"{number} rows keep the matrices in 16 bits that their checkpoint's config.json exempts"
    return made, [said] if number else []


def _run_of(row: dict[str, str]) -> tuple[str, ...]:
    """By what a published run is known: its source, figure and degrees."""
    figure = f"{float(row['measured']):.4g}" if row["measured"] else ""
    return row["source"], figure, row["unit"], row["tensor"], row["pipeline"]


def _runs_of(row: dict[str, str]) -> tuple[str, ...]:
    """All runs of a source with a row's degrees."""
    return row["source"], "", "", row["tensor"], row["pipeline"]


def _groups() -> dict[str, Group]:
    return {
        row["group"]: Group(
            name=row["group"],
            runtime=row["runtime"],
            quantized_runtime=row["quantized_runtime"],
            bar=float(row["bar"]) if row["bar"] else None,
            judged=row["judged"] == "1",
            recorded=float(row["recorded"]) if row["recorded"] else None,
            peer=row["peer"],
            reason=row["reason"],
        )
        for row in _table(_TABLES / "models_groups.csv")
    }


def _fitted() -> set[tuple[str, str]]:
    return {(row["group"], row["case"]) for row in _table(_TABLES / "models_fitted.csv")}
