"""A KV cache kept as bit planes: channel by channel, exponents as differences, planes compressed without loss.

Tokens arrive a few at a time and wait as plain words until a group is full (256 tokens by default).  Of a full group,
each channel's largest exponent is stored once and every exponent becomes its distance below it, so that most of the
exponent's planes are nearly empty; a channel's tokens lie side by side in a plane, 16 to a word, and each plane is
compressed on its own (zstd), or kept as it is where that gains nothing.  Reading the first k planes gives every value
at k bits, the missing ones filled with the middle of their interval; all 16 planes are bit-exact.
Limits: bf16 and fp16; at least the sign and the exponent must be read, because a distance cut short is not a bound
that helps.  The idea of channel-wise groups and exponent differences is that of arXiv 2503.18869; the layout is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.store.elements import BLOCK_WEIGHTS, PLANE_BYTES, Element, element_named

if TYPE_CHECKING:
    import torch

WORD_TOKENS = 16  # tokens of one channel that share a word of a plane


@dataclass(frozen=True, slots=True)
class _Group:
    """A full group: each channel's base exponent and the planes, compressed where `coded` says so."""

    base: NDArray[np.uint8]
    planes: tuple[bytes, ...]
    coded: tuple[bool, ...]


class PlaneKVCache:
    """The keys (or the values) of one layer: tokens x channels, appended at the end, read anywhere."""

    def __init__(self, channels: int, element: str = "bf16", *, group_tokens: int = 256, level: int = 3) -> None:
        """`channels` is heads times head dimension; `group_tokens` a multiple of 16."""
        from tierform.store.writer import _zstd

        self.element: Element = element_named(element)
        if self.element.name not in ("bf16", "fp16"):
            fail("a KV cache is kept in bf16 or fp16", key="element", value=element)
        if channels < 1 or group_tokens < WORD_TOKENS or group_tokens % WORD_TOKENS:
            fail("at least one channel, and groups of a multiple of 16 tokens", value=(channels, group_tokens))
        self.channels, self.group_tokens, self._level, self._zstd = channels, group_tokens, level, _zstd()
        self._groups: list[_Group] = []
        self._recent = np.empty((group_tokens, channels), np.uint16)
        self._waiting = 0
        self.bytes_read = 0

    def __len__(self) -> int:
        return len(self._groups) * self.group_tokens + self._waiting

    @property
    def stored_B(self) -> int:
        """Bytes kept, the tokens that wait included."""
        full = sum(sum(map(len, group.planes)) + group.base.nbytes for group in self._groups)
        return full + self._waiting * self.channels * 2

    @property
    def plain_B(self) -> int:
        """Bytes of the same tokens as ordinary words."""
        return len(self) * self.channels * 2

    def append(self, codes: NDArray[Any]) -> None:
        """Add tokens: tokens x channels, as bit patterns (uint16) or float16."""
        words = codes.view(np.uint16) if codes.dtype == np.float16 else codes
        if words.dtype != np.uint16 or words.ndim != 2 or words.shape[1] != self.channels:
            fail(f"tokens x {self.channels} channels of 16-bit codes are needed", value=(codes.dtype.name, codes.shape))
        at = 0
        while at < len(words):
            count = min(self.group_tokens - self._waiting, len(words) - at)
            self._recent[self._waiting : self._waiting + count] = words[at : at + count]
            self._waiting += count
            at += count
            if self._waiting == self.group_tokens:
                self._groups.append(self._encode(self._recent))
                self._waiting = 0

    def read(self, first: int = 0, last: int | None = None, bits: int | None = None) -> NDArray[np.uint16]:
        """Tokens `first` to `last` as codes, tokens x channels, at `bits` (None: all 16, exact)."""
        end = len(self) if last is None else last
        planes, least = self.element.planes, 1 + self.element.exponent_bits
        depth = planes if bits is None else bits
        if isinstance(depth, bool) or not least <= depth <= planes:
            fail(f"a {self.element.name} KV cache is read at {least} to {planes} bits", key="bits", value=bits)
        if not 0 <= first <= end <= len(self):
            fail("no such tokens", value=(first, end), fix=f"The cache holds {len(self)} tokens.")
        result = np.empty((end - first, self.channels), np.uint16)
        size = self.group_tokens
        for number in range(first // size, -(-end // size)):
            low, high = max(first, number * size), min(end, (number + 1) * size)
            if number < len(self._groups):
                group = self._decode(self._groups[number], depth)
            else:
                group = self._recent
                self.bytes_read += (high - low) * self.channels * 2
            result[low - first : high - first] = group[low - number * size : high - number * size]
        return result

    def append_torch(self, tokens: torch.Tensor) -> None:
        """Add tokens from a torch tensor of the cache's type (tokens x channels)."""
        import torch

        if tokens.dtype != getattr(torch, self.element.torch):
            fail(f"a {self.element.torch} tensor is needed", value=str(tokens.dtype))
        self.append(tokens.detach().contiguous().view(torch.int16).numpy().view(np.uint16))

    def read_torch(self, first: int = 0, last: int | None = None, bits: int | None = None) -> torch.Tensor:
        """As :meth:`read`, as a torch tensor of the cache's type."""
        from tierform.store.to_torch import from_codes

        return from_codes(self.element, self.read(first, last, bits))

    def _fields(self) -> tuple[int, int]:
        mantissa = self.element.planes - 1 - self.element.exponent_bits
        return mantissa, (1 << self.element.exponent_bits) - 1

    def _encode(self, words: NDArray[np.uint16]) -> _Group:
        from tierform.store.kernels import pack_blocks

        mantissa, mask = self._fields()
        exponent = (words >> mantissa) & np.uint16(mask)
        base = exponent.max(axis=0)
        below = (base - exponent).astype(np.uint16) << np.uint16(mantissa)
        changed = (words & np.uint16(~(mask << mantissa) & 0xFFFF)) | below
        weights = self.group_tokens * self.channels
        blocks = -(-weights // BLOCK_WEIGHTS)
        flat = np.zeros(blocks * BLOCK_WEIGHTS, np.uint16)
        flat[:weights] = changed.T.reshape(-1)
        # a block's words as rows of the transpose: bit r of word j is token 16 j + r of the run
        rows = np.ascontiguousarray(flat.reshape(blocks, BLOCK_WEIGHTS // WORD_TOKENS, WORD_TOKENS).swapaxes(1, 2))
        stored = np.empty(blocks * 16 * 8, np.uint64)
        pack_blocks(rows.reshape(-1).view(np.uint64), 16, 16, stored, 0, blocks * 8, 8, blocks)
        compressor = self._zstd.ZstdCompressor(level=self._level)
        planes, coded = [], []
        for raw in stored.view(np.uint8).reshape(16, -1):
            small = compressor.compress(raw.tobytes())
            coded.append(len(small) < raw.size)
            planes.append(small if coded[-1] else raw.tobytes())
        return _Group(base.astype(np.uint8), tuple(planes), tuple(coded))

    def _decode(self, group: _Group, depth: int) -> NDArray[np.uint16]:
        from tierform.store.kernels import FILL_MIDPOINT, unpack_blocks

        mantissa, mask = self._fields()
        weights = self.group_tokens * self.channels
        blocks = -(-weights // BLOCK_WEIGHTS)
        size = blocks * PLANE_BYTES
        decompressor = self._zstd.ZstdDecompressor()
        stored = np.empty((depth, size), np.uint8)
        for plane in range(depth):
            raw = group.planes[plane]
            self.bytes_read += len(raw)
            content = decompressor.decompress(raw, max_output_size=size) if group.coded[plane] else raw
            stored[plane] = np.frombuffer(content, np.uint8)
        self.bytes_read += group.base.nbytes
        starts = np.zeros(16, np.int64)
        starts[:depth] = np.arange(depth) * (size // 8)
        words = np.empty(blocks * 128, np.uint64)
        wanted = np.full(1, depth, np.uint8)
        view = stored.reshape(-1).view(np.uint64)
        unpack_blocks(view, starts, 8, 0, blocks, wanted, 0, 16, 16, FILL_MIDPOINT, 0, 0, words)
        rows = words.view(np.uint16).reshape(blocks, WORD_TOKENS, BLOCK_WEIGHTS // WORD_TOKENS).swapaxes(1, 2)
        changed = rows.reshape(-1)[:weights].reshape(self.channels, self.group_tokens).T
        below = (changed >> mantissa) & np.uint16(mask)
        exponent = group.base.astype(np.uint16) - below
        codes = (changed & np.uint16(~(mask << mantissa) & 0xFFFF)) | (exponent << np.uint16(mantissa))
        if depth < 16:  # the fill must not make a NaN out of an infinity
            cut = np.uint16(0xFFFF << (16 - depth) & 0xFFFF)
            codes = np.where(exponent == mask, codes & cut, codes)
        return codes.astype(np.uint16)
