"""Are the factors of a decoding step found again, and does their runtime file foretell what they say?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import tierform  # noqa: E402
from tierform.chip.gpu.calibration import START, TILES, Calibration, calibrate, write_files  # noqa: E402
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
def calibrated() -> Calibration:
    """A calibration on made-up products."""
    sheet = Sheet(DEVICE.threads, DEVICE.clock_Hz, DEVICE.peak_per_s, DEVICE.bandwidth_B_per_s, DEVICE.cache_B)
    model = ProductModel.with_values(sheet, tuple(START[name] for name in FITTED), TILES, None)
    shapes = chosen_shapes(DEVICE, 80)
    times = model.seconds(*np.array(shapes, dtype=float).T, copies=1.0, input_B=4.0)
    rows = [Sample(DEVICE.name, "product", "fp32", shape, time) for shape, time in zip(shapes, times, strict=True)]
    return calibrate(DEVICE, rows)


def test_are_the_factors_found_that_made_the_times(calibrated: Calibration, tmp_path: Path) -> None:
    _, config = reference_decoder("fp32", least_B=1)
    alone = reference_steps(write_files(calibrated, "made-up", tmp_path)[-1], config)
    true = tuple(1.0 + 0.1 * tokens for tokens in range(MOST))
    without = tuple(one.rest_s + 2.0 * one.light_s for one in alone)
    times = StepTimes(tuple(one.seconds(factor, 2.0) for one, factor in zip(alone, true, strict=True)), without)
    found = in_step(alone, times)
    assert found.products == pytest.approx(true) and found.light_time == pytest.approx(2.0)
    assert found.error == pytest.approx(0.0, abs=1e-9)
    disturbed = StepTimes(times.whole_s, (2 * without[0], *without[1:]))  # one of eight times without products
    assert in_step(alone, disturbed).light_time == pytest.approx(2.0)


def test_do_the_files_foretell_what_the_factors_say(calibrated: Calibration, tmp_path: Path) -> None:
    factors = tuple(1.0 + 0.1 * tokens for tokens in range(MOST))
    alone = simulated_steps(write_files(calibrated, "alone", tmp_path)[-1], tierform.load_model("llama-3.2-1b"), 48)
    chip = write_files(calibrated, "made-up", tmp_path, few_in_step=factors)[-1]
    file = tmp_path / "made-up-decoding.yaml"
    file.write_text(runtime_text(InStep(factors, 2.0, 0.01), "made-up", DEVICE.name))
    for tokens in (1, 5):
        task = tierform.Step((tierform.SequenceGroup(1, tokens, 48),), logits="all")
        parts = alone[tokens - 1]
        assert min(parts.products_s, parts.light_s, parts.rest_s) > 0
        plain = tierform.simulate("llama-3.2-1b", task, tmp_path / "alone.yaml", thermal="none").latency_s
        assert plain == pytest.approx(parts.seconds(1.0, 1.0))
        slower = tierform.simulate("llama-3.2-1b", task, chip, runtime=str(file), thermal="none").latency_s
        assert slower == pytest.approx(parts.seconds(factors[tokens - 1], 2.0), rel=1e-3)  # of four digits in the file


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
