"""Do scales by column, digital channels, digital weights and digital layers keep what noisy cells lose?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from tierform.errors import TierformError  # noqa: E402
from tierform.numerics.adapters import attach_lora  # noqa: E402
from tierform.numerics.chip_view import CrossbarFormat  # noqa: E402
from tierform.numerics.digital import DigitalShare, take_digital  # noqa: E402
from tierform.numerics.draws import fill_normal, quantiles  # noqa: E402
from tierform.numerics.emulation import describe, emulate, new_chip_instance  # noqa: E402
from tierform.numerics.formats import Quantizer  # noqa: E402
from tierform.numerics.layer import CrossbarLinear  # noqa: E402
from tierform.numerics.noise import load_noise  # noqa: E402
from tierform.numerics.quantize import quantize_integers  # noqa: E402
from tierform.numerics.remainder import smallest_range  # noqa: E402


def outlier_layer(outputs: int = 96, inputs: int = 300):
    """A weight whose rows differ in size, and inputs of which one channel holds most of the energy."""
    generator = torch.Generator().manual_seed(0)
    size = torch.exp(torch.randn(outputs, 1, generator=generator))
    weight = torch.randn(outputs, inputs, generator=generator) * 0.05 * size
    x = torch.randn(64, inputs, generator=generator)
    x[:, 7] *= 50
    return weight, x


def layer(weight, noise="programming-2pct", seed=1, scale="crossbar", fidelity="weights", digital=None, energy=None):
    form = CrossbarFormat()
    quantizer = Quantizer("int8", scale, block=(form.rows, form.weights_per_row))
    made = CrossbarLinear(
        torch.nn.Parameter(weight.clone()),
        None,
        form,
        quantizer=quantizer,
        noise=load_noise(noise),
        seed=seed,
        digital=digital,
        energy=energy,
    )
    made.fidelity = fidelity
    return made


def lost(made, weight, x):
    with torch.no_grad():
        wanted = x @ weight.T
        return float((made(x) - wanted).square().mean() / wanted.square().mean())


def test_has_every_column_of_a_crossbar_its_own_scale():
    # Rows 0 to 1 of one output: the largest magnitude of each block of two inputs over 127.
    weight = torch.tensor([[1.0, -2.0, 0.5, 0.25], [4.0, 0.0, 0.0, 0.125]])
    _, scale, _ = quantize_integers(weight, Quantizer("int8", "column", block=(2, 32)))
    assert torch.allclose(scale * 127, torch.tensor([[2.0, 2.0, 0.5, 0.5], [4.0, 4.0, 0.125, 0.125]]))


@pytest.mark.parametrize("fidelity", ["weights", "bits"])
def test_does_a_scale_by_column_take_off_errors_of_cells(fidelity):
    weight, x = outlier_layer()
    by_crossbar = np.mean([lost(layer(weight, seed=s, fidelity=fidelity), weight, x) for s in range(3)])
    by_column = np.mean([lost(layer(weight, seed=s, fidelity=fidelity, scale="column"), weight, x) for s in range(3)])
    assert by_column < 0.5 * by_crossbar


def test_is_the_digital_part_what_was_taken_off():
    weight, x = outlier_layer()
    energy = x.square().mean(0)
    rest, part = take_digital(weight, DigitalShare(channels=3, weights=0.01), energy)
    assert 7 in part.channels.tolist() and len(part.channels) == 3
    assert part.singles == round(0.01 * weight.numel())
    assert torch.allclose(rest + part.dense(tuple(weight.shape)), weight)
    assert torch.allclose(x @ rest.T + part.times(x), x @ weight.T, rtol=1e-4, atol=1e-3)
    assert part.products == 3 * 96 + part.singles


@pytest.mark.parametrize("fidelity", ["weights", "bits", "surrogate"])
def test_do_digital_channels_take_the_massive_activation(fidelity):
    weight, x = outlier_layer()
    energy = x.square().mean(0)
    plain = lost(layer(weight, fidelity=fidelity), weight, x)
    mended = lost(layer(weight, fidelity=fidelity, digital=DigitalShare(channels=1), energy=energy), weight, x)
    assert mended < 0.2 * plain


def test_do_gradients_pass_through_the_digital_part_too():
    weight, x = outlier_layer()
    made = layer(weight, digital=DigitalShare(channels=2, weights=0.02), energy=x.square().mean(0), fidelity="weights")
    x = x.clone().requires_grad_(True)
    seed = torch.randn(64, 96)
    made(x).backward(seed)
    assert torch.allclose(x.grad, seed @ made.effective, rtol=1e-4, atol=1e-4)


def test_do_both_ways_of_programming_give_the_same_chip():
    """One pass that folds cells as it draws them, and conductances kept: the same errors, inverted columns too."""
    weight, _ = outlier_layer()
    for form in (
        CrossbarFormat(),
        CrossbarFormat(inverted_columns=True),
        CrossbarFormat(encoding="differential-digital"),
    ):
        made = CrossbarLinear(torch.nn.Parameter(weight), None, form, noise=load_noise("programming-2pct"), seed=5)
        from tierform.numerics.slicing import folded_weight

        slow = folded_weight(made._upright_levels(), form)
        assert torch.allclose(made._programmed(torch.ones_like(made.block_scale)), slow, atol=2e-3)
        assert float((slow - made.integers).abs().max()) > 0.5


@given(stream=st.integers(0, 2**62), size=st.integers(1, 9), columns=st.integers(1, 9))
def test_are_draws_the_same_at_every_place(stream, size, columns):
    whole, part = np.empty((columns, 64), np.float32), np.empty((columns, size), np.float32)
    fill_normal(np.uint64(stream), quantiles(), whole)
    fill_normal(np.uint64(stream), quantiles(), part)
    assert np.array_equal(part, whole[:, :size])


def test_are_draws_normal_and_streams_apart():
    both = np.empty((2, 4, 50_000), np.float32)
    fill_normal(np.uint64(1), quantiles(), both[0])
    fill_normal(np.uint64(2), quantiles(), both[1])
    from scipy.stats import kstest

    lines = both.reshape(8, -1)
    assert all(kstest(line, "norm").pvalue > 1e-3 for line in lines)
    pairs = np.corrcoef(np.concatenate([lines[:, 1:], lines[:, :-1]]))
    assert np.abs(pairs[~np.eye(16, dtype=bool)]).max() < 5 / np.sqrt(50_000)


def test_are_layers_left_digital_by_pattern_and_all_of_it_reported():
    model = torch.nn.Sequential()
    model.add_module("first", torch.nn.Linear(64, 32))
    model.add_module("second", torch.nn.Linear(32, 16))
    x = torch.randn(8, 64)
    found = emulate(
        model,
        "atleus",
        noise="programming-2pct",
        scale="column",
        digital=DigitalShare(2, 0.01, ("second",)),
        calibration=lambda whole: whole(x),
    )
    rows = describe(found)
    assert [row["layer"] for row in rows] == ["first"] and rows[0]["digital_products"] == 2 * 32 + round(0.01 * 64 * 32)
    new_chip_instance(found, 4)
    with pytest.raises(TierformError, match="did you mean 'second'"):
        emulate(model, "atleus", digital=DigitalShare(layers=("secnd",)))
    with pytest.raises(TierformError, match="unknown sharing of scales"):
        emulate(model, "atleus", scale="colum")


def test_do_adapters_weigh_large_weights_by_the_inputs_that_meet_them():
    """Two row blocks: the second one's inputs are a hundred times larger, so its range is made small first."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 256, generator=generator) * 0.02
    weight[3] += torch.randn(256, generator=generator) * 0.3
    energy = torch.cat([torch.full((128,), 1.0), torch.full((128,), 100.0)])

    def cost(peaks):
        rest = weight - peaks.product
        scale = torch.stack([rest[:, :128].abs().amax(), rest[:, 128:].abs().amax()])
        return float((scale.square() * torch.tensor([1.0, 100.0])).sum())

    assert cost(smallest_range(weight, 1, 64, 128, energy=energy)) <= cost(smallest_range(weight, 1, 64, 128)) * 1.001


def test_do_adapters_take_large_weights_from_layers_with_scales_by_column():
    model = torch.nn.Sequential()
    model.add_module("q_proj", torch.nn.Linear(64, 32))
    found = emulate(model, "atleus", noise="programming-2pct", scale="column", fidelity="weights")
    from tierform.numerics.remainder import take_peaks

    peaks = take_peaks(found, 4)
    x = torch.randn(8, 64)
    adapted = attach_lora(found, rank=2, targets=("q",), peaks=peaks, train_head=False)
    with torch.no_grad():
        assert torch.allclose(adapted(x), model(x), rtol=0.2, atol=0.2)
