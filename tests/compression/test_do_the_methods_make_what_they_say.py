"""Are weights on their grids, densities met, outputs kept better than by rounding, and formats priced right?"""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from small_files import small_decoder  # noqa: E402

from tierform.compression import obs  # noqa: E402
from tierform.compression.compress import Recipe, compress_model  # noqa: E402
from tierform.compression.formats import Density, WeightFormat  # noqa: E402
from tierform.compression.methods import METHODS  # noqa: E402
from tierform.compression.plan import MatrixPlan  # noqa: E402
from tierform.compression.pruning import magnitude_mask, wanda_mask  # noqa: E402
from tierform.compression.rounding import limits, make_grid  # noqa: E402
from tierform.compression.sites import anatomy  # noqa: E402
from tierform.compression.transforms import Transform, hadamard, output_error  # noqa: E402
from tierform.compression.walk import begin  # noqa: E402
from tierform.errors import TierformError  # noqa: E402

FORMATS = ["int2-g16z", "int3-g32", "int4-g16z", "int4", "int8-g64", "nf4-16"]


def correlated(inputs: int, tokens: int = 400, seed: int = 0) -> torch.Tensor:
    """Inputs with unequal, correlated channels, as activations are."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(inputs, inputs, generator=generator) * torch.exp(torch.randn(inputs, generator=generator))
    return torch.randn(tokens, inputs, generator=generator) @ mix


@given(form=st.sampled_from(FORMATS), rows=st.integers(1, 6), columns=st.integers(1, 70), seed=st.integers(0, 50))
def test_are_rounded_weights_on_the_grid_and_near(form, rows, columns, seed):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    wanted = WeightFormat.parse(form)
    grid = make_grid(matrix, wanted, search=False)
    codes = grid.nearest(matrix)
    if wanted.kind == "int":
        low, high = limits(wanted)
        assert codes.min() >= low and codes.max() <= high and torch.equal(codes, codes.round())
        scale, _ = grid.spread()
        # Half a step, a little more where the fp16 scale or the rounded zero point cuts the end of the range.
        assert bool(((grid.values(codes) - matrix).abs() <= 1.01 * scale + 1e-6).all())
    assert torch.equal(grid.nearest(grid.values(codes)), codes)


def test_does_int4_with_a_zero_point_round_as_by_hand():
    # Range -1 to 2: scale 3 / 15 = 0.2 (0.19995 in fp16), zero point 5; 0.33 becomes code 7, value 2 x 0.2.
    matrix = torch.tensor([[-1.0, 2.0, 0.33, 0.0]])
    grid = make_grid(matrix, WeightFormat.parse("int4z"), search=False)
    assert grid.nearest(matrix).tolist() == [[0, 15, 7, 5]]
    assert grid.values(grid.nearest(matrix))[0, 2] == pytest.approx(0.4, rel=1e-3)


def plain_obs(matrix, hessian, grid):
    """GPTQ without blocks or factors: round a column, spread its error by the inverse of what is left."""
    work, result = matrix.double().clone(), torch.zeros_like(matrix)
    damped = hessian.double() + torch.eye(len(hessian), dtype=torch.float64) * 0.01 * float(hessian.diagonal().mean())
    for k in range(matrix.shape[1]):
        inverse = torch.linalg.inv(damped[k:, k:])
        result[:, k] = grid.column(work[:, k].float(), k)
        error = (work[:, k] - result[:, k].double()) / inverse[0, 0]
        work[:, k:] -= error[:, None] * inverse[0]
    return result


def test_does_the_fast_loop_give_what_the_plain_one_gives():
    inputs = correlated(40)
    hessian = inputs.T @ inputs / len(inputs)
    matrix = torch.randn(5, 40, generator=torch.Generator().manual_seed(2))
    grid = make_grid(matrix, WeightFormat.parse("int4-g8z"))
    found, codes = obs.solve(matrix, hessian, grid, in_order=True)
    plain = plain_obs(matrix, hessian, grid)
    assert float((found != plain).float().mean()) < 0.02  # a tie may fall the other way in single precision
    assert torch.equal(grid.values(codes), found)


def test_does_the_order_of_blocks_not_change_the_result(monkeypatch):
    inputs = correlated(48)
    hessian = inputs.T @ inputs / len(inputs)
    matrix = torch.randn(4, 48, generator=torch.Generator().manual_seed(2))
    grid = make_grid(matrix, WeightFormat.parse("int4-g16"))
    whole, _ = obs.solve(matrix, hessian, grid)
    monkeypatch.setattr(obs, "BLOCK", 7)
    parts, _ = obs.solve(matrix, hessian, grid)
    assert float((whole != parts).float().mean()) < 0.02


@given(seed=st.integers(0, 30), form=st.sampled_from(["int3-g16z", "int4-g16"]))
@settings(max_examples=15)
def test_does_gptq_keep_outputs_better_than_rounding(seed, form):
    inputs = correlated(48, seed=seed)
    hessian = inputs.T @ inputs / len(inputs)
    matrix = torch.randn(24, 48, generator=torch.Generator().manual_seed(seed + 1000))
    grid = make_grid(matrix, WeightFormat.parse(form), hessian.diagonal())
    solved, _ = obs.solve(matrix, hessian, grid)
    nearest = grid.values(grid.nearest(matrix))
    assert output_error(solved - matrix, hessian) < output_error(nearest - matrix, hessian)


@given(share=st.sampled_from([0.25, 0.5, 0.75]), seed=st.integers(0, 20))
@settings(max_examples=12)
def test_does_sparsegpt_meet_its_density_and_mend_what_its_mask_breaks(share, seed):
    inputs = correlated(64, seed=seed)
    hessian = inputs.T @ inputs / len(inputs)
    matrix = torch.randn(32, 64, generator=torch.Generator().manual_seed(seed + 1))
    solved, _ = obs.solve(matrix, hessian, density=Density(share))
    assert float((solved != 0).float().mean()) == pytest.approx(share, abs=1e-3)
    masked = matrix * (solved != 0)
    assert output_error(solved - matrix, hessian) < output_error(masked - matrix, hessian)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_does_two_of_four_keep_two_of_every_four(decoder, windows, method):
    compress_model(decoder, windows, Recipe(method, density=Density.parse("2:4")))
    for site in anatomy(decoder).sites:
        kept = (site.matrix != 0).reshape(site.shape[0], -1, 4).sum(-1)
        assert int(kept.max()) == 2 and float((kept == 2).float().mean()) > 0.99


def test_do_masks_choose_as_by_hand():
    matrix = torch.tensor([[4.0, 1.0, -3.0, 2.0], [0.1, 0.2, 0.3, 0.4]])
    assert magnitude_mask(matrix, Density(0.5)).tolist() == [[True, True, True, True], [False] * 4]
    # Scores of output 0 with norms 1, 10, 1, 1: 4, 10, 3, 2; of output 1: 0.1, 2, 0.3, 0.4.
    mask = wanda_mask(matrix, torch.tensor([1.0, 10.0, 1.0, 1.0]), Density(0.5))
    assert mask.tolist() == [[True, True, False, False], [False, True, False, True]]


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
def test_do_wanda_masks_equal_torchaos(pattern):
    """torchao takes the least weights of the whole matrix, and its observer keeps the sum of squares by channel."""
    torchao = pytest.importorskip("torchao.sparsity")
    inputs, density = correlated(48), Density.parse(pattern)
    holder = torch.nn.Sequential(torch.nn.Linear(48, 24))
    block = {"semi_structured_block_size": 4} if density.of else {}
    sparsifier = torchao.WandaSparsifier(sparsity_level=0.5, **block)
    sparsifier.prepare(holder, [{"tensor_fqn": "0.weight"}])
    holder(inputs)
    weight = holder[0].parametrizations.weight.original.detach().clone()
    sparsifier.step()
    mask = holder[0].parametrizations.weight[0].mask.bool()
    assert torch.equal(wanda_mask(weight, inputs.square().sum(0), density, over="matrix"), mask)


@given(inputs=st.sampled_from([6, 16, 24, 64]), seed=st.integers(0, 9))
def test_does_a_rotation_keep_every_length(inputs, seed):
    rotation = hadamard(inputs, seed).rotation
    assert torch.allclose(rotation @ rotation.T, torch.eye(inputs), atol=1e-5)
    spread = torch.eye(inputs)[0] @ rotation  # one channel's outlier is spread over a block
    assert spread.abs().max() == pytest.approx((inputs & -inputs) ** -0.5)


@given(seed=st.integers(0, 20))
def test_do_transforms_keep_the_product(seed):
    generator = torch.Generator().manual_seed(seed)
    matrix, x = torch.randn(5, 8, generator=generator), torch.randn(3, 8, generator=generator)
    hessian = x.T @ x
    for transform in (Transform(scale=torch.rand(8, generator=generator) + 0.1), hadamard(8, seed)):
        assert torch.allclose(transform.back(transform.on_weights(matrix)), matrix, atol=1e-5)
        error = torch.randn(5, 8, generator=generator)  # an error of W T costs on T's Hessian what it costs on X's
        assert output_error(error, transform.on_hessian(hessian)) == pytest.approx(
            output_error(transform.back(error), hessian), rel=1e-3
        )


def test_does_each_quantizer_beat_rounding_on_a_layer_with_outliers(decoder, windows):
    """Output error of the first layer's matrices at 3 bits, by method."""
    walk = begin(decoder, windows)
    found = walk.statistics()
    from tierform.compression.methods import Wanted

    wanted = Wanted(WeightFormat.parse("int3-g16z"))
    errors = {}
    for method in ("rtn", "gptq", "awq", "hadamard", "hadamard-gptq"):
        errors[method] = sum(
            output_error(new - site.matrix, one.hessian)
            for one in found
            for site, new in zip(one.sites, METHODS[method].run(one, wanted), strict=True)
        )
    assert errors["gptq"] < 0.7 * errors["rtn"]
    assert errors["awq"] < 0.95 * errors["rtn"]
    assert errors["hadamard-gptq"] < 0.7 * errors["hadamard"]


