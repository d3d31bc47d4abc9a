"""Does the chip of a machine that multiplies from planes foretell its fit, and does more work take longer?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

import tierform
from tierform.errors import TierformError
from tierform.store.plane_speed import (
    DEPTHS,
    GRID,
    PlaneChip,
    PlaneProduct,
    fit_planes,
    least_times,
    products_s,
    random_planes,
    write_chip,
)
from tierform.workload import load_model
from tierform.workload.precision import PrecisionPlan

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "vocab_size": 512,
}


def test_are_bytes_of_a_product_its_planes_and_scales() -> None:
    # 256 x 512 at 4 planes: 256 * 512 / 2 bytes, and 16 bits for each of 256 * 4 groups of 128.
    assert PlaneProduct(256, 512, 4).size_B == 256 * 512 / 2 + 256 * 4 * 2


def test_are_launch_and_bandwidth_found_again() -> None:
    products = [PlaneProduct(*shape, planes) for planes in DEPTHS for shape in GRID]
    truth = PlaneChip(20e-6, 5e9, 0.0, len(products), 0.0)
    seconds = np.array([truth.seconds(one) for one in products])
    found = fit_planes(products, seconds)
    assert found.launch_s == pytest.approx(20e-6) and found.bandwidth_B_per_s == pytest.approx(5e9)
    assert found.held_out_error < 1e-9
    off = seconds * np.where(np.arange(len(seconds)) % 3 == 2, 1.1, 1.0)  # only what is held out is slower
    assert fit_planes(products, off).held_out_error == pytest.approx(1 - 1 / 1.1)
    with pytest.raises(TierformError, match="no launch"):
        fit_planes(products, np.full(len(products), 1e-3))  # bytes that cost nothing


def test_does_simulate_foretell_the_fit(tmp_path: Path) -> None:
    chip = PlaneChip(20e-6, 5e9, 0.05, 40, 1.0)
    write_chip(chip, "planes", tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    task = tierform.Step((tierform.SequenceGroup(1, 1, 16),), precision=PrecisionPlan().with_weights("int4-g128"))
    result = tierform.simulate(load_model(folder), task, str(tmp_path / "planes.yaml"), thermal="none")
    rows = {row.name: row.busy_s / row.times for row in result.operators if row.kind == "matmul" and not row.kernel}
    # The inputs and outputs of a product, in 16 bits, come beside the weights.
    for name, outputs, inputs in (("ffn.up", 2048, 1024), ("ffn.down", 1024, 2048), ("attention.q", 1024, 1024)):
        wanted = chip.seconds(PlaneProduct(outputs, inputs, 4)) + 2 * (outputs + inputs) / 5e9
        assert rows[name] == pytest.approx(wanted, rel=1e-3), name


def test_does_a_random_matrix_have_the_sizes_that_are_timed() -> None:
    made = random_planes(PlaneProduct(300, 130, 5, 64), np.random.default_rng(0))
    assert (made.outputs, made.inputs, made.group) == (300, 130, 64)
    assert made.words.shape == (3, 8, 64, 5)  # three groups, eight planes, 64 channels, five words of 64 outputs


def test_do_more_planes_take_longer() -> None:
    few, many = (products_s([PlaneProduct(2048, 1024, planes)] * 4, 25) for planes in (2, 8))
    assert 1.3 * few < many
    assert (least_times([PlaneProduct(256, 256, 3)], 2) > 0).all()
    with pytest.raises(TierformError, match="2 to 8 bits"):
        products_s([PlaneProduct(256, 256, 16)])


def test_does_the_command_write_a_chip_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tierform.cli.main import main
    from tierform.store import plane_speed

    given = PlaneChip(20e-6, 5e9, 0.05, 40, 1.0)
    monkeypatch.setattr(plane_speed, "calibrate_planes", lambda: given)
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", "--planes", "--name", "mine", "--out", str(tmp_path), "--json", str(tmp_path / "x.json")])
    assert not ended.value.code
    assert json.loads((tmp_path / "x.json").read_text())["launch_s"] == 20e-6
    assert tierform.load_chip(str(tmp_path / "mine.yaml")).name == "mine"
