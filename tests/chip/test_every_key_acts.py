"""Does every number in a component file act: doubled or halved, does any figure move?  And is every key described?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from attention_operators import backward_core, record
from pydantic import BaseModel

from tierform import library
from tierform.chip.component import (
    BufferHolder,
    Component,
    KernelIssuer,
    MemoryHolder,
    OperatorFuser,
    PoweredBoard,
    Share,
    Wearing,
    WeightHolder,
)
from tierform.chip.crossbar import CrossbarTiles
from tierform.chip.crossbar.tile import area_by_part, peak, power_by_part
from tierform.chip.description import load_component
from tierform.chip.gpu import Gpu
from tierform.chip.gpu.collectives import KINDS, CollectiveModel
from tierform.chip.process import LogicFile
from tierform.chip.sample_operators import attention_core, elementwise, product, samples
from tierform.errors import TierformError
from tierform.files import read_yaml
from tierform.provenance import Constant
from tierform.workload.operator import Kind, Operand, Operator, Origin, Phase, Role


def given(value: str) -> dict[str, str]:
    return {"value": value, "kind": "assumed", "note": "test"}


MACRO = {"charge": "none", "per": "macro", "count": 2, "area": given("10 um^2")}
RICH: dict[str, Any] = {
    "active_rows": 64,
    "crossbars_per_macro": 12,
    "guard_columns": 1,
    "columns_per_adc": 128,
    "adc_rate": given("1.28e9 1/s"),
    "max_weight_bits": 8,
    "max_input_bits": 8,
    "adc_saved_bits": 1,
    "idle_power": given("2 mW"),
    "verify_energy": given("1 pJ"),
    "parallel_writes": given("4"),
    "retention": given("1 day"),
    "dynamic_operands": True,
    "activation_rate": given("1e9 1/s"),
}
PARTS = read_yaml(library.find("components", "isaac-tile-32nm")).content["parts"]
RICH["parts"] = {**PARTS, "macro": MACRO}
ARRAY = {"accumulator_bits": 32, "weight_sparsity": {"kept": 2, "block": 4}, "idle_power": given("1 mW")}
UNITS = {"a100-gpu": 1, "h200-gpu": 1}
BASES: dict[str, dict[str, Any]] = {
    "isaac-tile-32nm": RICH,
    "neurram-130nm": {},
    "systolic-128x32-10nm": ARRAY,
    "vector-128-10nm": {},
    "haima-dram": {},
    "transpim-layer": {},
    "a100-gpu": {},
    "h200-gpu": {
        "issue": given("5 us"),
        "view": given("2 us"),
        "in_step_time": given("1.2"),
        "light_time": {"softmax": given("1 ns"), "activation": given("1 ns")},
        "few_rows": {
            "most": 4,
            **{key: given("2 ps") for key in ("start", "first", "stream", "row")},
            "in_step": [given("1.1") for _ in range(4)],
        },
    },
}
# Keys that move no figure of a component, and why.
NAMED = {
    "dac_bits (neurram-130nm)": "an integrating neuron takes inputs bit by bit; the values view reads it",
    "parts.input-pulse.count (neurram-130nm)": "without area and rate a count is told to people only",
    "parts.edram.capacity": "acts where `set` changes it, by a law: test_signs_of_every_key",
    "parts.output-register.capacity": "as above",
    "sram_banks": "as above",
    "sram_width": "as above",
    "fitted_multiprocessors": "set by the law of GPUs: test_laws",
    "fitted_clock_Hz": "as above",
    "held_out_error": "an error of the fit, told to people",
    "products.small_grid_reduction": "zero in these files: no kernel of theirs adds a reduction",
    "products.smallest_grid": "zero in these files: no kernel of theirs adds a reduction",
    "products.miss_prologue": "zero in these files",
    "products.miss_step": "zero in these files",
    "wide_products.miss_step": "zero in these files",
    "wide_products.boost_time": "these boards keep their rate in fp32, however long a product is",
}


def operators() -> list[Operator]:
    found = [o for o in samples() if o.kind is not Kind.COLLECTIVE]
    found += [product(m, n, k, precision="bf16") for m, n, k in ((1, 8192, 8192), (4096, 8192, 8192), (64, 512, 16384))]
    found += [product(m, n, k, precision="bf16") for m, n, k in ((17, 64, 256), (300, 300, 300), (20, 8, 4096))]
    found += [product(8192, 8192, 8192, precision="bf16"), product(3, 64, 64, precision="bf16")]
    found += [product(4096, 4096, 4096, precision="bf16", weight_precision="bf16@2:4")]
    found += [product(4096, 16384, 256, precision="bf16"), product(8192, 128, 8192, precision="bf16")]
    found += [product(300, 200, 200, held=False, precision=f, batch=40, count=2) for f in ("int8", "fp32", "fp16")]
    found += [product(40, 300, 300, weight_precision="int16"), product(40, 300, 300, precision="int16")]
    found += [product(40, 300, 300, precision=form) for form in ("fp16", "fp32", "fp8")]
    wide = ((1, 8192, 8192), (4096, 4096, 4096), (64, 512, 16384), (17, 64, 256), (300, 300, 300), (8192, 8192, 8192))
    found += [product(m, n, k, precision="fp32") for m, n, k in (*wide, (4096, 16384, 256), (8192, 128, 8192))]
    found += [product(m, n, k, precision="fp8") for m, n, k in ((1, 40, 8192), (8192, 8192, 8192), (3, 512, 256))]
    found += [product(m, n, k, precision="fp8") for m in (9, 20, 40, 70, 600) for n, k in ((1300, 512), (700, 64))]
    found += [narrowing(2**12, results) for results in (1, 2**12)]
    found += [elementwise(Kind.ELEMENTWISE, 2**24, operations=1e-3)]
    found += [elementwise(Kind.ELEMENTWISE, 2**16, operations=1e5), product(64, 64, 64, precision="tf32")]
    return found + [elementwise(kind, 2**22, precision="bf16") for kind in (Kind.SOFTMAX, Kind.ACTIVATION)]


def narrowing(elements: int, results: int) -> Operator:
    made = Operand("q", (results,), "fp8", Role.ACTIVATION)
    return replace(elementwise(Kind.ELEMENTWISE, elements), outputs=(made,), origin=Origin.QUANTIZE)


def figures(part: Component) -> Iterator[object]:
    yield part.area_m2
    yield part.leakage_W(300.0), part.leakage_W(360.0)
    if isinstance(part, KernelIssuer) and part.issues_kernels:
        yield part.cost(Operator("view", Kind.ELEMENTWISE, "other", Phase.FORWARD, (), ()))
    for operator in operators():
        yield part.supports(operator)
        if part.supports(operator):
            yield part.cost(operator)
            yield part.cost(operator, Share(1, 2))
            if isinstance(part, BufferHolder):
                yield part.refetch(operator)
            if isinstance(part, WeightHolder) and operator.weight:
                yield part.crossbars_for(operator)
    if isinstance(part, WeightHolder):
        yield part.crossbars, part.programming_cost(5), part.programming_cost(5000)
    if isinstance(part, Wearing):
        yield part.endurance_writes, part.refreshes(1e7), part.cells_per_crossbar
    if isinstance(part, MemoryHolder):
        yield part.memory_capacity_B
    if isinstance(part, OperatorFuser):
        cores = ((1, 4, 2), (1, 16, 1), (512, 4, 2), (8192, 16, 1), (64, 4, 1), (1090, 4, 2))
        for queries, kv_heads, sequences in cores:
            a = record(queries=queries, keys=max(queries, 1024), kv_heads=kv_heads, sequences=sequences)
            yield part.fuse(attention_core(a, "bf16", cached=True))
            yield part.fuse(backward_core(a))
    if isinstance(part, CrossbarTiles):
        yield area_by_part(part.parameters, beside=True)
        yield part.remarks, power_by_part(part.parameters), peak(part.parameters, 4, 4, bytes_moved=True)
    if isinstance(part, PoweredBoard):
        yield part.active_W, part.headroom_W
    if isinstance(part, Gpu) and part.parameters.links is not None:
        links = CollectiveModel.of(part.parameters.links)
        yield [float(links.seconds(kind, 8, size)) for kind in KINDS for size in (1e3, 1e6, 1e9)]
        yield [part.collective_s("all_reduce", 8, size, direct=True) for size in (1e3, 1e6, 1e9)]


def leaves(value: object, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every number of a parameter model with its place."""
    if isinstance(value, bool):
        return
    if isinstance(value, (Constant, int, float)):
        yield at, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            if name in value.model_fields_set:
                yield from leaves(getattr(value, name), (*at, name))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*at, name))
    elif isinstance(value, tuple) or (isinstance(value, list) and all(isinstance(item, BaseModel) for item in value)):
        for place, item in enumerate(value):
            yield from leaves(item, (*at, str(place)))