def test_does_folding_scales_into_a_normalization_change_nothing(decoder, windows):
    # At 8 bits the function stays; the norm before q, k, v was changed, and no other.
    before = copy.deepcopy(decoder)
    compress_model(decoder, windows, Recipe("smoothquant", WeightFormat.parse("int8")))
    with torch.no_grad():
        a, b = before(input_ids=windows[:1]).logits, decoder(input_ids=windows[:1]).logits
    assert float((a - b).norm() / a.norm()) < 0.02
    changed = [
        name
        for (name, one), two in zip(before.named_parameters(), decoder.parameters(), strict=True)
        if "norm" in name and not torch.equal(one, two)
    ]
    assert len(changed) == 6 and not any(name.startswith("model.norm") for name in changed)


def test_do_matrices_that_read_one_input_share_its_statistics(decoder, windows):
    walk = begin(decoder, windows)
    found = walk.statistics()
    readers = [sorted(site.name.rpartition(".")[2] for site in one.sites) for one in found]
    assert readers == [["k_proj", "q_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]
    caught = []
    handle = decoder.model.layers[0].self_attn.q_proj.register_forward_pre_hook(lambda _m, x: caught.append(x[0]))
    with torch.no_grad():
        decoder(input_ids=windows)
    handle.remove()
    x = caught[0].reshape(-1, 64)
    assert torch.allclose(found[0].hessian, x.T @ x / len(x), atol=1e-4)
    assert found[0].tokens == windows.numel()


def test_does_walking_without_a_change_give_the_models_own_states(decoder, windows):
    walk = begin(decoder, windows)
    for _ in walk:
        pass
    with torch.no_grad():
        wanted = decoder.model(input_ids=windows).last_hidden_state
        found = decoder.model.norm(torch.cat(walk.states))
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_are_encoders_walked_too(kind):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if kind == "bert":
        model = transformers.BertModel(transformers.BertConfig(vocab_size=50, **sizes)).eval()
        given_, key = torch.randint(0, 50, (3, 16)), "input_ids"
    else:
        model = transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=8, **sizes)).eval()
        given_, key = torch.randn(3, 3, 16, 16), "pixel_values"
    with torch.no_grad():
        before = model(**{key: given_}).last_hidden_state
        plan = compress_model(model, given_, Recipe("gptq", WeightFormat.parse("int8-g32z")), key=key)
        after = model(**{key: given_}).last_hidden_state
    assert len(plan.matrices) == 12
    assert 0 < float((after - before).norm() / before.norm()) < 0.03


