"""Does benchmarks/device.py run whole, and do its figures become a chip and a comparison, with checks?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tierform.chip.component import Cost
from tierform.chip.description import load_chip
from tierform.chip.gpu.device_file import chip_name, energies_of, moved_B, read_device
from tierform.cli.main import main
from tierform.errors import TierformError
from tierform.validation.measured_device import device_ledger
from tierform.validation.models import ledger

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "device.py"
LLAMA = {
    "model_type": "llama",
    "vocab_size": 1024,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 2048,
}


def content(name: str = "NVIDIA H100 80GB HBM3", **changes: Any) -> dict[str, Any]:
    described = {"name": name, "kind": "cuda", "memory_B": 85e9, "multiprocessors": 132, "clock_Hz": 1.98e9}
    found: dict[str, Any] = {
        "schema": "tierform.device/1",
        "device": {**described, "l2_B": 50e6, "board_power_W": 700.0},
        "chip": "",
        "dry": False,
        "torch": "2.5",
        "weights_in_turn": 6,
        "model": LLAMA,
        "seconds": 200.0,
    }
    lists = ("power", "copies", "products", "energies", "attention", "capped", "runs", "skipped")
    return {**found, **{key: [] for key in lists}, **changes}


def written(folder: Path, given: dict[str, Any]) -> Path:
    file = folder / "device.json"
    file.write_text(json.dumps(given))
    return file


# Idle 70 W, a floor of 130 W on top, 100 pJ a byte, 0.9 pJ an operation in bf16 and 0.5 in fp8.
def made_up_powers() -> dict[str, Any]:
    def held(seconds: float, watts: float) -> dict[str, Any]:
        return {"seconds": seconds, "energy_J": watts * seconds, "power_W": watts, "clock_Hz": 1.9e9}

    rows = []
    for form, joules, width, m, seconds in (
        ("bf16", 0.9e-12, 2, 8, 60e-6),
        ("bf16", 0.9e-12, 2, 8192, 2.4e-3),
        ("fp8", 0.5e-12, 1, 8, 35e-6),
        ("fp8", 0.5e-12, 1, 8192, 1.3e-3),
    ):
        size = 8192
        moved = width * (m * size + size * size) + 2 * m * size  # inputs, weights, and a result of 16 bits
        watts = 200 + moved / seconds * 100e-12 + 2 * m * size * size / seconds * joules
        rows.append({"format": form, "m": m, "n": size, "k": size, **held(seconds, watts)})
    power = [{"what": "idle", "power_W": 70.0}, {"what": "floor", "power_W": 200.0, "clock_Hz": 1.9e9, "seconds": 2e-6}]
    copies = [{"bytes": 2**31, **held(7e-4, 200 + 2**31 / 7e-4 * 100e-12)}]
    return content(power=power, copies=copies, energies=rows)


def test_are_energies_found_that_powers_were_made_of(tmp_path: Path) -> None:
    found = energies_of(read_device(written(tmp_path, made_up_powers())))
    assert found.idle_W == 70 and found.floor_W == pytest.approx(130, rel=1e-6)
    assert found.byte_J == pytest.approx(100e-12, rel=1e-6)
    operation = dict(found.operation_J)
    assert operation["bf16"] == pytest.approx(0.9e-12, rel=1e-6)
    assert operation["fp8"] == pytest.approx(0.5e-12, rel=1e-6)
    assert found.error < 1e-9 and dict(found.rates)["bf16"] == pytest.approx(2 * 8192**3 / 2.4e-3)


def test_is_nothing_made_up_where_power_was_not_read(tmp_path: Path) -> None:
    given = made_up_powers()
    given["power"] = [{"what": "idle", "power_W": None}]
    found = energies_of(read_device(written(tmp_path, given)))
    assert found.idle_W is None and found.operation_J == () and found.byte_J is None


def test_are_bytes_of_a_product_those_of_its_operands(tmp_path: Path) -> None:
    rows = read_device(written(tmp_path, made_up_powers())).energies
    assert moved_B(rows[0]) == 2 * (8 * 8192 + 8192 * 8192 + 8 * 8192)  # all of 16 bits
    assert moved_B(rows[2]) == 8 * 8192 + 8192 * 8192 + 2 * 8 * 8192  # fp8 in, 16 bits out


@pytest.mark.parametrize(
    ("device", "chip"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-PCIE-40GB", "a100-pcie"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
        ("NVIDIA L4", "l4"),
        ("AMD Instinct MI300X", "mi300x"),
        ("Tesla V100-SXM2-16GB", "v100"),
    ],
)
def test_is_the_chip_found_by_the_name_that_a_driver_reports(tmp_path: Path, device: str, chip: str) -> None:
    file = written(tmp_path, content(device))
    assert chip_name(read_device(file), file) == chip


@pytest.mark.parametrize("device", ["NVIDIA H100 PCIe", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 NVL", "Xe"])
def test_is_another_board_not_taken_for_one_of_the_library(tmp_path: Path, device: str) -> None:
    file = written(tmp_path, content(device))
    with pytest.raises(TierformError, match="no chip of the library is this device"):
        chip_name(read_device(file), file)


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"schema": "tierform.chip/1"}, ["these are not figures of a device"]),
        ({"chipp": "h100"}, ["unknown key", "chip"]),
        ({"products": [{"format": "bf61", "m": 0, "n": 1, "k": 1, "seconds": -1}]}, ["format", "m", "seconds"]),
        ({"runs": [{"what": "decode"}]}, ["batch", "missing"]),
    ],
)
def test_are_bad_figures_refused_all_at_once(
    tmp_path: Path, changes: dict[str, Any], messages: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, content(**changes))
    for command in (["validate", "models", "--data"], ["calibrate", "--out", str(tmp_path), "--from"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, str(file)])
        told = capsys.readouterr().err
        assert ended.value.code == 2 and all(message in told for message in messages), told


def test_does_a_file_without_products_make_no_chip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, content())
    for more in ([], ["--threads", "2"]):
        with pytest.raises(SystemExit) as ended:
            main(["calibrate", "--out", str(tmp_path), "--from", str(file), *more])
        assert ended.value.code == 2
        assert ("--threads" if more else "nothing to calibrate with") in capsys.readouterr().err


def test_is_a_kernel_of_seconds_charged_as_the_ledger_books_it(tmp_path: Path) -> None:
    """The time of an 8192 x 8192 product by 8 rows on an H100, and its energy by hand from the file's constants."""
    given = made_up_powers()
    given["energies"] = given["energies"][:1]
    points = {point.quantity: point for point in device_ledger(written(tmp_path, given)).points}
    seconds = points["long product bf16, time"].ours * 1e-6
    gpu = load_chip("h100").components["gpu"].parameters  # type: ignore[attr-defined]
    floor = gpu.idle_power.value + gpu.active_power.value
    moved = 2 * (8 * 8192 + 8192 * 8192 + 8 * 8192)
    joules = floor * seconds + moved * 136e-12 + 2 * 8 * 8192 * 8192 * 0.74e-12
    assert points["product bf16, energy"].ours == pytest.approx(joules * 1e3, rel=1e-6)
    assert seconds > moved / 3.35e12


