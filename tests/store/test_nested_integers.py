"""Are nested integers good at every depth, laid out as said, multiplied right, and spent to the budget?"""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.errors import TierformError
from tierform.store.channel_rule import allocate, plane_worth
from tierform.store.nested import PLANES, NestedMatrix, from_planes, nest, to_planes


def weights(outputs: int, inputs: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    size = np.exp(rng.standard_normal((1, inputs)))
    return (rng.standard_normal((outputs, inputs)) * 0.05 * size).astype(np.float32)


def test_do_missing_planes_stand_at_their_midpoint():
    # Code 0b10110101 read at 3 planes: 0b101 is 160, and 31 / 2 for the five missing bits; (175.5 - 100) / 2.
    one = NestedMatrix(
        np.array([[0b10110101]], np.uint8), np.array([[0.5]], np.float32), np.array([[100.0]], np.float32), 64
    )
    assert one.values(3)[0, 0] == (160 + 15.5 - 100) * 0.5
    assert one.values(8)[0, 0] == (0b10110101 - 100) * 0.5
    assert one.values(0)[0, 0] == 0


@given(outputs=st.integers(1, 9), inputs=st.integers(1, 150), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_is_every_weight_within_half_a_step_of_the_last_plane(outputs, inputs, seed):
    exact = weights(outputs, inputs, seed)
    found = nest(exact, 64)
    index = np.arange(inputs) // 64
    step = found.scale.T[:, index]
    for planes in range(4, PLANES + 1):
        # Half of what a step at this depth spans, and of the last code where the range was shifted.
        bound = step * (2 ** (PLANES - planes) / 2 + 13)
        assert bool((np.abs(found.values(planes) - exact) <= bound).all())
    assert bool((np.abs(found.values() - exact) <= step * 13).all())


def test_are_the_first_planes_as_good_as_separate_rounding():
    """Root mean square error of 4, 5 and 6 planes against integers of as many bits rounded for themselves."""
    exact = weights(128, 512, 3)
    found = nest(exact, 64)
    grouped = exact.reshape(128, -1, 64)
    low, high = grouped.min(-1, keepdims=True), grouped.max(-1, keepdims=True)
    for planes, share in ((4, 1.12), (5, 1.12), (6, 1.12)):
        step = (high - low) / (2**planes - 1)
        alone = np.rint((grouped - low) / step) * step + low
        error = np.square(found.values(planes) - exact).mean()
        assert error <= share**2 * np.square(alone - grouped).mean()


def test_are_channel_errors_what_they_say():
    exact = weights(20, 70)
    found = nest(exact, 32)
    plain = np.stack([np.square(found.values(planes) - exact).sum(0) for planes in range(PLANES + 1)], 1)
    np.testing.assert_allclose(found.channel_errors(exact), plain, rtol=1e-4, atol=1e-9)


def test_do_planes_lie_as_the_format_says():
    """Output 0, input 0 has code 128: only its first plane is set, bit 0 of byte 0 of the first row."""
    codes = np.zeros((512, 8), np.uint8)
    codes[0, 0] = 128
    codes[65, 1] = 1  # a row has 64 bytes: output 65 is bit 1 of byte 1, in the last plane
    ones = np.ones((1, 512), np.float32)
    planes = to_planes(NestedMatrix(codes, ones, ones, 8))
    content = planes.words.view(np.uint8)
    assert content.shape == (1, 8, 8, 64)
    assert content[0, 0, 0, 0] == 1 and content[0, 7, 1, 1] == 2 and np.count_nonzero(content) == 2


@given(outputs=st.integers(1, 600), inputs=st.integers(1, 80), seed=st.integers(0, 9))
@settings(max_examples=20)
def test_do_planes_come_back_as_codes(outputs, inputs, seed):
    found = nest(weights(outputs, inputs, seed), 16)
    back = from_planes(to_planes(found))
    assert np.array_equal(back.codes, found.codes) and np.array_equal(back.scale, found.scale)


@given(outputs=st.sampled_from([1, 64, 200, 256, 320, 577]), inputs=st.integers(1, 150), seed=st.integers(0, 50))
@settings(max_examples=30)
def test_is_the_product_from_planes_that_of_the_values(outputs, inputs, seed):
    from tierform.store.matvec import multiply

    rng = np.random.default_rng(seed)
    found = nest(weights(outputs, inputs, seed), 64)
    x = rng.standard_normal(inputs).astype(np.float32)
    planes = rng.integers(0, 9, inputs).astype(np.uint8)
    values = found.values(planes).astype(np.float64)
    # Inputs are rounded to whole numbers of which 64 sum to 32,700: each may be wrong by half of one.
    step = np.repeat(
        [np.abs(x[at : at + 64][planes[at : at + 64] > 0]).sum() / 32700 for at in range(0, inputs, 64)], 64
    )
    bound = np.abs(values) @ (step[:inputs] / 2)
    size = np.abs(values) @ np.abs(x) + 255 * np.abs(found.scale).max() * np.abs(x).sum()
    matrix = to_planes(found)
    alone = multiply(matrix, x, planes)
    assert bool((np.abs(alone - values @ x) <= bound + 1e-6 * size + 1e-9).all())
    together = multiply(matrix, np.stack([2 * x, x, -x, x[::-1]]), planes)
    assert np.array_equal(together[1], alone) and np.array_equal(together[2], -alone)


def test_does_a_processor_without_byte_shuffles_find_the_same():
    from tierform.store.matvec import look_by_shuffles, look_plainly

    rng = np.random.default_rng(0)
    indices = (rng.integers(0, 2**63, 64).astype(np.uint64)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    tables = rng.integers(0, 256, (2, 2, 2, 16)).astype(np.uint8)
    tables[:, :, 1] = tables[:, :, 0]  # each table stands twice
    start = rng.integers(-9, 9, 300).astype(np.int16)
    for quads in (1, 2):
        plain, fast = start.copy(), start.copy()
        look_plainly(quads, indices, tables.reshape(-1), 0, plain, 5)
        look_by_shuffles(quads, indices, tables.reshape(-1), 0, fast, 5)
        assert np.array_equal(plain, fast) and not np.array_equal(plain, start)


@pytest.mark.parametrize(("outputs", "parts"), [(1200, 2), (1100, 2), (1600, 3), (300, 2)])
def test_do_threads_shares_make_the_whole_product(outputs, parts):
    pytest.importorskip("torch")
    from tierform.store.channel_decoding import shared
    from tierform.store.matvec import multiply

    found = nest(weights(outputs, 70), 64)
    x = np.random.default_rng(0).standard_normal(70).astype(np.float32)
    depth = np.full(70, 5, np.uint8)
    cut = shared(to_planes(found), parts)
    assert len(cut) == (1 if outputs == 300 else parts)
    y = np.concatenate([multiply(part, x, depth) for part in cut])
    np.testing.assert_allclose(y, multiply(to_planes(found), x, depth), rtol=1e-6)
    np.testing.assert_allclose(y, found.values(5) @ x, rtol=1e-3, atol=2e-3)  # inputs are rounded, see above


def plain_rule(importance, errors, budget):
    """Take the best slope of any channel's convex hull, again and again."""
    depth = np.zeros(len(importance), int)
    while budget > 0:
        best, place, step = -1.0, -1, 0
        for k, x in enumerate(importance):
            for more in range(1, PLANES - depth[k] + 1):
                slope = x * (errors[k, depth[k]] - errors[k, depth[k] + more]) / more
                if slope > best * (1 + 1e-9):
                    best, place, step = slope, k, more
        step = min(step, budget)
        depth[place] += step
        budget -= step
    return depth


@given(seed=st.integers(0, 60), average=st.sampled_from([1.0, 2.5, 3.0, 4.0, 6.0]))
@settings(max_examples=25)
def test_does_the_rule_spend_its_budget_exactly_and_nearly_as_well_as_the_plain_one(seed, average):
    rng = np.random.default_rng(seed)
    exact = weights(24, 30, seed)
    errors = nest(exact, 8).channel_errors(exact)
    importance = np.square(rng.standard_normal((3, 30)) * np.exp(rng.standard_normal(30))).astype(np.float32)
    found = allocate(importance, plane_worth(errors), average)
    assert found.sum(1).tolist() == [round(30 * average)] * 3
    for token in range(3):
        plain = plain_rule(importance[token], errors, round(30 * average))
        cost = [float((importance[token] * errors[np.arange(30), depth]).sum()) for depth in (found[token], plain)]
        assert cost[0] <= 1.06 * cost[1]  # worth is compared in steps of 1/32 of an octave


def test_do_channels_that_share_a_burst_share_a_depth():
    exact = weights(24, 64)
    worth = plane_worth(nest(exact, 16).channel_errors(exact))
    found = allocate(np.random.default_rng(0).random((2, 64)).astype(np.float32), worth, 3.0, together=16)
    assert bool((found.reshape(2, 4, 16) == found.reshape(2, 4, 16)[..., :1]).all())
    assert found.sum(1).tolist() == [192, 192]


def test_is_more_never_worse():
    exact = weights(32, 64)
    errors = nest(exact, 64).channel_errors(exact)
    importance = np.random.default_rng(1).random((1, 64)).astype(np.float32)
    costs = []
    for average in (1, 2, 3, 4, 5, 6, 7, 8):
        depth = allocate(importance, plane_worth(errors), average)[0]
        costs.append(float((importance[0] * errors[np.arange(64), depth]).sum()))
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("bad", [np.full((2, 9), np.nan, np.float32), np.zeros(3, np.float32)])
def test_are_matrices_that_cannot_be_nested_refused(bad):
    with pytest.raises(TierformError):
        nest(bad)


@pytest.fixture
def small_model(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=80,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=True,
        max_position_embeddings=64,
    )
    folder = tmp_path / "small"
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_does_a_model_decode_from_its_planes_as_from_its_values(tmp_path, small_model):
    import torch
    import transformers

    from tierform.store import Store
    from tierform.store.channel_decoding import greedy, open_plane_model
    from tierform.store.channel_file import pack_channels, read_all

    path = tmp_path / "small.tfs"
    pack_channels(small_model, path, group=32)
    reference = transformers.AutoModelForCausalLM.from_pretrained(small_model).eval()
    with Store(path) as store:
        for name, matrix in read_all(store).items():
            values = torch.from_numpy(from_planes(matrix.planes).values())
            assert float((values - reference.get_parameter(name)).abs().max()) < 2e-3
            with torch.no_grad():
                reference.get_parameter(name).copy_(values)
        assert torch.equal(store.torch("model.norm.weight"), reference.model.norm.weight)  # exact
    opened = open_plane_model(path, threads=2)
    opened.at(8, dynamic=False)
    ids = [3, 7, 11]
    with torch.no_grad():
        logits = opened.model(input_ids=torch.tensor([ids])).logits
        wanted = reference(input_ids=torch.tensor([ids])).logits
        assert torch.allclose(logits, wanted, atol=2e-3 * float(wanted.abs().max()))  # inputs are rounded
    assert greedy(opened.model, ids, 8)[0] == greedy(reference, ids, 8)[0]
    reads = opened.at(3.0)
    greedy(opened.model, ids, 4)
    # of two layers the query, key and value, the output, gate and up, and down: four products for 3 + 3 tokens
    assert reads.products == 2 * 4 * 6
    assert reads.planes_B / reads.whole_B == pytest.approx(3 / 8, abs=0.01)
    with pytest.raises(TierformError, match="whole number"):
        opened.at(2.5, dynamic=False)


def test_do_matrices_of_one_input_make_what_each_makes_alone():
    import torch

    from tierform.store.channel_decoding import Depth, PlaneProducts, joined
    from tierform.store.channel_file import ChannelMatrix
    from tierform.store.channel_rule import plane_worth

    random = np.random.default_rng(5)
    exact = [random.standard_normal((outputs, 96)).astype(np.float32) for outputs in (70, 33, 200)]
    nested = [nest(one, 32) for one in exact]
    matrices = [
        ChannelMatrix(to_planes(one), plane_worth(one.channel_errors(whole)))
        for one, whole in zip(nested, exact, strict=True)
    ]
    given = torch.from_numpy(random.standard_normal((3, 96)).astype(np.float32))
    depth = Depth(8, dynamic=False)
    together = PlaneProducts(matrices, depth, None, 1)
    for number, one in enumerate(matrices):
        alone = PlaneProducts([one], depth, None, 1)
        assert torch.allclose(together.of(given, number), alone.of(given, 0), rtol=1e-5, atol=1e-5)
    assert depth.reads.products == 1 + 3
    assert together.of(given, 0).shape == (3, 70) and depth.reads.products == 5  # all had taken theirs
    changed = given * 2
    assert torch.allclose(together.of(changed, 1), 2 * together.of(given, 1), rtol=1e-5, atol=1e-4)
    assert np.allclose(joined(matrices).worth, sum(one.worth for one in matrices))


def test_is_a_damaged_list_of_matrices_refused(tmp_path, small_model):
    from tierform.store import Store, pack_tensors
    from tierform.store.channel_file import FILE_NAME, SCHEMA, description, read_all

    for content, says in (
        (b"{", "damaged"),
        (json.dumps({"schema": SCHEMA, "group": 64, "matrices": {"a": [1, 2]}}).encode(), "damaged"),
    ):
        path = tmp_path / "bad.tfs"
        pack_tensors({"a": np.zeros(3, np.float32)}, path, attachments={FILE_NAME: content})
        with Store(path) as store, pytest.raises(TierformError, match=says):
            description(store)
    path = tmp_path / "plain.tfs"
    pack_tensors({"a": np.zeros(3, np.float32)}, path)
    with Store(path) as store, pytest.raises(TierformError, match="tierform store nest"):
        read_all(store)


def test_is_a_channel_read_by_the_token_better_than_all_alike(small_model):
    """Relative error of a small model's outputs at equal planes: dynamic, static, uniform; and a batch in between."""
    import torch
    import transformers

    from tierform.store.channel_model import ChannelModel, Reading

    model = transformers.AutoModelForCausalLM.from_pretrained(small_model).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.copy_(torch.exp(torch.randn_like(parameter)))
    ids = torch.randint(0, 80, (4, 16), generator=torch.Generator().manual_seed(0))
    channels = ChannelModel(model, 32)
    channels.calibrate(lambda: model(input_ids=ids))
    with torch.no_grad():
        wanted = model(input_ids=ids).logits
        errors = {}
        for how in (
            Reading("uniform", 3),
            Reading("static", 3),
            Reading("dynamic", 3),
            Reading("dynamic", 3, batch=4),
            Reading("dynamic", 3, together=16),
        ):
            with channels.reading(how):
                errors[how.rule, how.together, how.batch] = float((model(input_ids=ids).logits - wanted).norm())
        assert torch.equal(model(input_ids=ids).logits, wanted)  # nothing is left behind
    dynamic = errors["dynamic", 1, 1]
    assert dynamic < errors["static", 1, 1] < errors["uniform", 1, 1]
    assert dynamic < errors["dynamic", 1, 4] and dynamic < errors["dynamic", 16, 1]


def test_is_a_shared_reading_better_than_an_equal_one(small_model) -> None:
    """Planes shared over the matrices by how much their outputs matter: less error of the logits at equal planes."""
    import torch
    import transformers

    from tierform.store.channel_model import ChannelModel, Reading

    model = transformers.AutoModelForCausalLM.from_pretrained(small_model).eval()
    ids = torch.randint(0, 80, (4, 16), generator=torch.Generator().manual_seed(0))
    channels = ChannelModel(model, 32)
    with pytest.raises(TierformError, match="calibration"), channels.reading(Reading("dynamic", 3, shared=True)):
        pass
    with pytest.raises(TierformError, match="uniform"), channels.reading(Reading("uniform", 3, shared=True)):
        pass
    with torch.no_grad():
        wanted = model(input_ids=ids).logits
    signs = torch.randint(0, 2, wanted.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    channels.weigh(lambda _: (model(input_ids=ids).logits * signs).sum())
    shared = Reading("dynamic", 3, shared=True)
    weights = [one.nested.codes.size for one in channels.sites]
    assert np.dot(channels.averages(shared), weights) <= 3 * sum(weights)
    errors = {}
    with torch.no_grad():
        for how in (Reading("dynamic", 3), shared):
            with channels.reading(how):
                errors[how.shared] = float((model(input_ids=ids).logits - wanted).norm())
    assert errors[True] < errors[False]
