"""Does the KV cache give back what was appended, at any precision, and does it shrink what can shrink?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.errors import TierformError
from tierform.store.kvcache import PlaneKVCache


def bf16(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def as_float(codes: np.ndarray) -> np.ndarray:
    return (codes.astype(np.uint32) << 16).view(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    element=st.sampled_from([("bf16", 16), ("fp16", 32), ("bf16", 48), ("fp32", 32), ("fp32", 64)]),
    channels=st.integers(1, 70),
    steps=st.lists(st.integers(0, 60), max_size=6),
    seed=st.integers(0, 999),
)
def test_any_codes_come_back_exactly(element, channels, steps, seed) -> None:
    name, group = element
    word = np.uint32 if name == "fp32" else np.uint16
    rng = np.random.default_rng(seed)
    cache = PlaneKVCache(channels, name, group_tokens=group)
    parts = [rng.integers(0, np.iinfo(word).max, (count, channels), dtype=word, endpoint=True) for count in steps]
    for part in parts:
        cache.append(part)
    whole = np.concatenate(parts) if parts else np.empty((0, channels), word)
    assert len(cache) == len(whole)
    np.testing.assert_array_equal(cache.read(), whole)
    first, last = sorted(rng.integers(0, len(whole) + 1, 2).tolist())
    np.testing.assert_array_equal(cache.read(first, last), whole[first:last])
    other = cache.copy()
    other.crop(first)
    other.append(whole[:5])
    np.testing.assert_array_equal(other.read(), np.concatenate([whole[:first], whole[:5]]))
    np.testing.assert_array_equal(cache.read(), whole)


def test_partial_precision_is_close_and_reads_less() -> None:
    rng = np.random.default_rng(0)
    codes = bf16(rng.standard_normal((512, 64)) + rng.standard_normal(64) * 3)
    cache = PlaneKVCache(64)
    cache.append(codes)
    exact, read = as_float(codes), []
    for bits in (16, 12, 10, 9):
        cache.bytes_read = 0
        seen = as_float(cache.read(bits=bits))
        read.append(cache.bytes_read)
        assert (np.abs(seen - exact) <= np.abs(exact) * 2.0 ** (8 - bits) + 1e-30).all()
        assert (np.sign(seen) == np.sign(exact)).all()
    assert read == sorted(read, reverse=True) and read[-1] < 0.5 * read[0]


def test_infinities_stay_and_nans_are_no_numbers() -> None:
    codes = np.tile(np.array([0x7F80, 0xFF80, 0x7FC0, 0x3F80], np.uint16), (16, 1))
    cache = PlaneKVCache(4, group_tokens=16)
    cache.append(codes)
    for bits in range(9, 17):
        seen = as_float(cache.read(bits=bits))[0]
        assert seen[0] == np.inf and seen[1] == -np.inf and not np.isfinite(seen[2]) and 1 <= seen[3] < 2


def saving_bound(codes: np.ndarray) -> float:
    """What a code of each channel's signs and exponents at their own frequencies would save, mantissas kept whole."""
    entropy = 0.0
    for channel in (codes >> 7).T:
        share = np.unique(channel, return_counts=True)[1] / len(channel)
        entropy -= float((share * np.log2(share)).sum())
    return 1 - (7 + entropy / codes.shape[1]) / 16


@pytest.mark.parametrize("mean", [0.0, 1.0, 4.0])
def test_is_nearly_all_saved_that_each_channels_frequencies_allow(mean: float) -> None:
    rng = np.random.default_rng(2)
    sizes = np.exp(rng.standard_normal(192))
    codes = bf16((rng.standard_normal((1024, 192)) + mean * rng.standard_normal(192)) * sizes)
    for group, share in ((256, 0.96), (512, 0.97)):  # a group's tables weigh less the longer it is
        cache = PlaneKVCache(192, group_tokens=group)
        cache.append(codes)
        assert 1 - cache.stored_B / cache.plain_B >= share * saving_bound(codes)


def test_correlated_channels_shrink_and_noise_does_not_grow() -> None:
    rng = np.random.default_rng(1)
    walk = np.empty((512, 128))
    walk[0] = rng.standard_normal(128)
    for token in range(1, 512):
        walk[token] = 0.98 * walk[token - 1] + 0.199 * rng.standard_normal(128)
    cache = PlaneKVCache(128)
    cache.append(bf16(walk + rng.standard_normal(128) * 4))
    assert 0.45 < 1 - cache.stored_B / cache.plain_B < 0.60
    noise = PlaneKVCache(128)
    noise.append(rng.integers(0, 2**16, (512, 128), dtype=np.uint16))
    assert noise.stored_B <= noise.plain_B * 1.01


def test_decoding_with_the_cache_gives_the_same_attention() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    heads, size, tokens = 2, 16, 50
    keys, values = PlaneKVCache(heads * size, group_tokens=16), PlaneKVCache(heads * size, group_tokens=16)
    q, k, v = (torch.randn(tokens, heads * size).bfloat16() for _ in range(3))
    for token in range(tokens):
        keys.append_torch(k[token : token + 1])
        values.append_torch(v[token : token + 1])
        seen_k, seen_v = keys.read_torch(), values.read_torch()
        assert seen_k.equal(k[: token + 1]) and seen_v.equal(v[: token + 1])
        split = [one.view(-1, heads, size).transpose(0, 1).float() for one in (q[token : token + 1], seen_k, seen_v)]
        out = torch.nn.functional.scaled_dot_product_attention(*split)
        assert out.isfinite().all()
    near = keys.read_torch(bits=12).float()
    assert ((near - k.float()).abs() <= k.float().abs() * 2**-4).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PlaneKVCache(0), "at least one channel"),
        (lambda: PlaneKVCache(4, group_tokens=20), "multiple of 16"),
        (lambda: PlaneKVCache(4, "int8"), "bf16, fp16 or fp32"),
        (lambda: PlaneKVCache(4).append(np.zeros((2, 5), np.uint16)), "4 channels"),
        (lambda: PlaneKVCache(4).append(np.zeros((2, 4), np.float32)), "16-bit codes"),
        (lambda: PlaneKVCache(4).read(bits=8), "9 to 16"),
        (lambda: PlaneKVCache(4, "fp16").read(bits=5), "6 to 16"),
        (lambda: PlaneKVCache(4).read(0, 1), "no such tokens"),
    ],
)
def test_misuse_is_refused(call, message) -> None:
    with pytest.raises(TierformError, match=message):
        call()
