"""Does each noise mechanism have the statistics of its formula, within the sampling error of a million draws?"""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tierform import library  # noqa: E402
from tierform.errors import TierformError  # noqa: E402
from tierform.numerics.chip_view import CrossbarFormat  # noqa: E402
from tierform.numerics.layer import CrossbarLinear  # noqa: E402
from tierform.numerics.mechanisms import Surroundings  # noqa: E402
from tierform.numerics.noise import load_noise  # noqa: E402
from tierform.numerics.wires import line_drops  # noqa: E402

DRAWS = 10**6


def source(name, **options):
    noise = load_noise(name, **options)
    return noise, noise.sources[0]


def around(noise, kelvin=300.0, layer=None):
    return Surroundings(noise.device, noise.time_s, kelvin, torch.Generator().manual_seed(1), layer)


def close_mean(values, expected, sigma):
    assert abs(float(values.double().mean()) - expected) < 5 * sigma / math.sqrt(len(values))


def close_sigma(values, sigma):
    # The sample standard deviation of n normal draws has a standard error of sigma / sqrt(2 n).
    assert abs(float(values.double().std()) / sigma - 1) < 5 / math.sqrt(2 * len(values))


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_gaussian_programming_error(share):
    noise, mechanism = source("programming-2pct")
    target = noise.device.low_S + share * noise.device.span_S
    drawn = mechanism.apply(torch.full((DRAWS,), target), around(noise), noise.device)
    sigma = mechanism.sigma.value * noise.device.span_S
    close_mean(drawn, float(torch.tensor(target)), sigma)
    close_sigma(drawn, sigma)


@pytest.mark.parametrize(
    ("name", "time_s"),
    [("rram-wan-2022", 1.0), ("rram-wan-2022", 86400.0), ("rram-wan-2022-cubic", 1.0), ("rram-milo-2021", 1.0)],
)
def test_polynomial_programming_error(name, time_s):
    noise, mechanism = source(name, time_s=time_s)
    target = noise.device.low_S + 0.6 * noise.device.span_S
    fit = min(mechanism.fits, key=lambda item: abs(item.after.value - time_s))
    x = target / mechanism.g_reference.value
    sigma = sum(c.value * x**i for i, c in enumerate(fit.coefficients))
    drawn = mechanism.apply(torch.full((DRAWS,), target), around(noise), noise.device)
    close_mean(drawn, float(torch.tensor(target)), sigma)
    close_sigma(drawn, sigma)


def test_two_independent_fits_of_the_same_chip_agree_where_they_overlap():
    _, quartic = source("rram-wan-2022")
    _, cubic = source("rram-wan-2022-cubic")
    middle = np.linspace(5e-6, 30e-6, 26)
    ratio = cubic.sigma_S(middle, 1.0) / quartic.sigma_S(middle, 1.0)
    assert np.all(np.abs(ratio - 1) < 0.30)
    assert abs(np.median(ratio) - 1) < 0.20


def test_stuck_cells_have_their_rates():
    noise, mechanism = source("stuck-at")
    middle = noise.device.low_S + 0.5 * noise.device.span_S
    drawn = mechanism.apply(torch.full((DRAWS,), middle), around(noise), noise.device)
    for level, rate in (
        (noise.device.low_S, mechanism.at_low.value),
        (noise.device.g_max.value, mechanism.at_high.value),
    ):
        found = float((drawn == torch.tensor(level)).double().mean())
        assert abs(found - rate) < 5 * math.sqrt(rate * (1 - rate) / DRAWS)


def test_relaxation_grows_with_the_logarithm_of_time():
    noise = load_noise("retention-cmo-2025", time_s=86400.0)
    mechanism = noise.sources[1]
    start = 60e-6
    drawn = mechanism.apply(torch.full((DRAWS,), start), around(noise), noise.device)
    log = math.log(86400.0)
    sigma = mechanism.spread_slope.value * log + mechanism.spread_at_1_s.value
    close_mean(drawn, float(torch.tensor(start)) + mechanism.mean_slope.value * log, sigma)
    close_sigma(drawn, sigma)
    unchanged = load_noise("retention-cmo-2025", time_s=1.0)
    assert float(mechanism.apply(torch.tensor([start]), around(unchanged), noise.device)[0]) == pytest.approx(start)


def test_drift_exponents_have_their_mean_and_spread():
    noise, mechanism = source("drift-pcm-2020", time_s=3600.0)
    start = torch.full((DRAWS,), 0.2 * noise.device.g_max.value)
    drifted = mechanism.apply(start, around(noise), noise.device)
    exponent = -(drifted / start).log() / math.log((3600.0 + 20.0) / 20.0)
    log = math.log(0.2)
    mean = min(max(0.0244 - 0.0155 * log, 0.049), 0.1)
    spread = min(max(-0.0059 - 0.0125 * log, 0.008), 0.045)
    close_mean(exponent, mean, spread)
    close_sigma(exponent, spread)


