"""Do chips by data sheet have the rates, bandwidths and capacities that are published, and does a model run on them?"""

from __future__ import annotations

import pytest

from tierform import FineTuning, Inference, LoRA, load_chip, simulate
from tierform.chip.gpu import Gpu
from tierform.chip.systolic.component import SystolicArrays
from tierform.chip.vector import VectorUnits
from tierform.simulation.traffic import MemoryBehind

# bf16 TFLOP/s, memory in GB/s and GB, links of a chip in one direction in GB/s (None: no other chip); the sources of
# these figures are those of the library's files.
SYSTOLIC = {
    "tpu-v3": (123, 900, 32, 328),
    "tpu-v4": (275, 1200, 32, 300),
    "tpu-v5e": (197, 819, 16, 200),
    "tpu-v5p": (459, 2765, 95, 600),
    "tpu-v6e": (918, 1640, 32, 448),
    "trainium2": (667, 2900, 96, 640),
    "gaudi3": (1835, 3670, 128, 525),
}
BOARDS = {
    "mi210": (181, 1638.4, 64),
    "mi250": (181, 1638.4, 64),  # one of two dies
    "mi300x": (1307.4, 5300, 192),
    "apple-m2-max": (13.6, 409.6, 96),
    "apple-m4-max": (18.4, 546, 128),
    "ryzen-7840u": (1.69, 120, 32),
    "epyc-9654": (14.7, 460.8, 384),
}


@pytest.mark.parametrize("name", SYSTOLIC)
def test_has_a_systolic_chip_its_published_rates(name: str) -> None:
    tflops, bandwidth, capacity, links = SYSTOLIC[name]
    chip = load_chip(name)
    (array,) = (part for part in chip.components.values() if isinstance(part, SystolicArrays))
    p = array.parameters
    assert array.units * p.rows * p.columns * 2 * p.clock.value * 1e-12 == pytest.approx(tflops, rel=0.01)
    (tier,) = MemoryBehind(chip).tiers
    assert tier.peak_bandwidth_B_per_s * 1e-9 == pytest.approx(bandwidth, rel=0.01)  # type: ignore[attr-defined]
    assert tier.capacity_B / 2**30 == pytest.approx(capacity, rel=0.02)
    assert chip.cluster is not None and chip.cluster.bandwidth.value == pytest.approx(links * 1e9)
    assert any("no measured kernel" in note for note in chip.notes)


# Measured power of a chip in watts, least and most (Google Cloud documentation).
POWER = {"tpu-v3": (123, 262), "tpu-v4": (90, 192)}


@pytest.mark.parametrize("name", POWER)
def test_draws_a_chip_what_was_measured(name: str) -> None:
    """It waits at the least power, and under load stays below the most; the mean of real loads is 220 and 170 W."""
    least, most = POWER[name]
    chip = load_chip(name)
    waiting = MemoryBehind(chip).background_J(1.0, 0.0) + sum(
        float(part.leakage_W(300.0)) for part in chip.components.values()
    )
    assert waiting == pytest.approx(least, rel=0.005)
    busy = simulate("bert-large", Inference(batch=64, sequence=512), chip, thermal="none")
    assert 1.2 * least < busy.average_power_W < most


@pytest.mark.parametrize("name", BOARDS)
def test_has_a_board_its_published_rates(name: str) -> None:
    tflops, bandwidth, capacity = BOARDS[name]
    (gpu,) = load_chip(name).components.values()
    assert isinstance(gpu, Gpu)
    assert gpu.parameters.peak_rate["bf16"].value * 1e-12 == pytest.approx(tflops, rel=0.01)
    assert gpu.parameters.memory_bandwidth.value * 1e-9 == pytest.approx(bandwidth, rel=0.01)
    assert gpu.parameters.memory_capacity.value * 1e-9 == pytest.approx(capacity, rel=0.02)


def test_is_a_processor_what_its_cores_give() -> None:
    """Zen 4: two 256-bit multiply-adds a cycle are 32 operations in fp32; 96 cores at 2.4 GHz: 7.37 TFLOP/s."""
    (gpu,) = load_chip("epyc-9654").components.values()
    assert isinstance(gpu, Gpu) and not gpu.parameters.fusion and gpu.products is None
    assert pytest.approx(gpu.parameters.peak_rate["fp32"].value, rel=1e-3) == 96 * 2.4e9 * 32


def test_have_64_tensor_cores_their_published_rate() -> None:
    (unit,) = (part for part in load_chip("gaudi3").components.values() if isinstance(part, VectorUnits))
    lanes, clock = unit.parameters.lanes, unit.parameters.clock.value
    assert unit.units * lanes * 2 * clock == pytest.approx(28.7e12, rel=0.01)


@pytest.mark.parametrize("name", [*SYSTOLIC, *BOARDS])
def test_does_a_model_run_no_faster_than_the_sheet_allows(name: str) -> None:
    """Decoding reads every weight once a token; a LoRA step has its products at the peak at best."""
    tflops, bandwidth = (SYSTOLIC.get(name) or BOARDS[name])[:2]
    chip = load_chip(name)
    decode = simulate("llama-3.2-1b", Inference(batch=1, sequence=128, decode=8, prefill=False), chip, thermal="none")
    width = 4 if name in ("epyc-9654", "ryzen-7840u") else 2
    assert 1.0 < decode.latency_s / 8 / (1.236e9 * width / (bandwidth * 1e9)) < 4.5
    step = simulate("llama-3.2-1b", FineTuning(LoRA(8), batch=1, sequence=512), chip, thermal="none")
    matmuls = sum(row.operations for row in step.operators if row.kind == "matmul")
    peak = tflops * (1e12 if width == 2 else 0.5e12)  # fp32 on processors
    assert step.latency_s > matmuls / peak
    assert step.energy_J > 0
