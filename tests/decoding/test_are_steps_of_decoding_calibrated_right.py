"""Are the factors of a decoding step found again, and does their runtime file foretell what they say?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import tierform  # noqa: E402
from tierform.chip.gpu.calibration import START, TILES, calibrate, write_files  # noqa: E402
from tierform.chip.gpu.gemm import FITTED, ProductModel  # noqa: E402
from tierform.chip.gpu.measure import Device, chosen_shapes  # noqa: E402
from tierform.chip.gpu.parameters import Sheet  # noqa: E402
from tierform.chip.gpu.samples import Sample  # noqa: E402
from tierform.decoding.reference_step import (  # noqa: E402
    CONTEXT,
    MOST,
    InStep,
    StepTimes,
    _ReadyProducts,
    in_step,
    measure_rounds,
    median_of,
    reference_decoder,
    reference_steps,
    runtime_text,
    simulated_steps,
)

LIGHT = tuple((name, 1e-9) for name in ("softmax", "normalization", "activation", "elementwise", "rotary", "dropout"))
DEVICE = Device("Made-up", "cpu", "fp32", 1e11, 2e10, 2e-6, 1, 2.5e9, 32e6, 8e9, issue_s=5e-6, light_s=LIGHT)


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated chip of made-up products."""
    sheet = Sheet(DEVICE.threads, DEVICE.clock_Hz, DEVICE.peak_per_s, DEVICE.bandwidth_B_per_s, DEVICE.cache_B)
    model = ProductModel.with_values(sheet, tuple(START[name] for name in FITTED), TILES, None)
    shapes = chosen_shapes(DEVICE, 80)
    times = model.seconds(*np.array(shapes, dtype=float).T, copies=1.0, input_B=4.0)
    rows = [Sample(DEVICE.name, "product", "fp32", shape, time) for shape, time in zip(shapes, times, strict=True)]
    return write_files(calibrate(DEVICE, rows), "made-up", tmp_path_factory.mktemp("chip"))[-1]


def test_are_the_factors_found_that_made_the_times(chip: Path) -> None:
    _, config = reference_decoder("fp32", least_B=1)
    alone = reference_steps(chip, config)
    true = InStep(1.3, 2.0, 0.0)
    without = tuple(1.3 * one.rest_s + 2.0 * one.light_s for one in alone)
    times = StepTimes(tuple(one.seconds(true) for one in alone), without)
    found = in_step(alone, times)
    assert (found.product_time, found.light_time) == pytest.approx((1.3, 2.0))
    assert found.error == pytest.approx(0.0, abs=1e-9)
    slower = StepTimes((2 * times.whole_s[0], *times.whole_s[1:]), without)  # one step of eight is disturbed
    assert in_step(alone, slower).product_time == pytest.approx(1.3)
    assert in_step(alone, slower).error == pytest.approx(0.5)


def test_does_the_runtime_file_foretell_what_the_factors_say(chip: Path, tmp_path: Path) -> None:
    file = tmp_path / "made-up-decoding.yaml"
    file.write_text(runtime_text(InStep(1.3, 2.0, 0.01), "made-up", DEVICE.name, "fp32"))
    model = tierform.load_model("llama-3.2-1b")
    alone = simulated_steps(chip, model, 48)
    for tokens in (1, 5):
        task = tierform.Step((tierform.SequenceGroup(1, tokens, 48),), logits="all")
        plain = tierform.simulate(model, task, chip, thermal="none").latency_s
        parts = alone[tokens - 1]
        assert parts.products_s + parts.light_s + parts.rest_s == pytest.approx(plain)
        assert min(parts.products_s, parts.light_s, parts.rest_s) > 0
        slower = tierform.simulate(model, task, chip, runtime=str(file), thermal="none").latency_s
        assert slower == pytest.approx(parts.seconds(InStep(1.3, 2.0, 0.01)), rel=1e-3)


def test_is_a_step_measured_with_and_without_its_products_and_left_as_it_was() -> None:
    model, config = reference_decoder("fp32", least_B=2**24)
    assert config["num_hidden_layers"] == len(model.model.layers) == 1
    assert sum(one.numel() for one in model.model.layers.parameters()) * 4 >= 2**24
    ids = torch.arange(1, 6)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        with _ReadyProducts(model):
            assert torch.equal(model(input_ids=ids).logits, torch.zeros_like(before))
        assert torch.equal(model(input_ids=ids).logits, before)
    rounds, beside = measure_rounds(model, 2, lambda tokens: float(tokens))
    assert beside == [tuple(map(float, range(1, MOST + 1)))] * 2
    middle = median_of([*rounds, replace(rounds[0], whole_s=(1e9,) * MOST)])
    assert len(middle.whole_s) == len(middle.without_s) == MOST and max(middle.whole_s) < 1e9
    assert all(0 < without < whole for whole, without in zip(middle.whole_s, middle.without_s, strict=True))
    assert CONTEXT > MOST
