"""Are products of 32-bit operands their own kernels, far below the peak where the board has little power?

Measured figures: NeuSight's artifact (ASPLOS 2025; PyTorch 2.1, TF32 off): single linear layers inside whole models,
which no parameter was fitted on, and large ones alone.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tierform.chip.description import load_component
from tierform.chip.gpu import Gpu
from tierform.chip.sample_operators import product


def gpu(name: str) -> Gpu:
    part = load_component("gpu", 1, f"{name}-gpu")
    assert isinstance(part, Gpu)
    return part


def taken_ms(on: Gpu, m: int, n: int, k: int, precision: str = "fp32") -> float:
    return 1e3 * on.cost(product(m, n, k, precision=precision)).occupancy_s


@pytest.mark.parametrize(
    ("board", "shape", "measured_ms", "within"),
    [
        ("h100", (4096, 10240, 2560), 4.41, 0.06),
        ("h100", (4096, 2560, 10240), 4.74, 0.10),
        ("h100", (4096, 50257, 1280), 10.07, 0.06),
        ("t4", (4096, 5120, 1280), 13.67, 0.10),
        ("t4", (4096, 3840, 1280), 11.01, 0.15),
        ("t4", (4096, 50257, 1280), 129.3, 0.10),
        ("l4", (4096, 50257, 1280), 55.0, 0.10),
        ("mi210", (4096, 10240, 2560), 7.33, 0.06),
        ("mi210", (8192, 1024, 4096), 2.02, 0.15),
    ],
    ids=str,
)
def test_is_a_layer_of_a_model_within_its_measured_time(
    board: str, shape: tuple[int, int, int], measured_ms: float, within: float
) -> None:
    assert taken_ms(gpu(board), *shape) == pytest.approx(measured_ms, rel=within)


@pytest.mark.parametrize(("board", "share"), [("t4", 0.46), ("l4", 0.29), ("h100", 0.76), ("a100-pcie", 0.93)])
def test_which_share_of_the_peak_does_a_long_product_keep(board: str, share: float) -> None:
    """Data sheets: 8.1, 30.3, 66.9 and 19.5 TFLOP/s.  No long product is faster than what power allows for long."""
    on = gpu(board)
    peak = on.parameters.peak_rate["fp32"].value
    kept = 2 * 32768 * 8192 * 8192 / (1e-3 * taken_ms(on, 32768, 8192, 8192)) / peak
    assert kept == pytest.approx(share, abs=0.05)


def test_do_other_formats_have_their_own_kernels_and_a_file_without_the_section_the_others() -> None:
    on = gpu("t4")
    without = replace(on, parameters=on.parameters.model_copy(update={"wide_products": None}))
    shape = (2048, 4096, 4096)
    assert taken_ms(on, *shape, precision="fp16") == taken_ms(without, *shape, precision="fp16")
    assert taken_ms(on, *shape) > 1.5 * taken_ms(without, *shape)
    # tf32 is what 16-bit kernels are like
    a100 = gpu("a100")
    bare = replace(a100, parameters=a100.parameters.model_copy(update={"wide_products": None}))
    assert taken_ms(a100, *shape, precision="tf32") == taken_ms(bare, *shape, precision="tf32")


def test_is_a_format_without_a_peak_of_its_own_no_reason_to_fail() -> None:
    on = gpu("t4")
    rates = {name: rate for name, rate in on.parameters.peak_rate.items() if name != "fp32"}
    bare = replace(on, parameters=on.parameters.model_copy(update={"peak_rate": rates}))
    assert bare.wide is None and not bare.supports(product(64, 64, 64, precision="fp32"))
    assert taken_ms(bare, 2048, 4096, 4096, precision="fp16") == taken_ms(on, 2048, 4096, 4096, precision="fp16")
