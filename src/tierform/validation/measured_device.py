"""A chip held against what ``benchmarks/device.py`` measured of it: kernels, energies, steps of a small Llama.

The chip is the file's `chip`, or the one of the library whose name stands in the device's.  Products turn through as
many weights as the script did; a product of eight bits is the product alone, without the quantization of activations.
Energies are those of seconds of one kernel: idle power, floor, operations and bytes, at the clock that the board's
limit leaves.  Steps run with every operator a kernel of its own, attention and the optimizer fused, as the script does
it; where the host takes longer to issue a step than the chip to do it, its measured time is shared out over the
kernels.

Everything is shown for information: a device that is measured once is no bar.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import fsum
from pathlib import Path
from statistics import median

from tierform.chip.component import Cost
from tierform.chip.description import Chip, load_chip
from tierform.chip.gpu.device import Gpu
from tierform.chip.gpu.device_file import (
    AttentionRow,
    DeviceFile,
    EnergyRow,
    ProductRow,
    RunRow,
    chip_name,
    read_device,
)
from tierform.chip.gpu.samples import Sample
from tierform.errors import TierformError, fail
from tierform.simulation import Result, charge, simulate
from tierform.simulation.power_cap import ARITHMETIC, clock_of
from tierform.simulation.runtime import Runtime
from tierform.validation.kernels import attention_of, product_of
from tierform.validation.ledger import EngineLedger, Point
from tierform.workload import Full, Inference, LoRA, Model, PrecisionPlan, Task, Training
from tierform.workload.graph import StageKind
from tierform.workload.models import model_from_config

_ALL = ("q", "k", "v", "o", "gate", "up", "down")
_EAGER = Runtime("eager, attention and optimizer fused", fuses_operators=False, fuses_attention=True)
_TEMPERATURE_K = 318.15  # of the board whose idle power is asked for: it does not depend on it


def device_ledger(path: Path) -> EngineLedger:
    """Every figure of a device's file beside ours."""
    given = read_device(path)
    name = chip_name(given, path)
    chip = load_chip(name)
    gpus = [part for part in chip.components.values() if isinstance(part, Gpu)]
    if len(gpus) != 1:
        fail("a chip of one GPU is needed here", file=str(path), key="chip", value=name, fix="Give h100, for example.")
    gpu = replace(gpus[0], weights_in_turn=float(given.weights_in_turn))
    turning = replace(chip, components={**chip.components, gpu.name: gpu})
    points: list[Point] = []
    refused: list[str] = []
    model = model_from_config(given.model, "small-llama", file=str(path))
    forms = {row.format for row in given.products} | {row.format for row in given.attention}
    form = "bf16" if "bf16" in forms or not forms else sorted(forms)[0]
    rows: list[Iterator[Point]] = [
        _products(given.products, turning, path.name),
        _energies(given.energies, turning, gpu, path.name),
        _attention(given.attention, chip, path.name, refused),
        _sustained(given, form, turning, path.name),
        *(_run(row, model, chip, form, path.name, refused) for row in given.runs),
    ]
    for found in rows:
        points += found
    return EngineLedger("models", [*points, *_medians(points, path.name)], tuple(_remarks(given, name, refused)))


def _remarks(given: DeviceFile, chip: str, refused: list[str]) -> Iterator[str]:
    yield f"{given.device.name}, torch {given.torch}, against {chip}; weights in turn: {given.weights_in_turn}"
    if given.dry:
        yield "a dry run on a processor at tiny sizes: its figures say nothing about the chip"
    yield from (f"not measured: {text}" for text in given.skipped)
    yield from (f"refused: {text}" for text in refused)


def _point(case: str, quantity: str, unit: str, measured: float, ours: float, source: str) -> Point:
    return Point(
        case=case,
        quantity=quantity,
        unit=unit,
        reference=measured,
        ours=ours,
        tolerance=None,
        source=source,
        evidence="measured",
    )


def _medians(points: Sequence[Point], source: str) -> Iterator[Point]:
    by_quantity: dict[str, list[float]] = {}
    for point in points:
        by_quantity.setdefault(point.quantity, []).append(100 * abs(point.relative_error))
    for quantity, errors in by_quantity.items():
        yield _point(f"{quantity}: {len(errors)} rows", "median |error|", "%", 0.0, median(errors), source)


def _product(row: ProductRow | EnergyRow, chip: Chip) -> Cost:
    shape = (row.m, row.n, row.k)
    return charge(chip, (product_of(Sample("", "product", row.format, shape, row.seconds)),))[0]


def _products(rows: Sequence[ProductRow], chip: Chip, source: str) -> Iterator[Point]:
    for row in rows:
        ours, case = _product(row, chip).occupancy_s, f"{row.m}x{row.n}x{row.k}"
        yield _point(case, f"product {row.format}", "us", row.seconds * 1e6, ours * 1e6, source)


def _held(gpu: Gpu, cost: Cost) -> tuple[float, float]:
    """(seconds, joules) of a kernel that runs for seconds under the board's limit."""
    seconds, operations_J = cost.occupancy_s, cost.energy_J.get(ARITHMETIC, 0.0)
    bytes_J = cost.total_energy_J - operations_J
    clock = clock_of(seconds, seconds, operations_J, bytes_J, gpu.headroom_W)
    seconds /= clock
    floor_W = float(gpu.leakage_W(_TEMPERATURE_K)) + gpu.active_W
    return seconds, floor_W * seconds + clock * clock * operations_J + bytes_J