def test_telegraph_noise_shifts_its_share_of_cells_by_the_formula():
    _, mechanism = source("telegraph")
    conductance = 50e-6
    drawn = mechanism.apply(torch.full((DRAWS,), conductance), torch.Generator().manual_seed(2)) - conductance
    part = 0.0015 * conductance + 1.662e-7
    moved = drawn > 1e-9
    assert abs(float(moved.double().mean()) - 0.5) < 5 * 0.5 / math.sqrt(DRAWS)
    assert float(drawn[moved].mean()) == pytest.approx(conductance * part / (conductance - part), rel=1e-3)


def one_column(noise_name, rows=64, kelvin=300.0, encoding="offset", value=1.0):
    """A column of equal weights whose cells all hold their top level, on 1-bit inputs."""
    form = CrossbarFormat(
        rows=rows, cell_bits=2, dac_bits=1, weight_bits=2, input_bits=2, adc_bits=0, encoding=encoding
    )
    weight = torch.nn.Parameter(torch.full((1, rows), value))
    return CrossbarLinear(weight, None, form, noise=load_noise(noise_name), temperature_K=kelvin)


@pytest.mark.parametrize("kelvin", [300.0, 400.0])
def test_thermal_and_shot_noise_of_a_read(kelvin):
    layer = one_column("thermal-shot", kelvin=kelvin)
    rows, driven = 64, 40
    digits = torch.zeros(DRAWS, rows)
    digits[:, :driven] = 1
    sums = layer.noise.add_read_noise(torch.zeros(DRAWS, 1), digits, layer, 0, rows)[:, 0]
    device = layer.noise.device
    conductance = device.g_max.value  # weight 1 at 2 bits stores level 3 of 3
    volts, hertz = 0.2, 10e6
    current = math.sqrt(
        4 * 1.380649e-23 * kelvin * hertz * rows * conductance
        + 2 * 1.602176634e-19 * hertz * driven * conductance * volts
    )
    close_mean(sums, 0.0, current / (device.span_S / 3 * volts))
    close_sigma(sums, current / (device.span_S / 3 * volts))


def test_one_cell_at_full_drive_has_the_published_conductance_noise():
    layer = one_column("thermal-shot", rows=1)
    sums = layer.noise.add_read_noise(torch.zeros(DRAWS, 1), torch.ones(DRAWS, 1), layer, 0, 1)[:, 0]
    device = layer.noise.device
    g, volts = device.g_max.value, 0.2
    published = math.sqrt(g * 10e6 * (4 * 1.380649e-23 * 300 + 2 * 1.602176634e-19 * volts)) / volts
    close_sigma(sums * device.span_S / 3, published)


@pytest.mark.parametrize(("encoding", "cells"), [("offset", 1), ("differential", 2)])
def test_read_noise_of_a_column(encoding, cells):
    layer = one_column("read-1pct", encoding=encoding)
    digits = torch.zeros(DRAWS, 64)
    digits[:, :25] = 1
    sums = layer.noise.add_read_noise(torch.zeros(DRAWS, 1), digits, layer, 0, 64)[:, 0]
    close_sigma(sums, 0.01 * 3 * math.sqrt(25 * cells))


def test_folded_reads_have_the_variance_of_all_their_conversions():
    torch.manual_seed(0)
    form = CrossbarFormat(rows=16, adc_bits=0, dac_bits=2)
    weight = torch.nn.Parameter(torch.randn(3, 40))
    layer = CrossbarLinear(weight, None, form, noise=load_noise("read-1pct,thermal-shot"))
    x = torch.randn(1, 40).expand(20_000, 40).contiguous()
    with torch.no_grad():
        tile = layer(x)
        layer.fidelity = "weights"
        folded = layer(x)
    assert torch.allclose(tile.std(0), folded.std(0), rtol=5 / math.sqrt(2 * 20_000) * 1.5)
    assert torch.allclose(tile.mean(0), folded.mean(0), atol=float(5 * tile.std() / math.sqrt(20_000)))


def test_weight_error_has_its_share_of_full_scale():
    torch.manual_seed(0)
    form = CrossbarFormat(rows=1000, columns=4000, adc_bits=0)
    weight = torch.nn.Parameter(torch.rand(1000, 1000) - 0.5)
    exact = CrossbarLinear(weight, None, form)
    noisy = CrossbarLinear(weight, None, form, noise=load_noise("weight-2pct"))
    error = (noisy.effective - exact.effective).flatten()
    full_scale = float(exact.block_scale.max()) * 127
    close_mean(error, 0.0, 0.02 * full_scale)
    assert abs(float(error.double().std()) / (0.02 * full_scale) - 1) < 5 / math.sqrt(2 * DRAWS) + 1e-3


