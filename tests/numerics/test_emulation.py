"""Does the emulator compute what a tile computes: bit for bit, in every encoding, on every path?"""

import itertools
import shutil

import numpy as np
import pytest
from plain_tile import tile_totals

torch = pytest.importorskip("torch")

from tierform.errors import TierformError  # noqa: E402
from tierform.numerics import readout  # noqa: E402
from tierform.numerics.chip_view import CrossbarFormat  # noqa: E402
from tierform.numerics.formats import Quantizer  # noqa: E402
from tierform.numerics.layer import CrossbarLinear  # noqa: E402
from tierform.numerics.noise import load_noise  # noqa: E402

ENCODINGS = ("offset", "differential", "differential-digital")


def layer_of(form, outputs, inputs, seed, **options):
    torch.manual_seed(seed)
    weight = torch.nn.Parameter(torch.randn(outputs, inputs) * 0.1)
    return CrossbarLinear(weight, None, form, **options)


def integers_of(layer, vectors, seed):
    top = 2 ** (layer.form.input_bits - 1) - 1
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-top, top + 1, (vectors, layer.in_features), generator=generator).float()


def plain(layer, x):
    gains = [float(g) for g in layer.gain()] if layer.form.adc_bits else []
    blocks, totals = tile_totals(x.int().tolist(), layer.integers.int().tolist(), layer.form, gains, layer.signed_codes)
    assert blocks == layer.blocks
    return torch.tensor(totals)


CASES = [
    (encoding, input_encoding, cell, dac, adc, adc_range, active)
    for encoding, input_encoding, (cell, dac), (adc, adc_range), active in itertools.product(
        ENCODINGS,
        ("twos-complement", "offset"),
        ((1, 1), (2, 1), (2, 3), (3, 8), (4, 2)),
        (
            (3, "granular"),
            (5, "maximum"),
            (8, "maximum"),
            (8, "calibrated"),
            (8, 37.5),
            (12, "granular"),
            (0, "granular"),
        ),
        (0, 5),
    )
]


@pytest.mark.parametrize("part", range(6))
def test_tile_equals_plain_loops_in_every_encoding(part):
    for number, (encoding, input_encoding, cell, dac, adc, adc_range, active) in enumerate(CASES[part::12]):
        bits = 3 + number % 6
        form = CrossbarFormat(
            rows=12,
            columns=32,
            cell_bits=cell,
            dac_bits=dac,
            weight_bits=bits,
            input_bits=2 + (number * 5) % 7,
            encoding=encoding,
            input_encoding=input_encoding,
            adc_bits=adc,
            adc_range=adc_range,
            rows_active=active,
            inverted_columns=encoding == "offset" and number % 2 == 0,
        )
        layer = layer_of(form, 2, 23, number)
        x = integers_of(layer, 2, number)
        found = layer.block_sums(x)
        assert torch.equal(found, plain(layer, x).float()), form


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_int8_products_and_float_products_give_the_same_codes(encoding, monkeypatch):
    assert readout.int8_available(), "this machine's int8 products differ from plain arithmetic"
    for dac, adc in ((1, 6), (8, 8), (4, 8)):
        form = CrossbarFormat(rows=64, dac_bits=dac, adc_bits=adc, encoding=encoding, adc_range="maximum")
        x = torch.randn(9, 150)
        fast = layer_of(form, 21, 150, 5)
        expected = fast(x)
        assert fast._reader().int8
        monkeypatch.setattr(readout, "int8_available", lambda: False)
        slow = layer_of(form, 21, 150, 5)
        assert torch.equal(slow(x), expected)
        assert not slow._reader().int8
        monkeypatch.undo()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("granularity", ["tensor", "channel", "crossbar"])
def test_without_noise_and_with_enough_adc_bits_it_is_the_integer_product(encoding, granularity):
    form = CrossbarFormat(rows=40, columns=64, adc_bits=12, encoding=encoding, dac_bits=1)
    quantizer = Quantizer("int8", granularity, block=(40, form.weights_per_row))
    layer = layer_of(form, 17, 130, 3, quantizer=quantizer)
    x = integers_of(layer, 6, 1)
    product = torch.stack([x[:, a:b].long() @ layer.integers[:, a:b].long().T for a, b in layer.blocks])
    assert layer.lossless
    assert torch.equal(layer.block_sums(x).long(), product)
    inputs = torch.randn(11, 130)
    fast = layer(inputs)
    assert torch.equal(layer._reader().product(inputs), fast), "fast path and tile differ"


def test_one_adc_bit_fewer_than_lossless_is_not_called_lossless():
    form = CrossbarFormat(rows=32, cell_bits=2, dac_bits=1, adc_bits=16, encoding="offset")
    top = int(layer_of(form, 8, 64, 0).sum_bounds()[1].max())
    enough = int(np.ceil(np.log2(top + 1)))
    for adc, expected in ((enough, True), (enough - 1, False)):
        form = CrossbarFormat(rows=32, cell_bits=2, dac_bits=1, adc_bits=adc, encoding="offset")
        assert layer_of(form, 8, 64, 0).lossless is expected