def _energies(rows: Sequence[EnergyRow], chip: Chip, gpu: Gpu, source: str) -> Iterator[Point]:
    for row in rows:
        seconds, joules = _held(gpu, _product(row, chip))
        case = f"{row.m}x{row.n}x{row.k} for seconds"
        yield _point(case, f"long product {row.format}, time", "us", row.seconds * 1e6, seconds * 1e6, source)
        if row.energy_J is not None:
            yield _point(case, f"product {row.format}, energy", "mJ", row.energy_J * 1e3, joules * 1e3, source)
        if row.power_W is not None:
            yield _point(case, f"product {row.format}, power", "W", row.power_W, joules / seconds, source)


def _sustained(given: DeviceFile, form: str, chip: Chip, source: str) -> Iterator[Point]:
    """The mean rate of the last third of a long product."""
    rows = given.capped[-max(1, len(given.capped) // 3) :]
    if not rows:
        return
    size = rows[-1].size
    product = product_of(Sample("", "product", form, (size, size, size), 1.0))
    cost = charge(chip, (product,))[0]
    rate = fsum(row.rate_per_s for row in rows) / len(rows)
    case = f"{size}x{size}x{size} at the end"
    yield _point(case, f"sustained rate {form}", "TFLOP/s", rate * 1e-12, 2e-12 * size**3 / cost.occupancy_s, source)


def _attention(rows: Sequence[AttentionRow], chip: Chip, source: str, refused: list[str]) -> Iterator[Point]:
    for row in rows:
        shape = (row.batch, row.queries, row.history, row.heads, row.kv_heads, row.head_dim)
        case = f"{row.batch} x ({row.history} + {row.queries}), {row.heads}/{row.kv_heads} heads of {row.head_dim}"
        decode = row.queries == 1
        try:
            if row.passes == "backward":
                ours = _backward_s(row, chip)
            else:
                sample = Sample("", "decode" if decode else "prefill", row.format, shape, row.seconds)
                ours = fsum(cost.occupancy_s for cost in charge(chip, attention_of(sample)))
        except TierformError as error:
            refused.append(f"attention {case}: {str(error).splitlines()[0]}")
            continue
        quantity = f"attention {'decode' if decode else row.passes} {row.format}"
        yield _point(case, quantity, "us", row.seconds * 1e6, ours * 1e6, source)


def _backward_s(row: AttentionRow, chip: Chip) -> float:
    """The backward kernel of a layer with these heads."""
    config: dict[str, object] = {
        "model_type": "llama",
        "vocab_size": 64,
        "hidden_size": row.heads * row.head_dim,
        "intermediate_size": row.head_dim,
        "num_hidden_layers": 1,
        "num_attention_heads": row.heads,
        "num_key_value_heads": row.kv_heads,
        "head_dim": row.head_dim,
        "max_position_embeddings": max(2048, row.queries),
    }
    task = Training(batch=row.batch, sequence=row.queries, precision=_plan(row.format))
    result = simulate(model_from_config(config, "one-layer"), task, chip, thermal="none")
    run = result._run
    assert run is not None
    return fsum(
        booked.execution.cost.occupancy_s * booked.times
        for booked in run.ledger.booked
        if booked.stage.kind is StageKind.BACKWARD and booked.execution.operator.attention is not None
    )


def _plan(form: str) -> PrecisionPlan:
    """All in one format: the script's weights are updated in the format that they are used in."""
    form = "fp32" if form == "tf32" else form
    return PrecisionPlan(
        weights=form,
        activations=form,
        kv_cache=form,
        gradients=form,
        adapters=form,
        optimizer_states=form,
        master_weights=None,
    )


def _task(row: RunRow, form: str) -> Task:
    if row.what == "decode":
        return Inference(batch=row.batch, sequence=row.sequence, decode=1, prefill=False, precision=_plan(form))
    method = LoRA(row.rank or 16, _ALL) if row.what == "lora" else Full()
    return Training(batch=row.batch, sequence=row.sequence, method=method, precision=_plan(form))


def _run(row: RunRow, model: Model, chip: Chip, form: str, source: str, refused: list[str]) -> Iterator[Point]:
    case = f"batch {row.batch}, {row.sequence} tokens{', one graph' if row.captured else ''}"
    try:
        result = _simulated(row, _task(row, form), model, chip)
    except TierformError as error:
        refused.append(f"{row.what} {case}: {str(error).splitlines()[0]}")
        return
    name = f"{row.what} step"
    yield _point(case, f"{name}, time", "ms", row.seconds * 1e3, result.latency_s * 1e3, source)
    if row.energy_J is not None:
        yield _point(case, f"{name}, energy", "J", row.energy_J, result.energy_J, source)
    if row.power_W is not None:
        yield _point(case, f"{name}, power", "W", row.power_W, result.average_power_W, source)
    if row.memory_B is not None:
        ours = float(sum(result.memory_footprint_B.values()))
        yield _point(case, f"{name}, memory", "GB", row.memory_B * 1e-9, ours * 1e-9, source)


def _simulated(row: RunRow, task: Task, model: Model, chip: Chip) -> Result:
    """The step, no shorter than the host's measured time to issue it."""
    result = simulate(model, task, chip, thermal="none", runtime=_EAGER)
    if row.captured or row.host_s is None or row.host_s <= result.latency_s:
        return result
    # With a second for each kernel a pass takes as many seconds as the host issues kernels.
    kernels = simulate(model, task, chip, thermal="none", runtime=replace(_EAGER, kernel_s=1.0)).latency_s
    return simulate(model, task, chip, thermal="none", runtime=replace(_EAGER, kernel_s=row.host_s / kernels))