def changed(value: Any, at: tuple[str, ...], new: object) -> Any:
    if not at:
        return new
    if isinstance(value, dict):
        return {**value, at[0]: changed(value[at[0]], at[1:], new)}
    if isinstance(value, (list, tuple)):
        place = int(at[0])
        return type(value)([*value[:place], changed(value[place], at[1:], new), *value[place + 1 :]])
    return value.model_copy(update={at[0]: changed(getattr(value, at[0]), at[1:], new)})


def tried(value: Any) -> list[Any]:
    """Twice and half of a number (whole numbers stay whole), and one where it is zero.

    Where the larger of several counts, twice may change nothing: then sixteen times as much, or as little.
    """
    if isinstance(value, Constant):
        return [Constant(x, value.unit, value.kind, value.source, value.note) for x in tried(value.value)]
    if value == 0:
        return [type(value)(1)]
    return [value * 2, value // 2 if isinstance(value, int) else value / 2, value * 16, value / 16]


def parameters(base: str) -> Any:
    part: Any = load_component("part", UNITS.get(base, 16), base, BASES[base])
    return part.parameters


KEYS = [(base, at) for base in BASES for at, _ in leaves(parameters(base))]


@pytest.fixture(scope="module")
def before() -> dict[str, list[object]]:
    return {
        base: list(figures(load_component("part", UNITS.get(base, 16), base, changes)))
        for base, changes in BASES.items()
    }


@pytest.mark.parametrize(("base", "at"), KEYS, ids=lambda item: ".".join(item) if isinstance(item, tuple) else item)
def test_a_doubled_or_halved_number_moves_a_figure(
    base: str, at: tuple[str, ...], before: dict[str, list[object]]
) -> None:
    part: Any = load_component("part", UNITS.get(base, 16), base, BASES[base])
    value = dict(leaves(part.parameters))[at]
    name = ".".join(at)
    if any(name.startswith(known) or f"{name} ({base})" == known for known in NAMED):
        return
    others = []
    for new in tried(value):
        with contextlib.suppress(TierformError):
            others.append(type(part).build("part", part.units, changed(part.parameters, at, new)))
    for other in others:
        after = list(figures(other))
        if after != before[base]:
            return
    if others:  # where every other number is refused, the key has one value
        pytest.fail(f"{base}: {'.'.join(at)} = {value} acts on nothing")


def given_keys(value: object) -> Iterator[tuple[type, str]]:
    if isinstance(value, BaseModel):
        for name in value.model_fields_set:
            yield type(value), name
            yield from given_keys(getattr(value, name))
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from given_keys(item)


def is_number(annotation: Any) -> bool:
    if annotation in (Constant, int, float):
        return True
    return any(is_number(part) for part in getattr(annotation, "__args__", ()))


def test_no_number_is_left_out_of_this_file() -> None:
    tried_keys = {key for base in BASES for key in given_keys(parameters(base))}
    for schema in SCHEMAS:
        for model in models(schema):
            for name, field in model.model_fields.items():
                if is_number(field.annotation) and name not in NAMED and (model, name) not in tried_keys:
                    raise AssertionError(f"{model.__name__}.{name} is tried nowhere")


SCHEMAS: list[type[BaseModel]] = [type(parameters(base)) for base in BASES]


def models(schema: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield schema
    for field in schema.model_fields.values():
        stack: list[Any] = [field.annotation]
        while stack:
            kind = stack.pop()
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from models(kind)
            stack.extend(getattr(kind, "__args__", ()))


@pytest.mark.parametrize("schema", [*dict.fromkeys(SCHEMAS), LogicFile], ids=lambda schema: schema.__name__)
def test_every_key_is_described(schema: type[BaseModel]) -> None:
    for model in models(schema):
        for name, field in model.model_fields.items():
            assert field.description and len(field.description) > 10, f"{model.__name__}.{name}"
