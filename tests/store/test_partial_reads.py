"""Is a partial read the right number: inside its interval, filled as asked, never an infinity out of a weight?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tierform.store as store
from tierform.errors import TierformError
from tierform.store.elements import ELEMENTS, Element, to_values

PARTIAL = [element for element in ELEMENTS if element.partial]


def every_code(element: Element) -> np.ndarray:
    """All codes of a narrow type; for fp32 a spread of them with the corners."""
    if element.name == "int4":
        return np.arange(-8, 8, dtype=np.int8)
    if element.width < 32:
        return np.arange(2**element.width, dtype=f"u{element.word_bytes}").view(element.numpy)
    corners = [0, 1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF]
    spread = np.random.default_rng(0).integers(0, 2**32, 5000, dtype=np.uint32)
    both = np.array(corners + [one | 0x80000000 for one in corners], np.uint32)
    return np.concatenate([both, spread]).view(np.float32)


def as_float(element: Element, codes: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return to_values(element, codes).astype(np.float64)


@pytest.mark.parametrize("element", PARTIAL, ids=lambda one: one.name)
def test_partial_reads_of_every_code(tmp_path: Path, element: Element) -> None:
    codes = every_code(element)
    path = tmp_path / "codes.tfs"
    store.pack_tensors({"x": codes}, path, elements={"x": element.name})
    unsigned = codes.view(f"u{element.word_bytes}").astype(np.uint64)
    field = np.uint64(2**element.planes - 1)
    exact = as_float(element, codes.view(f"u{element.word_bytes}"))
    finite = np.isfinite(exact)
    with store.open(path) as opened:
        for bits in range(1, element.planes + 1):
            low = np.uint64(2 ** (element.planes - bits) - 1)
            cut = opened.codes("x", bits, fill="truncate").astype(np.uint64) & field
            middle = opened.codes("x", bits)
            value = as_float(element, middle)
            # a number stays a number; an infinity that is told by its exponent stays one
            assert np.isfinite(value[finite]).all()
            if element.kind == "float" and bits >= 1 + element.exponent_bits:
                assert (cut == unsigned & field & ~low).all()
                np.testing.assert_array_equal(value[np.isinf(exact)], exact[np.isinf(exact)])
                assert not np.isfinite(value[np.isnan(exact)]).any()
            if bits == element.planes:
                assert middle.tobytes() == codes.tobytes()
                continue
            same = (middle.astype(np.uint64) & field & ~low) == (unsigned & field & ~low)
            inside = finite if element.kind != "float" else finite & (np.abs(exact) < np.inf)
            assert same[inside].mean() > 0.99 and (same | ~finite | (np.abs(value) > 0)).all()


@pytest.mark.parametrize("element", [one for one in PARTIAL if one.planes <= 16], ids=lambda one: one.name)
def test_midpoint_and_rounding_against_a_slow_reference(tmp_path: Path, element: Element) -> None:
    """For every code: candidates of k bits are listed, and the nearest (round) or the interval's middle is compared."""
    codes = every_code(element)
    path = tmp_path / "codes.tfs"
    store.pack_tensors({"x": codes}, path, elements={"x": element.name})
    unsigned = codes.view(f"u{element.word_bytes}")
    exact = as_float(element, unsigned)
    use = np.isfinite(exact)
    sign_bit = 1 << (element.planes - 1)
    with store.open(path) as opened, np.errstate(invalid="ignore"):
        for bits in range(1 + element.exponent_bits, element.planes):
            step = 1 << (element.planes - bits)
            if element.kind == "int":
                expected = np.floor(exact / step) * step + step // 2
                top = (2 ** (element.planes - 1) // step - 1) * step
                nearest = np.minimum(np.floor(exact / step + 0.5) * step, top)
                np.testing.assert_array_equal(as_float(element, opened.codes("x", bits)), expected)
                np.testing.assert_array_equal(as_float(element, opened.codes("x", bits, fill="round")), nearest)
                continue
            lower = unsigned & ~np.array(step - 1, unsigned.dtype)
            low = as_float(element, lower)
            upper_code = (lower.astype(np.int64) & (sign_bit - 1)) + step
            inner = use & np.isfinite(low)
            spacing = as_float(element, (lower | np.array(step >> 1, unsigned.dtype))) - low
            value = as_float(element, opened.codes("x", bits))
            typical = inner & np.isfinite(spacing) & (np.abs(low + spacing) <= np.abs(exact[use]).max())
            np.testing.assert_array_equal(value[typical], (low + spacing)[typical])
            # the middle is the mean of the interval's ends where both are numbers of the same binade
            rounded = opened.codes("x", bits, fill="round")
            assert (rounded.astype(np.int64) & (step - 1))[inner].max() == 0
            error = np.abs(as_float(element, rounded) - exact)
            other = np.abs(low - exact)
            assert (error[inner] <= other[inner]).all()
            half = (unsigned.astype(np.int64) & (step - 1)) * 2
            up = inner & (half > step) & (upper_code < (sign_bit - step))
            went_up = (rounded.astype(np.int64) & (sign_bit - 1)) == upper_code
            finite_up = np.isfinite(as_float(element, rounded)) & up
            if element.kind == "float":
                largest_exponent = ((1 << element.exponent_bits) - 1) << (element.planes - 1 - element.exponent_bits)
                finite_up &= upper_code < largest_exponent
            assert went_up[finite_up].all()


def test_midpoint_halves_the_error_and_has_no_bias(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = ((rng.standard_normal(2**18, dtype=np.float32) * 0.02).view(np.uint32) >> 16).astype(np.uint16)
    path = tmp_path / "w.tfs"
    store.pack_tensors({"w": weights}, path, elements={"w": "bf16"})
    # relative root-mean-square errors of 2 million Gaussian samples, computed apart: truncate, midpoint, rounding
    expected = {14: (0.0107, 0.0071, 0.0070), 12: (0.0489, 0.0268, 0.0266), 10: (0.181, 0.110, 0.104)}
    with store.open(path) as opened:
        exact = opened.read("w")
        for bits, errors in expected.items():
            for fill, error in zip(("truncate", "midpoint", "round"), errors, strict=True):
                seen = opened.read("w", bits, fill=fill)
                relative = np.sqrt(((seen - exact) ** 2).mean() / (exact**2).mean())
                assert relative == pytest.approx(error, rel=0.02)
            bias = np.abs(opened.read("w", bits)).mean() / np.abs(exact).mean() - 1
            cut = np.abs(opened.read("w", bits, fill="truncate")).mean() / np.abs(exact).mean() - 1
            assert abs(bias) < 0.4 * abs(cut)  # half a bf16 step remains: the codes themselves are rounded


def test_precision_by_rows_and_by_blocks_in_one_call(small_store: Path) -> None:
    with store.open(small_store) as opened:
        row_bits = store.RowBits([4, 9, 16], 50)
        block_bits = store.BlockBits(np.array([0, 1, 5, 8, 8, 3, 2, 4]))
        got = opened.read_many({"layer.weight": row_bits, "layer.q": block_bits, "scale": 12})
        for group, bits in enumerate([4, 9, 16]):
            rows = (group * 50, group * 50 + 50)
            np.testing.assert_array_equal(
                got["layer.weight"][slice(*rows)], opened.read("layer.weight", bits, rows=rows)
            )
        flat = got["layer.q"].reshape(-1)
        for block, bits in enumerate([0, 1, 5, 8, 8, 3, 2, 4]):
            span = slice(block * 512, min(block * 512 + 512, 4000))
            expected = opened.read("layer.q", bits).reshape(-1)[span] if bits else np.zeros(span.stop - span.start)
            np.testing.assert_array_equal(flat[span], expected)


def test_a_block_shared_by_two_groups_takes_the_higher_precision(small_store: Path) -> None:
    with store.open(small_store) as opened:
        got = opened.read("layer.q", store.RowBits([2, 8], 20)).reshape(-1)  # 100 columns: rows 15 to 20 share block 3
        exact = opened.read("layer.q").reshape(-1)
        np.testing.assert_array_equal(got[3 * 512 :], exact[3 * 512 :])
        assert (got[: 3 * 512] != exact[: 3 * 512]).any()


def test_partial_row_bits_read_few_bytes(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).integers(0, 2**16, (4096, 512), dtype=np.uint16)
    path = tmp_path / "w.tfs"
    store.pack_tensors({"w": weights}, path, elements={"w": "bf16"})
    with store.open(path) as opened:
        bits = np.tile([2, 10], 32)
        opened.read("w", store.RowBits(bits, 64))
        assert opened.count.planes_B == weights.nbytes * 6 // 16


@pytest.mark.parametrize(
    ("name", "bits", "message"),
    [
        ("layer.weight", 0, "1 to 16"),
        ("layer.weight", 17, "1 to 16"),
        ("layer.weight", True, "1 to 16"),
        ("layer.q", 9, "1 to 8"),
        ("layer.q", store.BlockBits([8] * 7), "8 blocks"),
        ("layer.q", store.BlockBits([9] * 8), "0 to 8"),
        ("layer.q", store.BlockBits(np.full(8, -1)), "0 to 8"),
        ("layer.q", store.BlockBits(np.full(8, 3.0)), "whole number"),
        ("layer.q", store.RowBits([8, 8], 10), "4 groups"),
        ("layer.q", store.RowBits([8, 8], 0), "at least one"),
        ("scale", store.RowBits([8], 1), "needs rows"),
    ],
)
def test_impossible_precisions_are_refused(small_store: Path, name: str, bits: object, message: str) -> None:
    with store.open(small_store) as opened, pytest.raises(TierformError, match=message):
        opened.read(name, bits)  # type: ignore[arg-type]


def test_exact_types_are_never_cut(tmp_path: Path) -> None:
    path = tmp_path / "ids.tfs"
    store.pack_tensors({"ids": np.arange(9)}, path)
    with store.open(path) as opened:
        with pytest.raises(TierformError, match="only be read whole"):
            opened.read("ids", 32)
        with pytest.raises(TierformError, match="unknown fill"):
            opened.read("ids", fill="nearest")  # type: ignore[arg-type]