def test_an_instance_is_fixed_and_another_differs_while_reads_are_fresh():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(20, 50))
    x = torch.randn(4, 50)
    noise = load_noise("programming-2pct")
    first, again = (CrossbarLinear(weight, None, CrossbarFormat(), noise=noise, seed=5) for _ in range(2))
    assert torch.equal(first(x), again(x))
    again.program(6)
    assert not torch.equal(first(x), again(x))
    reading = CrossbarLinear(weight, None, CrossbarFormat(), noise=load_noise("read-1pct"), seed=5)
    assert not torch.equal(reading(x), reading(x))
    twin = CrossbarLinear(weight, None, CrossbarFormat(), noise=load_noise("read-1pct"), seed=5)
    reading.program(5)
    object.__delattr__(reading, "_read_generator")
    assert torch.equal(reading(x), twin(x))


def test_each_crossbar_takes_the_temperature_of_its_tile():
    weight = torch.nn.Parameter(torch.rand(64, 128) + 0.5)
    form = CrossbarFormat(rows=128, columns=128, encoding="differential", adc_bits=0)
    noise = load_noise("temperature-linear")
    layer = CrossbarLinear(weight, None, form, noise=noise, tiles=(3, 4), temperature_K={3: 300.0, 4: 340.0})
    ideal = CrossbarLinear(weight, None, form)
    per_tile = form.weights_per_row * -(-(64 // form.weights_per_row) // 2)
    ratio = layer.effective / ideal.effective
    assert torch.allclose(ratio[:per_tile], torch.ones(()), atol=1e-4)
    assert torch.allclose(ratio[per_tile:], torch.full((), 0.8), atol=1e-4)
    with pytest.raises(TierformError, match="temperature"):
        CrossbarLinear(weight, None, form, noise=noise, tiles=(3, 9), temperature_K={3: 300.0})


def nodal_transfer(conductance, r):
    """Exact currents per volt of a crossbar with wires: rows driven at column 0, columns sensed at the end."""
    rows, columns = conductance.shape
    wires = 1 / r
    count = rows * columns
    matrix = np.zeros((2 * count, 2 * count))

    def word(i, j):
        return i * columns + j

    def bit(i, j):
        return count + i * columns + j

    for i in range(rows):
        for j in range(columns):
            w, b, g = word(i, j), bit(i, j), conductance[i, j]
            matrix[w, w] += g
            matrix[b, b] += g
            matrix[w, b] -= g
            matrix[b, w] -= g
            matrix[w, w] += wires  # towards the driver (or the neighbour on that side)
            if j > 0:
                matrix[w, word(i, j - 1)] -= wires
                matrix[word(i, j - 1), w] -= wires
                matrix[word(i, j - 1), word(i, j - 1)] += wires
            matrix[b, b] += wires  # towards the sense amplifier
            if i < rows - 1:
                matrix[b, bit(i + 1, j)] -= wires
                matrix[bit(i + 1, j), b] -= wires
                matrix[bit(i + 1, j), bit(i + 1, j)] += wires
    drives = np.zeros((2 * count, rows))
    for i in range(rows):
        drives[word(i, 0), i] = wires
    volts = np.linalg.solve(matrix, drives)
    return np.stack([volts[bit(rows - 1, j)] * wires for j in range(columns)], axis=1)


@pytest.mark.parametrize(
    ("size", "strongest_S", "resistance", "share"),
    [(16, 40e-6, 0.2, 0.01), (16, 40e-6, 1.56, 0.01), (32, 166e-6, 1.56, 0.06)],
)
def test_wire_drops_against_exact_nodal_analysis(size, strongest_S, resistance, share):
    generator = np.random.default_rng(0)
    conductance = generator.uniform(1e-6, strongest_S, (size, size))
    exact = nodal_transfer(conductance, resistance)
    found = line_drops(torch.tensor(conductance[None]), resistance)[0].numpy()
    lost = 1 - exact.sum(0) / conductance.sum(0)
    mine = 1 - found.sum(0) / conductance.sum(0)
    assert lost.max() > 1e-3
    assert np.abs(mine - lost).max() < share * lost.max()


@pytest.mark.parametrize("name", library.names("noise"))
def test_every_noise_file_loads_with_its_evidence(name):
    noise = load_noise(name)
    assert all(line.source or line.note for line in noise.assumptions())
    for line in noise.assumptions():
        if line.source:
            library.citation(line.source)


def test_bad_noise_is_refused(tmp_path):
    with pytest.raises(TierformError, match="rram-wan-2022"):
        load_noise("rram-wan-202")
    with pytest.raises(TierformError, match="time"):
        load_noise("read-1pct", time_s=0.0)
    file = tmp_path / "mine.yaml"
    file.write_text("schema: tierform.noise/1\ndescription: mine\nsources:\n  - {type: read-gaussian, sigm: 0.1}\n")
    with pytest.raises(TierformError, match="sigm"):
        load_noise(str(file))
