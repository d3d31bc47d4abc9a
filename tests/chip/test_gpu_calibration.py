"""Does calibration recover known parameters, write files that load, and refuse bad measurements?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierform.chip.description import load_chip
from tierform.chip.gpu import Gpu
from tierform.chip.gpu.calibration import FIT_LIMIT, SMALL_TILES, START, TILES, calibrate, write_files
from tierform.chip.gpu.few_rows import FewRows, fit_few_rows
from tierform.chip.gpu.fit import fit_products
from tierform.chip.gpu.gemm import FITTED, ProductModel
from tierform.chip.gpu.measure import QUIET, Device, Pace, chosen_shapes, measure_device
from tierform.chip.gpu.parameters import Sheet
from tierform.chip.gpu.samples import Sample, kept_apart, read_samples
from tierform.chip.sample_operators import product
from tierform.errors import TierformError
from tierform.validation.gpu import ledger

DEVICE = Device("Made-up board", "cpu", "fp32", 1e11, 2e10, 2e-6, 2, 2.5e9, 32e6, 8e9)
HEAD = "dtype,m,n,k,latency_ms\n"


def made_up(count: int, **changes: float) -> list[Sample]:
    sheet = Sheet(DEVICE.threads, DEVICE.clock_Hz, DEVICE.peak_per_s, DEVICE.bandwidth_B_per_s, DEVICE.cache_B)
    true = {**START, **changes}
    model = ProductModel.with_values(sheet, tuple(true[name] for name in FITTED), TILES, None)
    shapes = chosen_shapes(DEVICE, count)
    times = model.seconds(*np.array(shapes, dtype=float).T, copies=1.0, input_B=4.0)
    return [Sample(DEVICE.name, "product", "fp32", shape, time) for shape, time in zip(shapes, times, strict=True)]


def test_are_known_parameters_found_again(tmp_path: Path) -> None:
    rows = made_up(80, tensor_efficiency=0.7, launch=9000.0)
    result = calibrate(DEVICE, rows)
    assert result.held_out_median < 0.05
    assert result.fit.parameters["tensor_efficiency"] == pytest.approx(0.7, rel=0.1)
    assert result.fitted_rows + result.held_out_rows == len(rows)
    write_files(result, "made-up", tmp_path)
    chip = load_chip(tmp_path / "made-up.yaml")
    part = chip.components["gpu"]
    assert isinstance(part, Gpu)
    assert part.parameters.held_out_error["product_median"].value == pytest.approx(result.held_out_median, rel=1e-3)
    assert part.products is not None
    again = part.products.seconds(*np.array([row.shape for row in rows], dtype=float).T, copies=1.0, input_B=4.0)
    errors = np.abs(again / np.array([row.seconds for row in rows]) - 1)
    assert np.median(errors) < 0.05


def with_few_rows(count: int, few: FewRows) -> list[Sample]:
    """Made-up products of which those of one to eight rows take what `few` says."""

    def of(row: Sample) -> Sample:
        m, n, k = row.shape
        return replace(row, seconds=float(few.seconds(m, n * k))) if m <= 8 else row

    return [of(row) for row in made_up(count, tensor_efficiency=0.7)]


def test_are_products_of_few_rows_foretold_by_a_term_of_their_own(tmp_path: Path) -> None:
    # A vector kernel of 11 GB/s for one row; 2 and more rows are packed, and each costs as much again as half of it.
    true = FewRows(3e-6, 3.6e-10, 1.2e-10, 0.8e-10)
    draw = np.random.default_rng(1)
    rows = [
        replace(row, seconds=row.seconds * float(np.exp(0.02 * draw.standard_normal())))
        for row in with_few_rows(90, true)
    ]
    result = calibrate(DEVICE, rows)
    found = result.few_rows
    assert found is not None and result.few_rows_median is not None and result.few_rows_median < 0.05
    assert [found.first_s, found.stream_s, found.row_s] == pytest.approx([3.6e-10, 1.2e-10, 0.8e-10], rel=0.15)
    write_files(result, "few", tmp_path)
    gpu = load_chip(tmp_path / "few.yaml").components["gpu"]
    # A step of k tokens: products of a model's sizes, as the chip charges them, within 10 % of what made the rows.
    sizes = [(576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536), (49152, 576)]
    for m in range(1, 9):
        ours = sum(gpu.cost(product(m, n, k, precision="fp32")).latency_s for n, k in sizes)
        assert ours == pytest.approx(sum(float(true.seconds(m, n * k)) for n, k in sizes), rel=0.1), m
    nine = gpu.cost(product(9, 576, 576, precision="fp32")).latency_s
    part = gpu.products.seconds(9, 576, 576, input_B=4.0)  # type: ignore[attr-defined]
    assert nine == pytest.approx(float(part[0]))
    # Kernels take half as long again in a step; few rows were measured with weights from memory, as a step has them.
    write_files(result, "slow", tmp_path, None, 1.5)
    slow = load_chip(tmp_path / "slow.yaml").components["gpu"]
    eight = product(8, 576, 576, precision="fp32")
    assert slow.cost(eight).latency_s == pytest.approx(gpu.cost(eight).latency_s)
    assert slow.cost(product(9, 576, 576, precision="fp32")).latency_s == pytest.approx(1.5 * nine)
    # The general model alone misses them by more.
    assert np.median(np.abs(fit_general(rows))) > 2 * result.few_rows_median


def fit_general(rows: list[Sample]) -> np.ndarray:
    """Errors of held-out products of few rows under the general model, fitted on all rows."""
    fit, held = kept_apart(rows, FIT_LIMIT)
    sheet = Sheet(DEVICE.threads, DEVICE.clock_Hz, DEVICE.peak_per_s, DEVICE.bandwidth_B_per_s, DEVICE.cache_B)
    found = fit_products(sheet, fit, held, START, SMALL_TILES + TILES, None, copies=1e6, input_B=4.0)
    return found.held_out_errors[[row.shape[0] <= 8 for row in held]]


def test_is_a_product_of_few_rows_what_its_figures_say() -> None:
    # 1,000 weights: 5 + 1000 x 2 = 2,005 with one row, 5 + 1000 x (3 + 4 x 0.5) = 5,005 with four.
    few = FewRows(5.0, 2.0, 3.0, 0.5)
    assert few.seconds([1, 4], [1000, 1000]).tolist() == [2005.0, 5005.0]
    with_one = [Sample("d", "product", "fp32", (1, 64, 64), 1.0)] * 9
    assert fit_few_rows(with_one) is None and fit_few_rows(with_few_rows(40, few)[:6]) is None


def test_has_half_of_the_products_the_rows_of_decoding() -> None:
    shapes = chosen_shapes(DEVICE, 60)
    few = [shape for shape in shapes if shape[0] <= 8]
    assert len(shapes) == len(set(shapes)) == 60 and len(few) == 30 and {shape[0] for shape in few} == set(range(1, 9))
    assert shapes == chosen_shapes(DEVICE, 60)


def test_is_a_bad_calibration_said_to_be_one(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = [replace(row, seconds=row.seconds * float(np.exp(1.5 * draw.standard_normal()))) for row in made_up(60)]
    result = calibrate(replace(DEVICE, load=9.5, cores=2), rows)
    assert result.held_out_percentile_90 > 0.5
    assert "9.5 processes wanted 2 cores" in result.warning
    assert calibrate(DEVICE, made_up(60)).warning == ""
    write_files(result, "bad", tmp_path)
    assert "Do not rely" in (tmp_path / "bad.yaml").read_text()
    load_chip(tmp_path / "bad.yaml")


def test_is_an_unknown_format_refused() -> None:
    pytest.importorskip("torch")
    with pytest.raises(TierformError, match="fp32, bf16 or fp16"):
        measure_device("cpu", 1, "bf61")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "bf16,1,2,3,-0.5\n", "greater than zero"),
        (HEAD + "bf16,1,2,3,0\n", "greater than zero"),
        (HEAD + "bf16,1,2,3,0.5\nbf16,1,2,3,0.6\n", "line 2"),
        (HEAD + "bf16,1,2.5,3,0.5\n", "whole number"),
        (HEAD + "bf16,1,two,3,0.5\n", "a number is needed"),
        (HEAD + "bf16,1,2,3,inf\n", "whole number|greater|finite|number"),
        (HEAD, "no measured kernels"),
        ("a,b\n1,2\n", "columns of measured kernels"),
    ],
)
def test_are_bad_rows_refused_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(text)
    with pytest.raises(TierformError, match=message):
        read_samples(file)


def test_are_all_mistakes_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("# a remark\n" + HEAD + "bf16,1,2,3,-1\nbf16,0,2,3,1\nbf16,5,2,3,x\n")
    with pytest.raises(TierformError) as caught:
        read_samples(file)
    assert [problem.line for problem in caught.value.problems] == [3, 4, 5]


def test_are_too_few_rows_refused() -> None:
    with pytest.raises(TierformError, match="too few"):
        calibrate(DEVICE, made_up(12))


def test_does_the_command_end_with_code_2_on_bad_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tierform.cli.main import main

    file = tmp_path / "rows.csv"
    file.write_text(HEAD + "bf16,1,2,3,-1\n")
    for arguments in (["--samples", str(file)], ["--points", "5"], ["--samples", str(tmp_path / "none.csv")]):
        with pytest.raises(SystemExit) as ended:
            main(["calibrate", *arguments, "--out", str(tmp_path)])
        assert ended.value.code == 2
        assert "error:" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv"]


@given(limit=st.integers(0, 1000), shapes=st.sets(st.tuples(*[st.integers(1, 99)] * 3), min_size=1))
def test_is_each_row_either_fitted_or_held_out(limit: int, shapes: set[tuple[int, ...]]) -> None:
    rows = [Sample("d", "product", "bf16", shape, 1.0) for shape in shapes]
    fit, held = kept_apart(rows, limit)
    assert sorted(r.shape for r in (*fit, *held)) == sorted(shapes)
    assert [] in (fit, held) or limit not in (0, 1000)


def test_does_the_ledger_pass_and_can_it_fail(tmp_path: Path) -> None:
    whole = ledger()
    assert whole.passed, [(point.case, point.quantity, point.ours) for point in whole.failures]
    rows = ["device,dtype,m,n,k,latency_ms"]
    rows += [f"NVIDIA A100-SXM4-80GB,bfloat16,{m},4096,4096,9.9" for m in range(1, 30)]
    (tmp_path / "x_gemm.csv").write_text("\n".join(rows) + "\n")
    assert not ledger(tmp_path).passed
    (tmp_path / "x_gemm.csv").write_text(rows[0] + "\nNVIDIA A1000,bfloat16,1,2,3,1\n")
    with pytest.raises(TierformError, match="no chip of the library"):
        ledger(tmp_path)


@pytest.mark.slow
def test_is_this_machine_s_processor_calibrated(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from click.testing import CliRunner

    from tierform.cli.calibrate import command

    options = ["--quick", "--points", "40", "--device", "cpu", "--threads", "1", "--name", "here", "--out"]
    done = CliRunner().invoke(command, [*options, str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert load_chip(tmp_path / "here.yaml").components["gpu"].units == 1
    assert len(read_samples(tmp_path / "here-samples.csv")) == 40


def test_is_a_time_taken_in_quiet_moments() -> None:
    """A clock of which every second look is at a processor at half its pace: the work's own time is found."""
    now, looks, slow = [0.0], [0], [False]

    def clock() -> float:
        return now[0]

    pace = Pace(clock, looks=0)

    def look() -> None:
        looks[0] += 1
        slow[0] = looks[0] % 12 >= 6
        now[0] += 1e-4 * (2 if slow[0] else 1)

    pace._work = look
    pace.fastest_s = 1e-4

    def work() -> None:
        now[0] += 3e-3 * (2 if slow[0] else 1)

    assert QUIET < 2
    assert pace.median_s(work, least=9, waits=1000) == pytest.approx(3e-3)