def test_do_bits_include_scales_zero_points_and_masks():
    # int4-g64z: 4 + (16 + 4) / 64.  2:4 of 4 bits: half of them, 2 bits of index for each of those, and 16 / 64.
    assert WeightFormat.parse("int4-g64z").bits_per_weight(640) == 4.3125
    assert WeightFormat.parse("int8").bits_per_weight(100) == 8.16
    assert MatrixPlan((8, 64), WeightFormat.parse("int4-g64"), Density.parse("2:4")).bits_per_weight == 3.25
    assert MatrixPlan((8, 64), WeightFormat.parse("float"), Density.parse("0.5")).bits_per_weight == 9.0


@pytest.mark.parametrize(
    ("method", "form", "density", "says"),
    [
        ("gptqq", "int4", "1", "did you mean 'gptq"),
        ("wanda", "int4", "0.5", "rounds none"),
        ("gptq", "int4", "0.5", "takes none away"),
        ("gptq", "float", "1", "asked for nothing"),
        ("smoothquant", "nf4-64", "1", "makes integers"),
    ],
)
def test_is_a_method_that_cannot_make_it_refused_before_anything_changes(decoder, windows, method, form, density, says):
    before = copy.deepcopy(decoder.state_dict())
    with pytest.raises(TierformError, match=says):
        compress_model(decoder, windows, Recipe(method, WeightFormat.parse(form), Density.parse(density)))
    assert all(torch.equal(one, before[name]) for name, one in decoder.state_dict().items())


@pytest.mark.parametrize("text", ["int9", "int4-g4", "4bit", "int", "nf4"])
def test_are_unknown_formats_refused_with_an_example(text):
    with pytest.raises(TierformError, match=r"int4-g64z|8 to 4096"):
        WeightFormat.parse(text)


@pytest.mark.parametrize("text", ["0", "1.5", "5:4", "half", "0:4"])
def test_are_unknown_densities_refused(text):
    with pytest.raises(TierformError, match="a share kept"):
        Density.parse(text)


def test_are_weights_that_are_not_finite_refused(windows):
    model = small_decoder()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(TierformError, match=r"layers\.1\.mlp\.up_proj"):
        compress_model(model, windows, Recipe("rtn", WeightFormat.parse("int4-g16")))