def test_is_a_step_no_shorter_than_its_host(tmp_path: Path) -> None:
    row = {"what": "decode", "batch": 4, "sequence": 128, "captured": False, "seconds": 2.0, "energy_J": 100.0}
    row |= {"power_W": 50.0, "clock_Hz": 1e9, "host_s": 2.0, "memory_B": 1e9}
    rows = [row, {**row, "captured": True}, {**row, "what": "lora", "rank": 8}, {**row, "what": "full"}]
    found = ledger(written(tmp_path, content(runs=rows)))
    times = [point.ours for point in found.points if point.quantity.endswith("step, time")]
    assert times[0] == pytest.approx(2000, rel=1e-3) and times[1] < 10
    assert times[2:] == pytest.approx([2000, 2000], rel=1e-3)
    assert found.passed and {p.quantity for p in found.points} >= {"full step, memory", "lora step, power"}


def test_does_the_script_run_whole_and_become_a_chip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    file = tmp_path / "dry.json"
    done = subprocess.run([sys.executable, str(SCRIPT), "--dry", "--chip", "dry.yaml", "--out", str(file)], check=True)
    assert done.returncode == 0
    figures = read_device(file)
    assert figures.dry and not figures.skipped and figures.device.kind == "cpu"
    assert len(figures.products) == 36 and [row.what for row in figures.runs] == ["decode", "lora", "full"]
    assert {row.passes for row in figures.attention} == {"forward", "backward"} and figures.capped
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", "--name", "dry", "--out", str(tmp_path), "--from", str(file)])
    assert ended.value.code in (0, None)
    assert "stands for nothing" in capsys.readouterr().out
    found = device_ledger(file)
    assert not [remark for remark in found.remarks if remark.startswith("refused")]
    quantities = {point.quantity for point in found.points}
    assert {"decode step, time", "lora step, time", "full step, time", "attention backward fp32"} <= quantities


def test_is_the_limit_of_a_board_kept_in_long_products(tmp_path: Path) -> None:
    """What would draw 3 kW on a board of 700 W is slowed until it does not."""
    from tierform.chip.gpu.device import Gpu
    from tierform.validation.measured_device import _held

    gpu = load_chip("h100").components["gpu"]
    assert isinstance(gpu, Gpu)
    hot = Cost(
        latency_s=1.0,
        occupancy_s=1.0,
        energy_J={"arithmetic": 2800.0},
        operations=1,
        memory_read_B=0,
        memory_write_B=0,
        utilization=1.0,
    )
    seconds, joules = _held(gpu, hot)
    assert seconds > 1 and joules / seconds == pytest.approx(700, rel=1e-6)
