"""Does the surrogate's random error have the mean and the variance that the tile's ADCs really add?"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tierform.chip.description import load_chip  # noqa: E402
from tierform.numerics import rounding  # noqa: E402
from tierform.numerics.chip_view import CrossbarFormat, crossbar_format  # noqa: E402
from tierform.numerics.layer import CrossbarLinear  # noqa: E402
from tierform.numerics.noise import load_noise  # noqa: E402

TILE = {"rows": 128, "cell_bits": 2, "dac_bits": 1, "adc_bits": 8, "inverted_columns": True}
PLAIN = {**TILE, "inverted_columns": False}


def layer_of(noise, form, seed=3, outputs=96, inputs=300):
    weight = torch.nn.Parameter(torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0)) * 0.05)
    return CrossbarLinear(weight, None, CrossbarFormat(**form), noise=load_noise(noise) if noise else None, seed=seed)


def outputs_by_fidelity(layer, x):
    found = []
    with torch.no_grad():
        for layer.fidelity in ("bits", "weights", "surrogate"):
            found.append(layer(x))
    return found


def inputs_like(kind, vectors=256):
    x = torch.randn(vectors, 300, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.gelu(2 * x) if kind == "gelu" else x


@pytest.mark.parametrize(
    ("s", "other", "apart"),
    [
        (0.3, 0.3, 0.0),
        (0.1, 0.1, 0.0),
        (0.03, 0.03, 0.0),
        (0.01, 0.01, 0.0),
        (0.23, 0.23, 0.0003),
        (0.23, 0.23, 0.05),
        (0.4, 0.4, 0.1),
        (0.25, 0.2, 0.1),
        (0.1, 0.1, 0.03),
        (0.5, 0.5, 1.0),
    ],
)
def test_the_covariance_of_two_roundings_is_that_of_drawn_errors(s, other, apart):
    draws = 400_000
    shared = (s + other - apart) / 2
    root = np.linalg.cholesky(np.array([[s, shared], [shared, other]]) + 1e-12 * np.eye(2))
    errors = root @ np.random.default_rng(0).standard_normal((2, draws))
    rounded = np.rint(errors) - errors
    product = rounded[0] * rounded[1]
    table = rounding.covariance_table()
    at_s = min((s + other) / 2 / rounding._MOST_S, 1) * (table.shape[0] - 1)
    at_d = min(np.sqrt(apart / rounding._MOST_D), 1) * (table.shape[1] - 1)
    found = np.interp(at_s, range(len(table)), [np.interp(at_d, range(table.shape[1]), row) for row in table])
    assert abs(found - product.mean()) < 5 * product.std() / np.sqrt(draws) + 3e-4


# The share by which the mean square may miss: sampling (one instance's errors repeat from token to token), and the
# model's own error where few rows are driven.
@pytest.mark.parametrize(
    ("noise", "form", "kind", "share"),
    [
        ("programming-2pct", TILE, "normal", 0.03),
        ("programming-2pct", TILE, "gelu", 0.04),
        ("weight-2pct", TILE, "normal", 0.05),
        ("weight-2pct", TILE, "gelu", 0.10),
        ("rram-wan-2022", TILE, "normal", 0.03),
        ("programming-2pct", {**PLAIN, "encoding": "differential", "adc_bits": 10}, "normal", 0.03),
        ("programming-2pct", {**PLAIN, "dac_bits": 2, "adc_bits": 11}, "normal", 0.03),
        ("programming-2pct", {**PLAIN, "input_encoding": "offset", "adc_bits": 9}, "normal", 0.05),
        ("programming-2pct", {**PLAIN, "adc_range": "maximum", "adc_bits": 6}, "normal", 0.03),
        (None, {**PLAIN, "adc_range": "maximum", "adc_bits": 6}, "normal", 0.04),
        ("programming-2pct", {**PLAIN, "adc_range": "calibrated", "dac_bits": 8}, "normal", 0.03),
    ],
)
def test_the_error_of_the_adcs_has_the_surrogates_mean_and_variance(noise, form, kind, share):
    layer = layer_of(noise, form)
    x = inputs_like(kind)
    tile, folded, drawn = outputs_by_fidelity(layer, x)
    integers, scale = layer.round_inputs(x)
    predicted = layer._rounding.variance(integers) * scale.square()
    error = tile - folded
    # The size is that of the mean chip instance: one instance's errors differ by some percent.
    found, expected = error.square().sum(), predicted.sum()
    standard = error / predicted.sqrt()
    squares, means = [standard.square().mean()], [standard.mean()]
    for seed in (4, 5, 6) if noise else ():
        other = layer_of(noise, form, seed)
        there, without, _ = outputs_by_fidelity(other, x)
        variance = other._rounding.variance(integers) * scale.square()
        found = found + (there - without).square().sum()
        expected = expected + variance.sum()
        squares.append(((there - without).square() / variance).mean())
        means.append(((there - without) / variance.sqrt()).mean())
    assert float(found / expected) == pytest.approx(1, abs=share)
    assert float((drawn - folded).square().sum() / predicted.sum()) == pytest.approx(1, abs=0.03)
    assert float(torch.stack(squares).mean()) == pytest.approx(1, abs=share)
    # Errors of one instance repeat in part from token to token: 5 standard errors over outputs alone.
    assert abs(float(torch.stack(means).mean())) < 5 / np.sqrt(standard.numel()) + float(
        standard.mean(0).std()
    ) * 2 / np.sqrt(96)


@pytest.mark.parametrize("noise", ["programming-2pct", "programming-2pct,read-1pct"])
def test_the_whole_error_is_the_tiles(noise):
    layer, exact = layer_of(noise, TILE), layer_of(None, TILE)
    for kind in ("normal", "gelu"):
        x = inputs_like(kind)
        tile, folded, drawn = outputs_by_fidelity(layer, x)
        with torch.no_grad():
            truth = exact(x)
        whole = [float((found - truth).square().mean()) for found in (tile, drawn, folded)]
        assert whole[1] == pytest.approx(whole[0], rel=0.08)
        assert whole[2] < 0.6 * whole[0], "without the ADCs most of the error is missing"


def test_nothing_is_added_where_no_adc_can_round():
    for noise, form in ((None, TILE), ("programming-2pct", {**TILE, "adc_bits": 0}), (None, {**PLAIN, "adc_bits": 9})):
        layer = layer_of(noise, form)
        _, folded, drawn = outputs_by_fidelity(layer, inputs_like("normal"))
        assert torch.equal(folded, drawn)


def test_an_adc_that_can_clip_is_computed_in_full():
    layer = layer_of("programming-2pct", {**PLAIN, "adc_bits": 5})
    tile, folded, drawn = outputs_by_fidelity(layer, inputs_like("normal", 32))
    assert torch.equal(tile, drawn)
    assert not torch.allclose(tile, folded, rtol=0.05)


def test_the_error_is_fresh_in_every_pass_seeded_and_can_be_left_out():
    x = inputs_like("normal", 16)
    layer, twin = layer_of("programming-2pct", TILE), layer_of("programming-2pct", TILE)
    layer.fidelity = twin.fidelity = "surrogate"
    with torch.no_grad():
        first, second, again = layer(x), layer(x), twin(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    layer.fresh = False
    with torch.no_grad():
        quiet = layer(x)
        layer.fidelity = "weights"
        assert torch.equal(quiet, layer(x))


def test_gradients_pass_the_error_unchanged():
    layer = layer_of("programming-2pct", TILE)
    layer.fidelity = "surrogate"
    x = inputs_like("normal", 8).requires_grad_()
    seed = torch.randn(8, 96)
    layer(x).backward(seed)
    assert torch.allclose(x.grad, seed @ layer.effective, atol=1e-5)


@pytest.mark.parametrize(("name", "bits"), [("pipelayer", 0), ("isaac", 8), ("atleus", 8)])
def test_a_tile_without_adcs_is_read_without_conversion(name, bits):
    chip = load_chip(name)
    form = crossbar_format(chip)
    assert form.adc_bits == bits
    assert crossbar_format(chip, adc_bits=6).adc_bits == 6
    weight = torch.nn.Parameter(torch.randn(16, 200))
    layer = CrossbarLinear(weight, None, form, noise=load_noise("programming-2pct"))
    tile, folded, _ = outputs_by_fidelity(layer, inputs_like("normal", 8)[:, :200])
    assert torch.allclose(tile, folded, rtol=1e-4, atol=1e-3) == (bits == 0)
