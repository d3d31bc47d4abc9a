"""Figures of an accelerator that ``benchmarks/device.py`` measured: the file, checked, and what follows from it.

The script needs torch alone, so that it runs on a machine without this project; its JSON is read here for
`tierform calibrate --from` (a chip of the device) and `tierform validate models --data` (a chip held against it).

Powers are linear in what a kernel does each second: P = idle + floor + sum over formats (operations/s times energy) +
bytes/s times energy.  The coefficients are found by non-negative least squares over the kernels whose power was read
(each kernel one row, in watts).  A product's weights come from memory, inputs and result cross once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tierform import library
from tierform.chip.gpu.measure import Device
from tierform.chip.gpu.samples import Sample
from tierform.errors import fail, nearest
from tierform.files import Document, read_json
from tierform.schema import MOST, FileModel, validate

SCHEMA = "tierform.device/1"
WIDTH_B = {"fp32": 4.0, "tf32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0}
_OUT_B = {"fp32": 4.0, "tf32": 4.0, "int8": 4.0}
_OF_MODELS = ("laptop", "pcie", "nvl", "mobile", "super", "ti")  # words that make another device of a name
_LARGEST = 1e18
_Format = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "int8"]
_Size = Annotated[int, Field(strict=True, ge=1, le=10**9)]
_Seconds = Annotated[float, Field(gt=0, le=1e6)]
_Figure = Annotated[float, Field(ge=0, le=_LARGEST)] | None


class Described(FileModel):
    """The device as its system reports it."""

    name: str = Field(description="Name that the driver reports", min_length=1)
    kind: Literal["cuda", "cpu"] = Field(description="A GPU, or a processor in a dry run")
    memory_B: _Figure = Field(description="Bytes of its memory")
    multiprocessors: Annotated[int, Field(strict=True, ge=1, le=MOST)] = Field(
        description="Multiprocessors, or threads"
    )
    clock_Hz: _Figure = Field(
        description="Its highest clock; that of the products under load is taken where it is null"
    )
    l2_B: _Figure = Field(description="Bytes of its last-level cache")
    board_power_W: _Figure = Field(description="Power limit that holds")


class PowerRow(FileModel):
    """Power of an idle board, or of one with a kernel that does nearly nothing."""

    what: Literal["idle", "floor"] = Field(description="No kernel, or tiny ones")
    power_W: _Figure = Field(description="Mean power")
    clock_Hz: _Figure = Field(None, description="Clock meanwhile")
    seconds: _Figure = Field(None, description="Time of one tiny kernel in a graph")


class Held(FileModel):
    """A kernel that was run for seconds."""

    seconds: _Seconds = Field(description="Time of one call")
    energy_J: _Figure = Field(description="Energy of one call, idle power included")
    power_W: _Figure = Field(description="Mean power")
    clock_Hz: _Figure = Field(description="Mean clock")


class CopyRow(Held):
    """A copy in memory."""

    bytes: Annotated[int, Field(strict=True, ge=1, le=10**15)] = Field(description="Bytes read and written")


class ProductRow(FileModel):
    """Time of a product."""

    format: _Format = Field(description="Number format of both operands")
    m: _Size = Field(description="Rows")
    n: _Size = Field(description="Columns of the weight's transpose")
    k: _Size = Field(description="Inner size")
    seconds: _Seconds = Field(description="Time in a graph, weights in turn")


class EnergyRow(Held):
    """Energy of a product."""

    format: _Format = Field(description="Number format of both operands")
    m: _Size = Field(description="Rows")
    n: _Size = Field(description="Columns of the weight's transpose")
    k: _Size = Field(description="Inner size")


class AttentionRow(FileModel):
    """Time of an attention kernel."""

    passes: Literal["forward", "backward"] = Field(alias="pass", description="Forward, or backward alone")
    batch: _Size = Field(description="Sequences")
    queries: _Size = Field(description="New tokens of each")
    history: Annotated[int, Field(strict=True, ge=0, le=10**9)] = Field(description="Tokens before them")
    heads: _Size = Field(description="Heads of queries")
    kv_heads: _Size = Field(description="Heads of keys")
    head_dim: _Size = Field(description="Size of a head")
    format: _Format = Field(description="Number format")
    seconds: _Seconds = Field(description="Time")


class CappedRow(FileModel):
    """A moment of a long product of size x size x size."""

    at_s: Annotated[float, Field(ge=0, le=1e6)] = Field(description="Time since it began")
    size: _Size = Field(description="All three sizes")
    rate_per_s: Annotated[float, Field(gt=0, le=_LARGEST)] = Field(description="Operations a second")
    power_W: _Figure = Field(description="Power then")
    clock_Hz: _Figure = Field(description="Clock then")


class RunRow(Held):
    """A step of the small Llama."""

    what: Literal["decode", "lora", "full"] = Field(description="A decode step, a LoRA or a full training step")
    batch: _Size = Field(description="Sequences")
    sequence: _Size = Field(description="Tokens of a sequence, or of its cache")
    captured: bool = Field(description="Whether it is one CUDA graph")
    rank: Annotated[int, Field(strict=True, ge=0, le=4096)] = Field(0, description="Rank of the adapters")
    host_s: _Figure = Field(description="Time in which the host has issued the step")
    memory_B: _Figure = Field(description="Most memory that torch held")


class DeviceFile(FileModel):
    """What ``benchmarks/device.py`` writes."""

    device: Described = Field(description="The device")
    chip: str = Field("", description="Chip of the library, or a chip file beside this one; found by name when empty")
    dry: bool = Field(description="Whether it ran on a processor at tiny sizes: figures of nothing")
    torch: str = Field(description="Version of torch")
    weights_in_turn: Annotated[int, Field(strict=True, ge=1, le=MOST)] = Field(
        description="Weights that products turn through"
    )
    model: dict[str, object] = Field(description="The small Llama, as a config.json")
    power: list[PowerRow] = Field(description="Idle power and floor")
    copies: list[CopyRow] = Field(description="Copies")
    products: list[ProductRow] = Field(description="Times of products")
    energies: list[EnergyRow] = Field(description="Energies of products")
    attention: list[AttentionRow] = Field(description="Times of attention")
    capped: list[CappedRow] = Field(description="A long product under the board's limit")
    runs: list[RunRow] = Field(description="Steps of the small Llama")
    skipped: list[str] = Field([], description="What was not measured, and why")
    seconds: Annotated[float, Field(ge=0)] = Field(description="How long the run took")


def read_device(path: Path) -> DeviceFile:
    """The figures of a file; TierformError with all that is wrong in it."""
    document = read_json(path)
    content = document.content
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        fix = f"`python benchmarks/device.py --out FILE` writes files of {SCHEMA}."
        fail("these are not figures of a device", file=str(path), key="schema", value=found, fix=fix)
    rest = {key: value for key, value in content.items() if key != "schema"}
    return validate(DeviceFile, Document(rest, document.file, document.lines))


def chip_name(figures: DeviceFile, path: Path) -> str:
    """The chip that the figures are of: as the file says, or the one whose name's words are in the device's name."""
    if figures.chip:
        beside = path.parent / figures.chip
        return str(beside) if figures.chip.endswith((".yaml", ".yml")) else figures.chip
    words = set(re.findall(r"[a-z0-9]+", figures.device.name.lower()))
    names = library.names("chips")
    fits = [name for name in names if set(name.split("-")) <= words]
    fits = [name for name in fits if not words.intersection(_OF_MODELS) - set(name.split("-"))]
    if not fits:
        fail(
            "no chip of the library is this device",
            file=str(path),
            key="chip",
            value=figures.device.name,
            choices=[nearest(figures.device.name.lower(), names) or "h100"],
            fix="Write a chip's name as `chip`, or a chip file beside this one (of `tierform calibrate --from`).",
        )
    return max(fits, key=lambda name: len(name.split("-")))


@dataclass(frozen=True, slots=True)
class Energies:
    """Measured powers and what follows: `operation_J` by format; None where the machine did not tell."""

    idle_W: float | None = None
    floor_W: float | None = None
    byte_J: float | None = None
    operation_J: tuple[tuple[str, float], ...] = ()
    limit_W: float | None = None
    rates: tuple[tuple[str, float], ...] = ()
    error: float = 0.0


def energies_of(figures: DeviceFile) -> Energies:
    """Least squares over the kernels whose power was read; see the module's text."""
    rates: dict[str, float] = {}
    timed: list[ProductRow | EnergyRow] = [*figures.products, *figures.energies]
    for item in timed:
        rates[item.format] = max(rates.get(item.format, 0.0), 2.0 * item.m * item.n * item.k / item.seconds)
    limit, peaks = figures.device.board_power_W, tuple(rates.items())
    watts = {row.what: row.power_W for row in figures.power}
    idle = watts.get("idle")
    rows: list[tuple[float, float, str, float]] = []  # watts above idling, bytes a second, format, operations a second
    if idle is not None:
        if (floor := watts.get("floor")) is not None:
            rows.append((floor - idle, 0.0, "", 0.0))
        rows += [(c.power_W - idle, c.bytes / c.seconds, "", 0.0) for c in figures.copies if c.power_W is not None]
        for e in figures.energies:
            if e.power_W is not None:
                rows.append((e.power_W - idle, moved_B(e) / e.seconds, e.format, 2.0 * e.m * e.n * e.k / e.seconds))
    forms = list(dict.fromkeys(form for _, _, form, _ in rows if form))
    if idle is None or len(rows) < len(forms) + 2 or not forms:
        return Energies(idle_W=idle, limit_W=limit, rates=peaks)
    return _solved(rows, forms, idle, limit, peaks)


