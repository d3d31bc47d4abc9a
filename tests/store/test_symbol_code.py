"""Do rows of symbols come back as they were, in about the bits that their frequencies need?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.store.symbol_code import SYMBOLS, _frequencies, decode_rows, encode_rows, tables_of
from tierform.store.writer import _zstd

zstd = _zstd()


@settings(max_examples=40)
@given(
    rows=st.sampled_from([1, 3, 64, 65, 130]),
    places=st.integers(1, 70),
    used=st.integers(1, SYMBOLS),
    seed=st.integers(0, 999),
)
def test_do_symbols_come_back(rows, places, used, seed) -> None:
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(used, 0.3))
    symbols = rng.choice(used, (rows, places), p=chances).astype(np.uint8)
    coded = encode_rows(symbols, zstd.ZstdCompressor(level=3))
    assert np.array_equal(decode_rows(coded, rows, places, zstd.ZstdDecompressor()), symbols)


def test_are_frequencies_whole_and_none_is_lost() -> None:
    levels, found = np.zeros(SYMBOLS, np.uint8), np.empty(SYMBOLS, np.int64)
    levels[:3] = 9, 8, 7  # 256, 128 and 64 of 448 by octaves: 1024 shared as 4 : 2 : 1, what is left to the first
    _frequencies(levels, found)
    assert found[:4].tolist() == [586, 292, 146, 0]
    levels[:] = 1
    levels[5] = 12  # 2048 against 31 single ones: these get one place each
    _frequencies(levels, found)
    assert found.sum() == 1024 and found[5] == 1024 - 31 and found.min() == 1


@pytest.mark.parametrize("rows", [32, 256])
def test_is_the_stream_near_the_entropy(rows) -> None:
    rng = np.random.default_rng(1)
    symbols = np.minimum(rng.geometric(0.4, (rows, 4096)) - 1, SYMBOLS - 1).astype(np.uint8)
    share = np.bincount(symbols.reshape(-1)) / symbols.size
    entropy = -float((share[share > 0] * np.log2(share[share > 0])).sum())
    coded = encode_rows(symbols, zstd.ZstdCompressor(level=3))
    bits = 8 * len(coded.stream) / symbols.size
    assert entropy - 0.01 < bits < entropy + 0.04  # octaves of frequency, and 16-bit words
    assert 8 * (coded.size_B - len(coded.stream)) / symbols.size < 0.02
    assert tables_of(coded, rows, zstd.ZstdDecompressor()).shape == (rows, SYMBOLS)
