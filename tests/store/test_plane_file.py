"""Do all ways to the bytes (buffer, past the page cache, mapping; whole chunks and pieces) give the same weights?"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import tierform.store as store
from tierform.errors import TierformError
from tierform.store.memory import HUGE_PAGE_B, new_words
from tierform.store.planes import PIECE_BLOCKS


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    """More than two pieces of one chunk, and not a multiple of a block."""
    return np.random.default_rng(0).integers(0, 2**16, (2 * PIECE_BLOCKS + 130) * 512 + 77, dtype=np.uint16)


@pytest.fixture(scope="module", params=[("plane-major", 2048), ("plane-major", 2**16), ("adjacent", 2048)])
def packed(request, codes: np.ndarray, tmp_path_factory) -> Path:
    layout, chunk = request.param
    path = tmp_path_factory.mktemp("pieces") / "w.tfs"
    tensors = {"w": codes, "small": codes[:100]}
    options = store.PackOptions(layout=layout, chunk_blocks=chunk)
    store.pack_tensors(tensors, path, options, elements=dict.fromkeys(tensors, "bf16"))
    return path


def _direct_works(path: Path) -> bool:
    try:
        with store.open(path, direct=True) as opened:
            opened.codes("small")
    except TierformError:
        return False
    return True


@pytest.mark.parametrize("way", ["buffer", "direct", "mapping"])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_way_gives_the_same(packed: Path, codes: np.ndarray, way: str, threads: int) -> None:
    if way == "direct" and not _direct_works(packed):
        pytest.skip("this system or file system has no such reads")
    bits = np.random.default_rng(1).integers(0, 17, -(-codes.size // 512)).astype(np.uint8)
    with store.open(packed, threads=threads, direct=way == "direct") as opened:
        if way == "mapping":
            opened._file.reads = False
        np.testing.assert_array_equal(opened.codes("w"), codes)
        np.testing.assert_array_equal(opened.codes("w", 5, fill="truncate"), codes & 0xF800)
        first, count = PIECE_BLOCKS * 512 - 70, 64 * 512 + 140  # from one piece into the next, within pages
        np.testing.assert_array_equal(opened.span("w", first, count), codes[first : first + count])
        mixed = opened.codes("w", store.BlockBits(bits), fill="truncate")
        masks = (0xFFFF << (16 - bits.astype(int))) & 0xFFFF
        np.testing.assert_array_equal(mixed, codes & np.repeat(masks, 512)[: codes.size].astype(np.uint16))
        rows = opened.plane_rows("w", PIECE_BLOCKS - 3, 70, 4)
        assert rows.shape == (70, 4, 64)
        assert opened.verify() > 0


def test_a_stream_is_the_same_as_one_by_one(packed: Path, codes: np.ndarray) -> None:
    for threads in (1, 3):
        with store.open(packed, threads=threads) as opened:
            names = ["small", "w", "small"]
            for name, each in opened.stream({"w": 7, "small": None}):
                np.testing.assert_array_equal(each, opened.codes(name, {"w": 7, "small": None}[name]))
                names.remove(name)
            assert names == ["small"]
            with pytest.raises(TierformError, match="no such tensor"):
                list(opened.stream({"w": 4, "v": 4}))
            begun = opened.stream({"w": 16, "small": 16})
            next(begun)
            begun.close()  # what was begun is given up


def test_a_file_cut_short_while_open_is_refused(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.tfs"
    path.write_bytes(packed.read_bytes())
    with store.open(path) as opened:
        opened.codes("w", 1)
        guard, opened._file.guard = opened._file.guard, lambda: None
        if opened._file.reads and opened.entry("w").layout == "plane-major":  # a mapping ends the process here
            os.truncate(path, 2**20)
            with pytest.raises(TierformError, match="changed its size"):
                opened.codes("w", 16)
        else:
            os.truncate(path, path.stat().st_size - 64)
        opened._file.guard = guard
        with pytest.raises(TierformError, match="changed its size"):
            opened.codes("w", 1)


def test_large_memory_begins_on_a_huge_page_and_is_writable() -> None:
    import mmap

    for count in (0, 5, HUGE_PAGE_B // 8, 3 * HUGE_PAGE_B // 8 + 11):
        words = new_words(count)
        assert words.shape == (count,) and words.dtype == np.uint64 and words.flags.c_contiguous
        if count * 8 >= HUGE_PAGE_B and hasattr(mmap, "MADV_HUGEPAGE"):
            assert words.ctypes.data % HUGE_PAGE_B == 0
        words[:] = 7
        assert (words == 7).all()


def test_past_the_page_cache_nothing_of_the_planes_is_kept(packed: Path) -> None:
    from test_roundtrip import _resident

    if not _direct_works(packed):
        pytest.skip("this system or file system has no such reads")
    with packed.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if _resident(packed) > 0:
        pytest.skip("this file system keeps pages")
    with store.open(packed, direct=True) as opened:
        opened.codes("w", 16)
    assert _resident(packed) < 0.02 * packed.stat().st_size / 4096