def test_inverted_columns_save_one_adc_bit_and_keep_the_integer_product():
    # 128 rows of 2-bit cells on 1-bit inputs sum to 384 at most: 9 bits, or 8 when no column holds more than half.
    for inverted, expected in ((False, False), (True, True)):
        form = CrossbarFormat(rows=128, cell_bits=2, dac_bits=1, adc_bits=8, inverted_columns=inverted)
        layer = CrossbarLinear(torch.nn.Parameter(torch.rand(8, 128) + 1.0), None, form)
        assert layer.lossless is expected
    x = integers_of(layer, 5, 0)
    assert torch.equal(layer.block_sums(x)[0].long(), x.long() @ layer.integers.long().T)


def test_an_all_ones_input_at_the_bound_clips_one_bit_below_it():
    form = CrossbarFormat(rows=4, columns=16, cell_bits=2, dac_bits=1, adc_bits=3, weight_bits=2, encoding="offset")
    weight = torch.nn.Parameter(torch.ones(1, 4))
    layer = CrossbarLinear(weight, None, form)  # stores u = 1 + 2 = 3 in every cell: a full column sums to 12
    x = torch.tensor([[1.0, 1, 1, 1]])
    wrong = layer.block_sums(x)
    assert float(wrong) == 7 - 2 * 4  # the code clips at 7, the offset is still taken off in full
    exact = CrossbarLinear(weight, None, CrossbarFormat(rows=4, columns=16, adc_bits=4, weight_bits=2))
    assert float(exact.block_sums(x)) == 4


def test_gradients_are_those_of_the_weight_in_the_cells():
    form = CrossbarFormat(rows=64, adc_bits=8)
    layer = layer_of(form, 7, 33, 2)
    x = torch.randn(5, 33, requires_grad=True)
    seed = torch.randn(5, 7)
    layer(x).backward(seed)
    assert torch.allclose(x.grad, seed @ layer.effective, atol=1e-6)
    assert torch.allclose(layer.weight.grad, seed.T @ x.detach(), atol=1e-5)


def test_autocast_and_compile_give_the_eager_values():
    form = CrossbarFormat(rows=64, adc_bits=8)
    model = torch.nn.Sequential(layer_of(form, 16, 24, 0), torch.nn.GELU(), layer_of(form, 8, 16, 1))
    x = torch.randn(3, 5, 24)
    eager = model(x)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), eager)
    compiled(x).sum().backward()
    assert model[0].weight.grad is not None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model[0](x)
    assert half.dtype is torch.bfloat16
    assert torch.allclose(half.float(), model[0](x), atol=0.05)


@pytest.mark.slow
def test_inductor_compiles_a_noisy_model_as_one_graph():
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("no C++ compiler")
    noise = load_noise("programming-2pct")
    model = torch.nn.Sequential(
        layer_of(CrossbarFormat(rows=64), 16, 24, 0, noise=noise),
        torch.nn.GELU(),
        layer_of(CrossbarFormat(rows=64), 8, 16, 1, noise=noise),
    )
    x = torch.randn(3, 5, 24)
    eager = model(x)
    eager.sum().backward()
    gradients = [layer.weight.grad.clone() for layer in (model[0], model[2])]
    model.zero_grad()
    compiled = torch.compile(model, fullgraph=True)
    found = compiled(x)
    assert torch.allclose(found, eager, atol=1e-6)
    found.sum().backward()
    for layer, expected in zip((model[0], model[2]), gradients, strict=True):
        assert torch.allclose(layer.weight.grad, expected, rtol=1e-5, atol=1e-5)


def test_transposed_weights_are_the_same_layer():
    form = CrossbarFormat(rows=64)
    plain_layer = layer_of(form, 10, 30, 4)
    turned = CrossbarLinear(torch.nn.Parameter(plain_layer.weight.detach().T.clone()), None, form, transposed=True)
    x = torch.randn(4, 30)
    assert torch.equal(plain_layer(x), turned(x))
    x.requires_grad_()
    turned(x).sum().backward()
    assert turned.weight.grad.shape == turned.weight.shape


def test_changed_weights_are_programmed_again():
    layer = layer_of(CrossbarFormat(), 8, 16, 0)
    x = torch.randn(2, 16)
    before = layer(x)
    with torch.no_grad():
        layer.weight.neg_()
    assert torch.allclose(layer(x), -before, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"adc_range": 0.0},
        {"adc_range": "grannular"},
        {"weight_bits": 9},
        {"encoding": "offst"},
        {"rows": 0},
        {"columns": 3},
        {"adc_bits": -1},
    ],
)
def test_bad_formats_are_refused(change):
    with pytest.raises(TierformError):
        CrossbarFormat(**change)


def test_bad_weights_are_refused():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    weight.data[1, 2] = float("nan")
    with pytest.raises(TierformError, match="NaN"):
        CrossbarLinear(weight, None, CrossbarFormat())
    wide = Quantizer("int8", "channel")
    with pytest.raises(TierformError, match="wider"):
        CrossbarLinear(torch.nn.Parameter(torch.ones(4, 4)), None, CrossbarFormat(weight_bits=4), quantizer=wide)
