"""Measured GPU kernels as operators, charged as `simulate` charges them, and plain rooflines beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tierform.chip.component import Cost
from tierform.chip.description import Chip
from tierform.chip.gpu.collectives import KINDS, CollectiveModel
from tierform.chip.gpu.device import Gpu
from tierform.chip.gpu.samples import FINDS_SCALE, Sample
from tierform.chip.sample_operators import attention_core
from tierform.errors import fail
from tierform.simulation import charge
from tierform.workload.arithmetic import QUANTIZE
from tierform.workload.operator import Attention, Kind, Operand, Operator, Origin, Phase, Role

Array = NDArray[np.float64]
_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp32": 4.0}


def charged(chip: Chip, samples: Sequence[Sample]) -> list[tuple[Cost, ...]]:
    """What each sample's operators are charged (products and attention)."""
    return [_kernels(chip, sample) for sample in samples]


def seconds_of(costs: Sequence[Cost]) -> float:
    """Operators of one GPU run one after the other."""
    return math.fsum(cost.occupancy_s for cost in costs)


def _kernels(chip: Chip, sample: Sample) -> tuple[Cost, ...]:
    if sample.kind != "product":
        return charge(chip, attention_of(sample))
    product = product_of(sample)
    costs = charge(chip, (product,))
    if _BYTES.get(sample.format, 2.0) < 2.0:  # activations come in 16 bits
        m, _, k = sample.shape
        wide = _operand("x", (m, k), "bf16")
        results = [_operand("q", (m, k), sample.format)]
        if sample.operation == FINDS_SCALE:
            results.append(_operand("scale", (1,), "fp32"))
        for result in results:
            costs += charge(chip, (_narrowing(wide, result),))
    return costs


def product_of(sample: Sample) -> Operator:
    """A measured product as a model has it: activations by a static weight."""
    m, n, k = sample.shape
    weight = Operand("w", (n, k), sample.format, Role.WEIGHT, static=True)
    result = _operand("y", (m, n), sample.format if sample.format == "fp32" else "bf16")
    given = (_operand("x", (m, k), sample.format), weight)
    return Operator(
        name="product",
        kind=Kind.MATMUL,
        part="ffn",
        phase=Phase.FORWARD,
        inputs=given,
        outputs=(result,),
        m=m,
        n=n,
        k=k,
        weight="w",
    )


def attention_of(sample: Sample) -> tuple[Operator, ...]:
    """A measured attention kernel as a model has it: scores, softmax and weighted values over a cache."""
    batch, queries, history, heads, kv_heads, size = sample.shape
    decode = sample.kind == "decode"
    keys = history + 1 if decode else queries
    record = Attention(
        number=0,
        sequences=batch,
        queries=1 if decode else queries,
        keys=keys,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=size,
        value_dim=size,
        causal=not decode,
    )
    return attention_core(record, sample.format, cached=True)


def _operand(name: str, shape: tuple[int, ...], form: str) -> Operand:
    return Operand(name, shape, form, Role.ACTIVATION)


def _narrowing(given: Operand, result: Operand) -> Operator:
    return Operator(
        name="quantize",
        kind=Kind.ELEMENTWISE,
        part="ffn",
        phase=Phase.FORWARD,
        inputs=(given,),
        outputs=(result,),
        origin=Origin.QUANTIZE,
        operations_per_element=QUANTIZE,
    )


def collective_seconds(gpu: Gpu, samples: Sequence[Sample]) -> Array:
    """The fitted model of collectives in one node."""
    if gpu.parameters.links is None:
        fail(f"the GPU {gpu.name!r} has no parameters of its links", fix="Add a section 'links'.")
    model = CollectiveModel.of(gpu.parameters.links)
    result = np.empty(len(samples))
    for kind in KINDS:
        places = [place for place, sample in enumerate(samples) if sample.operation == kind]
        if places:
            gpus = [samples[place].shape[0] for place in places]
            result[places] = model.seconds(kind, gpus, [samples[place].size_B for place in places])
    return result


def roofline(gpu: Gpu, samples: Sequence[Sample], efficiency: float = 1.0, launch_s: float = 0.0) -> Array:
    """The longer of arithmetic at a share of the peak and traffic at a share of the bandwidth, plus a launch."""
    sheet = gpu.sheet
    shape = np.array([sample.shape for sample in samples], dtype=np.float64).T
    if samples[0].kind == "product":
        m, n, k = shape
        width = _BYTES.get(samples[0].format, 2.0)
        operations = 2.0 * m * n * k * (width / 2.0)
        moved = (m * k + n * k) * width + 2.0 * m * n
    else:
        batch, queries, history, heads, kv_heads, size = shape
        keys = queries + history
        seen = np.where(history > 0, queries * keys, queries * (queries + 1) / 2)
        operations = 4.0 * batch * heads * seen * size
        moved = 2.0 * batch * size * (2 * heads * queries + 2 * kv_heads * keys)
    seconds = np.maximum(operations / sheet.peak_per_s, moved / sheet.memory_B_per_s) / efficiency
    result: Array = seconds + launch_s
    return result
