"""Do the plane kernels do what the format says, against a slow reference that loops over bits?"""

from __future__ import annotations

import numpy as np
import pytest

from tierform.store import hashing, kernels

# Values published with the specification of XXH64 (seed 0).
KNOWN_XXH64 = {b"": 0xEF46DB3751D8E999, b"a": 0xD24EC4F1A98C6E5B, b"abc": 0x44BC2CF5AD770999}


def reference_planes(words: np.ndarray, width: int, planes: int) -> np.ndarray:
    """[plane, block, word]: bit r of word j is bit (planes-1-plane) of weight r*(512/width)+j of the block."""
    kind = f"u{width // 8}"
    blocks = words.view(kind).reshape(-1, width, 512 // width)
    result = np.zeros((planes, len(blocks), 512 // width), kind)
    for plane in range(planes):
        for row in range(width):
            bit = (blocks[:, row] >> np.array(planes - 1 - plane, kind)) & np.array(1, kind)
            result[plane] |= bit << np.array(row, kind)
    return result


@pytest.mark.parametrize(("width", "planes"), [(8, 8), (8, 4), (16, 16), (32, 32), (64, 64)])
@pytest.mark.parametrize("layout", ["plane-major", "adjacent"])
def test_planes_are_the_bit_transpose(width: int, planes: int, layout: str) -> None:
    blocks = 19  # not a multiple of the tile
    words = np.random.default_rng(width).integers(0, 256, blocks * 512 * width // 8, dtype=np.uint8)
    if planes == 4:
        words = (words.view(np.int8) >> 4).view(np.uint8)
    stored = np.zeros(blocks * planes * 8, np.uint64)
    plane_step, block_step = (8, planes * 8) if layout == "adjacent" else (blocks * 8, 8)
    kernels.pack_blocks(words.view(np.uint64), width, planes, stored, 0, plane_step, block_step, blocks)
    seen = stored.view(f"u{width // 8}")
    order = (blocks, planes, -1) if layout == "adjacent" else (planes, blocks, -1)
    seen = seen.reshape(order).swapaxes(0, 1) if layout == "adjacent" else seen.reshape(order)
    np.testing.assert_array_equal(seen, reference_planes(words, width, planes))

    back = np.zeros(words.size // 8, np.uint64)
    starts = np.arange(planes) * plane_step
    whole = np.full(1, planes, np.uint8)
    kernels.unpack_blocks(stored, starts, block_step, 0, blocks, whole, 0, width, planes, 1, 0, 0, back)
    np.testing.assert_array_equal(back.view(np.uint8), words)


@pytest.mark.parametrize("midpoint", [False, True])
def test_every_block_has_its_own_precision(midpoint: bool) -> None:
    blocks = 21
    rng = np.random.default_rng(1)
    words = rng.integers(0, 2**15, blocks * 512, dtype=np.uint16)
    stored = np.zeros(blocks * 128, np.uint64)
    kernels.pack_blocks(words.view(np.uint64), 16, 16, stored, 0, blocks * 8, 8, blocks)
    bits = rng.integers(0, 17, blocks).astype(np.uint8)
    back = np.zeros(words.size // 4, np.uint64)
    kernels.unpack_blocks(stored, np.arange(16) * blocks * 8, 8, 0, blocks, bits, 1, 16, 16, int(midpoint), 0, 0, back)
    for block in range(blocks):
        missing = 16 - int(bits[block])
        expected = (words[block * 512 : (block + 1) * 512] >> missing << missing) if missing < 16 else 0
        if midpoint and 0 < missing < 16:
            expected = expected | (1 << (missing - 1))
        np.testing.assert_array_equal(back.view(np.uint16)[block * 512 : (block + 1) * 512], expected)


@pytest.mark.parametrize("width", [8, 16, 32, 64])
@pytest.mark.parametrize("layout", ["plane-major", "adjacent"])
def test_writing_past_the_caches_changes_no_bit_wherever_the_memory_begins(width: int, layout: str) -> None:
    blocks = 13
    size = blocks * width * 8
    words = np.random.default_rng(width).integers(0, 2**63, size).astype(np.uint64)
    plane_step, block_step = (8, width * 8) if layout == "adjacent" else (blocks * 8, 8)
    starts, most = np.arange(width) * plane_step, np.full(1, width - 3, np.uint8)
    plain, shallow = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
    kernels.pack_blocks(words, width, width, plain, 0, plane_step, block_step, blocks)
    kernels.unpack_blocks(plain, starts, block_step, 0, blocks, most, 0, width, width, 1, 5, 1, shallow)
    for offset in range(9):  # in words: some on a vector, most not
        memory = np.full(size + 16, 7, np.uint64)
        back = memory[offset : offset + size]
        kernels.unpack_blocks(
            plain, starts, block_step, 0, blocks, most, 0, width, width, 1, 5, 1, back, past_caches=True
        )
        np.testing.assert_array_equal(back, shallow)
        assert (memory[:offset] == 7).all() and (memory[offset + size :] == 7).all()


def test_xxh64_gives_the_published_values() -> None:
    for content, expected in KNOWN_XXH64.items():
        assert int(hashing.hash_bytes(np.frombuffer(content, np.uint8))) == expected


def test_xxh64_agrees_with_the_reference_library_and_rows_are_bytes_in_order() -> None:
    xxhash = pytest.importorskip("xxhash")
    rng = np.random.default_rng(2)
    for size in (3, 4, 8, 31, 32, 33, 47, 64, 100, 4096, 4099):
        content = rng.integers(0, 256, size, dtype=np.uint8)
        assert int(hashing.hash_bytes(content)) == xxhash.xxh64_intdigest(content.tobytes())
    rows = rng.integers(0, 256, (5, 3, 64), dtype=np.uint8)
    for piece in range(3):
        seen = int(hashing.hash_rows(rows.view(np.uint64).reshape(-1), piece * 8, 24, 5))
        assert seen == xxhash.xxh64_intdigest(rows[:, piece].tobytes())
    assert int(hashing.hash_rows(rows.view(np.uint64).reshape(-1), 0, 8, 0)) == KNOWN_XXH64[b""]
