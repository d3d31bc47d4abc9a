"""GGUF's block formats as float32: one function a format, each over all blocks of a tensor at once.

A block of 32 weights has one fp16 scale d: Q4_0 is d (q - 8), Q4_1 is d q + m with an fp16 minimum m, Q8_0 is d q with
signed q.  In the 4-bit formats byte i holds weight i (low half) and weight i + 16 (high half).  The K formats have
super-blocks of 256 weights: Q4_K eight groups of 32 with 6-bit scales and minimums, Q6_K sixteen groups of 16 with
8-bit scales.
Source: the GGUF specification and the block structures of the ggml project.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tierform.arrays import Bytes, Singles
from tierform.errors import fail


def _half(rows: Bytes, at: int) -> Singles:
    """The fp16 number at byte `at` of every block, (blocks, 1)."""
    return np.ascontiguousarray(rows[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """Low halves, then high halves, along the last axis."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def q4_0(rows: Bytes) -> Singles:
    """(blocks, 18 bytes) to (blocks, 32)."""
    return (_nibbles(rows[:, 2:]).astype(np.float32) - 8) * _half(rows, 0)


def q4_1(rows: Bytes) -> Singles:
    """(blocks, 20 bytes) to (blocks, 32)."""
    return _nibbles(rows[:, 4:]).astype(np.float32) * _half(rows, 0) + _half(rows, 2)


def q8_0(rows: Bytes) -> Singles:
    """(blocks, 34 bytes) to (blocks, 32)."""
    return rows[:, 2:].view(np.int8).astype(np.float32) * _half(rows, 0)


def q4_k(rows: Bytes) -> Singles:
    """(blocks, 144 bytes) to (blocks, 256): d sc q - dmin m for eight groups.

    The twelve bytes s hold 6-bit scales and minimums: for the first four groups the low six bits of s[0:4] and s[4:8];
    for the last four the halves of s[8:12] are their low four bits, the top two bits of s[0:4] and s[4:8] the rest.
    """
    s = rows[:, 4:16]
    scales = np.concatenate([s[:, 0:4] & 63, (s[:, 8:12] & 15) | ((s[:, 0:4] >> 6) << 4)], axis=1)
    least = np.concatenate([s[:, 4:8] & 63, (s[:, 8:12] >> 4) | ((s[:, 4:8] >> 6) << 4)], axis=1)
    quants = _nibbles(rows[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32).astype(np.float32)
    scale = _half(rows, 0) * scales
    minimum = _half(rows, 2) * least
    result: Singles = (quants * scale[:, :, None] - minimum[:, :, None]).reshape(-1, 256)
    return result


def q6_k(rows: Bytes) -> Singles:
    """(blocks, 210 bytes) to (blocks, 256): d sc (q - 32) for sixteen groups, in two halves of 128 weights."""
    low = rows[:, :128].reshape(-1, 2, 2, 32)
    high = rows[:, 128:192].reshape(-1, 2, 1, 32)
    low4 = np.concatenate([low & 15, low >> 4], axis=2)  # weights 0-31, 32-63, 64-95, 96-127 of a half
    high2 = (high >> np.array([0, 2, 4, 6], np.uint8)[None, None, :, None]) & 3
    quants = (low4 | (high2 << 4)).reshape(-1, 16, 16).astype(np.float32) - 32
    scale = rows[:, 192:208].view(np.int8).astype(np.float32) * _half(rows, 208)
    result: Singles = (quants * scale[:, :, None]).reshape(-1, 256)
    return result


_DECODERS: dict[str, Callable[[Bytes], Singles]] = {
    "Q4_0": q4_0,
    "Q4_1": q4_1,
    "Q8_0": q8_0,
    "Q4_K": q4_k,
    "Q6_K": q6_k,
}


def decode(content: Any, name: str, block_B: int, shape: tuple[int, ...]) -> Singles:
    """The weights of a tensor in `shape` from its bytes in the block format `name` of `block_B` bytes."""
    if name in ("F32", "F16"):
        plain: Singles = np.frombuffer(content, "<f4" if name == "F32" else "<f2").astype(np.float32).reshape(shape)
        return plain
    if name == "BF16":
        wide: Singles = (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
        return wide
    if name not in _DECODERS:
        fail("this block format is not decoded", value=name, choices=_DECODERS)
    rows = np.frombuffer(content, np.uint8).reshape(-1, block_B)
    return _DECODERS[name](rows).reshape(shape)