def _solved(
    rows: Sequence[tuple[float, float, str, float]],
    forms: Sequence[str],
    idle: float,
    limit: float | None,
    peaks: tuple[tuple[str, float], ...],
) -> Energies:
    from scipy.optimize import nnls

    watts = np.array([row[0] for row in rows])
    table = np.zeros((len(rows), len(forms) + 2))
    table[:, 0] = 1.0
    table[:, 1] = [row[1] for row in rows]
    for place, (_, _, form, operations) in enumerate(rows):
        if form:
            table[place, 2 + forms.index(form)] = operations
    scale = table.max(axis=0)
    scale[scale == 0] = 1.0
    found = nnls(table / scale, watts)[0] / scale
    error = np.abs(table @ found - watts) / (watts + idle)
    return Energies(
        idle_W=idle,
        floor_W=float(found[0]),
        byte_J=float(found[1]),
        operation_J=tuple((form, float(found[2 + place])) for place, form in enumerate(forms)),
        limit_W=limit,
        rates=peaks,
        error=float(np.median(error)),
    )


def moved_B(row: EnergyRow | ProductRow) -> float:
    """Bytes of a product: inputs, weight and result once."""
    width = WIDTH_B[row.format]
    return width * (row.m * row.k + row.n * row.k) + _OUT_B.get(row.format, 2.0) * row.m * row.n


