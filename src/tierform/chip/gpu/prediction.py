"""What the kernel models, and plain rooflines beside them, say of measured kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tierform.chip.gpu.collectives import KINDS, CollectiveModel
from tierform.chip.gpu.device import Gpu
from tierform.chip.gpu.samples import Sample
from tierform.chip.parameters import value_by_precision
from tierform.errors import fail

Array = NDArray[np.float64]
# A benchmark turns through so many copies of a weight, so that small ones stay in the L2 and large ones do not.
BENCHMARK_COPIES = 6.0
_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp32": 4.0}


def predicted(gpu: Gpu, samples: Sequence[Sample], copies: float = BENCHMARK_COPIES) -> Array:
    """Seconds of each sample (all of one kind and format)."""
    kind, form = samples[0].kind, samples[0].format
    if kind == "collective":
        return _collectives(gpu, samples)
    shape = np.array([sample.shape for sample in samples], dtype=np.float64).T
    if kind == "product":
        return _products(gpu, shape, form, copies)
    batch, queries, history, heads, kv_heads, size = shape
    if gpu.prefill is None or gpu.decode is None:
        fail(f"the GPU {gpu.name!r} has no parameters of fused attention", fix="Add a section 'attention'.")
    if kind == "decode":
        return gpu.decode.seconds(batch, history + 1, heads, kv_heads, size)
    return gpu.prefill.seconds(batch, queries, queries, heads, kv_heads, size, writes_cache=True)


def _products(gpu: Gpu, shape: Array, form: str, copies: float) -> Array:
    if gpu.products is None:
        fail(f"the GPU {gpu.name!r} has no parameters of products", fix="Add a section 'products'.")
    rate = value_by_precision(gpu.parameters.peak_rate, form)
    if rate is None:
        fail(f"the GPU {gpu.name!r} has no peak rate for this format", value=form, choices=gpu.parameters.peak_rate)
    m, n, k = shape
    speedup, width = rate / gpu.sheet.peak_per_s, _BYTES.get(form, 2.0)
    result = gpu.products.seconds(m, n, k, copies=copies, input_B=width, speedup=speedup)
    if width < 2.0:  # activations come in 16 bits: largest value, then quantization
        launch_s = gpu.parameters.launch.value
        bandwidth = gpu.sheet.memory_B_per_s * gpu.parameters.memory_efficiency.value
        result = result + 2 * launch_s + m * k * (2 * 2.0 + width) / bandwidth
    return result


def _collectives(gpu: Gpu, samples: Sequence[Sample]) -> Array:
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
