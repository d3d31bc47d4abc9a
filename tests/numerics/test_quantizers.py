"""Do the quantizers round as their formats say, share scales as told, and pass gradients straight through?"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from tierform.errors import TierformError  # noqa: E402
from tierform.numerics.formats import BitPlan, Quantizer  # noqa: E402
from tierform.numerics.quantize import NF4, fake_quantize, quantize_integers, quantize_model  # noqa: E402


@given(
    bits=st.integers(2, 8),
    granularity=st.sampled_from(["tensor", "channel", "group", "crossbar"]),
    symmetric=st.booleans(),
    rows=st.integers(1, 9),
    columns=st.integers(1, 40),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_integers_reproduce_the_values_within_half_a_step(bits, granularity, symmetric, rows, columns, seed):
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    quantizer = Quantizer(f"int{bits}", granularity, symmetric=symmetric, group=7, block=(8, 4))
    integers, scale, zero = quantize_integers(values, quantizer)
    least, greatest = quantizer.integer_range
    assert int(integers.min()) >= least and int(integers.max()) <= greatest
    back = (integers - zero) * scale
    assert torch.all((back - values).abs() <= 0.5 * scale * (1 + 1e-4) + (0 if symmetric else 0.5) * scale)
    if symmetric:
        assert torch.allclose(back, fake_quantize(values, quantizer), atol=1e-6)


def test_one_scale_per_crossbar():
    values = torch.randn(10, 20)
    _, scale, _ = quantize_integers(values, Quantizer("int8", "crossbar", block=(8, 4)))
    for top in range(0, 10, 4):
        for left in range(0, 20, 8):
            part = values[top : top + 4, left : left + 8]
            expected = part.abs().max() / 127
            assert torch.allclose(scale[top : top + 4, left : left + 8], expected.expand_as(part))


def test_nf4_and_fp8_take_their_nearest_value():
    values = torch.linspace(-2, 2, 401)[None]
    found = fake_quantize(values, Quantizer("nf4")) / 2
    table = torch.tensor(NF4)
    nearest = table[(found.T - table).abs().argmin(1)]
    assert torch.allclose(nearest, found[0], atol=1e-6)
    distance = (values.T / 2 - table).abs().min(1).values
    assert torch.allclose((found[0] - values[0] / 2).abs(), distance, atol=1e-6)
    for kind, mantissa in (("fp8-e4m3", 3), ("fp8-e5m2", 2)):
        big = torch.linspace(0.5, 1.0, 100)[None]
        error = (fake_quantize(big, Quantizer(kind)) - big).abs() / big
        assert 0 < float(error.max()) <= 2.0 ** -(mantissa + 1) + 1e-6


def test_an_outlier_is_clipped_by_percentile_and_by_least_error():
    values = torch.cat([torch.randn(4000, generator=torch.Generator().manual_seed(0)), torch.tensor([60.0])])[None]
    by_range = (fake_quantize(values, Quantizer("int4")) - values)[0, :-1].square().mean()
    for rule in ("percentile", "mse"):
        clipped = fake_quantize(values, Quantizer("int4", rule=rule))
        assert (clipped - values)[0, :-1].square().mean() < 0.7 * by_range
    whole = [(fake_quantize(values, Quantizer("int4", rule=r)) - values).square().mean() for r in ("range", "mse")]
    assert whole[1] <= whole[0]


def test_gradients_pass_inside_the_range_only():
    values = torch.cat([torch.randn(999), torch.tensor([50.0])])[None].requires_grad_()
    fake_quantize(values, Quantizer("int8", rule="percentile", percentile=99.0)).sum().backward()
    assert float(values.grad[0, -1]) == 0
    assert float(values.grad.sum()) > 950


def test_more_bits_are_closer():
    values = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    errors = [
        float((fake_quantize(values, Quantizer(f"int{b}", "crossbar", block=(16, 16))) - values).norm())
        for b in range(2, 9)
    ]
    assert errors == sorted(errors, reverse=True)


def test_plans_read_as_they_are_written():
    assert BitPlan.parse("M8F4") == BitPlan(8, 4, 8)
    assert BitPlan.parse("W4A8") == BitPlan(4, 4, 4, 8)
    assert BitPlan.parse("M8F4A6KV8").kv_cache == 8
    assert BitPlan.parse(3).weight_bits("anything", "ffn") == 3
    plan = BitPlan.parse("8").with_pattern("*.layer.0.*", 2)
    assert plan.weight_bits("bert.layer.0.ffn", "ffn") == 2
    assert plan.weight_bits("bert.layer.1.ffn", "ffn") == 8
    for text in ("M8", "W9", "eight", "1"):
        with pytest.raises(TierformError):
            BitPlan.parse(text)


def test_a_digital_model_is_rounded_in_every_static_layer():
    model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.GELU(), torch.nn.Linear(16, 4))
    x = torch.randn(5, 16)
    rounded = quantize_model(model, Quantizer("int8", "channel"), activations=Quantizer("int8"))
    assert 0 < float((rounded(x) - model(x)).abs().max()) < 0.05
    coarse = quantize_model(model, Quantizer("int2", "channel"))
    assert float((coarse(x) - model(x)).norm()) > float((rounded(x) - model(x)).norm())
    with pytest.raises(TierformError, match="no linear layer"):
        quantize_model(torch.nn.Sequential(torch.nn.GELU()), Quantizer())


@pytest.mark.parametrize(
    "options",
    [
        {"format": "int9"},
        {"granularity": "chanel"},
        {"rule": "max"},
        {"percentile": 10},
        {"format": "nf4", "symmetric": False},
        {"group": 0},
    ],
)
def test_bad_quantizers_are_refused(options):
    with pytest.raises(TierformError):
        Quantizer(**options)