def device_of(figures: DeviceFile, path: Path) -> tuple[Device, list[Sample]]:
    """The device as `calibrate` knows it, and its products in the format with most rows."""
    forms = [row.format for row in figures.products]
    if not forms or not figures.copies:
        missing = "products" if not forms else "copies"
        fail(
            "nothing to calibrate with",
            file=str(path),
            key=missing,
            value=0,
            fix="Run benchmarks/device.py to its end.",
        )
    form = max(dict.fromkeys(forms), key=forms.count)
    form = form if form in ("fp32", "bf16", "fp16") else "bf16"
    name, described = figures.device.name, figures.device
    rows = [
        Sample(name, "product", row.format, (row.m, row.n, row.k), row.seconds)
        for row in figures.products
        if row.format == form
    ]
    rates = dict(energies_of(figures).rates)
    tiny = [row.seconds for row in figures.power if row.what == "floor" and row.seconds]
    clocks = [row.clock_Hz for row in figures.energies if row.clock_Hz]
    device = Device(
        name=name,
        kind=described.kind,
        format=form,
        peak_per_s=rates[form],
        bandwidth_B_per_s=max(row.bytes / row.seconds for row in figures.copies),
        launch_s=tiny[0] if tiny else 4e-6,
        threads=described.multiprocessors,
        clock_Hz=described.clock_Hz or max(clocks, default=1.5e9),
        cache_B=described.l2_B or 32 * 2**20,
        memory_B=described.memory_B or 16e9,
    )
    return device, rows
