"""A KV cache kept channel by channel: signs and exponents coded near their entropy, mantissas as bit planes.

Tokens arrive a few at a time and wait as plain words until a group is full (256 tokens by default).  Of a full group,
each channel's largest exponent is stored once and every exponent becomes its distance below it; sign and distance are
one symbol, coded with a table of frequencies for each channel (:mod:`tierform.store.symbol_code`).  The mantissas are
planes, a channel's tokens side by side; each plane is compressed on its own (zstd), or kept as it is where that gains
nothing, and a group that does not become smaller stays plain.  Reading sign, exponent and the first planes of the
mantissa gives every value at so many bits, the missing ones filled with the middle of their interval; all planes are
bit-exact.
Limits: bf16, fp16 and fp32; at least the sign and the exponent must be read, because a distance cut short is not a
bound that helps.  The idea of channel-wise groups and exponent differences is that of arXiv 2503.18869; the layout is
ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tierform.arrays import Numbers
from tierform.errors import fail
from tierform.store.elements import BLOCK_WEIGHTS, PLANE_BYTES, Element, element_named
from tierform.store.symbol_code import CodedRows, cut_words, decode_rows, encode_rows, join_words, split_words

if TYPE_CHECKING:
    import torch

ELEMENTS = ("bf16", "fp16", "fp32")


@dataclass(frozen=True, slots=True)
class _Group:
    """A full group: each channel's largest exponent, coded signs and exponents, planes of the mantissas.

    `far` are the `distant` exponents that are far below the largest; planes are compressed where `coded` says so.
    Without a `head`, `far` is the whole group as plain words.
    """

    base: NDArray[np.uint8]
    head: CodedRows | None
    far: bytes
    distant: int
    planes: tuple[bytes, ...]
    coded: tuple[bool, ...]

    @property
    def size_B(self) -> int:
        """Bytes of all of it."""
        head = 0 if self.head is None else self.base.nbytes + self.head.size_B
        return head + len(self.far) + sum(map(len, self.planes))


class PlaneKVCache:
    """The keys (or the values) of one layer: tokens x channels, appended at the end, read anywhere."""

    def __init__(self, channels: int, element: str = "bf16", *, group_tokens: int = 256, level: int = 3) -> None:
        """`channels` is heads times head dimension; `group_tokens` a multiple of the element's bits."""
        from tierform.store.writer import _zstd

        self.element: Element = element_named(element)
        if self.element.name not in ELEMENTS:
            fail("a KV cache is kept in bf16, fp16 or fp32", key="element", value=element)
        bits = self.element.width
        if channels < 1 or group_tokens < bits or group_tokens % bits:
            fail(f"at least one channel, and groups of a multiple of {bits} tokens", value=(channels, group_tokens))
        self.channels, self.group_tokens, self._level, self._zstd = channels, group_tokens, level, _zstd()
        self._word = np.dtype(f"u{self.element.word_bytes}")
        self.mantissa_bits = bits - 1 - self.element.exponent_bits
        self._groups: list[_Group] = []
        self._recent = np.empty((group_tokens, channels), self._word)
        self._waiting = 0
        self.bytes_read = 0

    def __len__(self) -> int:
        return len(self._groups) * self.group_tokens + self._waiting

    @property
    def stored_B(self) -> int:
        """Bytes kept, the tokens that wait included."""
        full = sum(group.size_B for group in self._groups)
        return full + self._waiting * self.channels * self._word.itemsize

    @property
    def plain_B(self) -> int:
        """Bytes of the same tokens as ordinary words."""
        return len(self) * self.channels * self._word.itemsize

    def append(self, codes: Numbers) -> None:
        """Add tokens: tokens x channels, as bit patterns (unsigned integers) or as NumPy's type of the element."""
        words = codes.view(self._word) if codes.dtype == np.dtype(self.element.numpy) else codes
        if words.dtype != self._word or words.ndim != 2 or words.shape[1] != self.channels:
            what = f"tokens x {self.channels} channels of {self.element.width}-bit codes are needed"
            fail(what, value=(codes.dtype.name, codes.shape))
        at = 0
        while at < len(words):
            count = min(self.group_tokens - self._waiting, len(words) - at)
            self._recent[self._waiting : self._waiting + count] = words[at : at + count]
            self._waiting += count
            at += count
            if self._waiting == self.group_tokens:
                self._groups.append(self._encode(self._recent))
                self._waiting = 0

    def read(self, first: int = 0, last: int | None = None, bits: int | None = None) -> Numbers:
        """Tokens `first` to `last` as codes, tokens x channels, at `bits` (None: all, exact)."""
        end = len(self) if last is None else last
        depth = check_bits(self.element, bits)
        if not 0 <= first <= end <= len(self):
            fail("no such tokens", value=(first, end), fix=f"The cache holds {len(self)} tokens.")
        result = np.empty((end - first, self.channels), self._word)
        size = self.group_tokens
        for number in range(first // size, -(-end // size)):
            low, high = max(first, number * size), min(end, (number + 1) * size)
            if number < len(self._groups):
                group = self._decode(self._groups[number], depth)
            else:
                group = self._recent
                self.bytes_read += (high - low) * self.channels * self._word.itemsize
            result[low - first : high - first] = group[low - number * size : high - number * size]
        return result

    def append_torch(self, tokens: torch.Tensor) -> None:
        """Add tokens from a torch tensor of the cache's type (tokens x channels)."""
        import torch

        if tokens.dtype != getattr(torch, self.element.torch):
            fail(f"a {self.element.torch} tensor is needed", value=str(tokens.dtype))
        signed = {2: torch.int16, 4: torch.int32}[self._word.itemsize]
        self.append(tokens.detach().cpu().contiguous().view(signed).numpy().view(self._word))

    def read_torch(self, first: int = 0, last: int | None = None, bits: int | None = None) -> torch.Tensor:
        """As :meth:`read`, as a torch tensor of the cache's type."""
        from tierform.store.to_torch import from_codes

        return from_codes(self.element, self.read(first, last, bits))

    def copy(self) -> PlaneKVCache:
        """A cache that begins with the same tokens and goes on by itself; full groups are shared, not copied."""
        other = PlaneKVCache(self.channels, self.element.name, group_tokens=self.group_tokens, level=self._level)
        other._groups, other._waiting = list(self._groups), self._waiting
        other._recent[: self._waiting] = self._recent[: self._waiting]
        return other

    def crop(self, tokens: int) -> None:
        """Keep the first `tokens`; a group that is cut becomes ordinary words again."""
        if not 0 <= tokens <= len(self):
            fail("no such tokens", value=tokens, fix=f"The cache holds {len(self)} tokens.")
        full, rest = divmod(tokens, self.group_tokens)
        if full < len(self._groups):
            self._recent[:rest] = self._decode(self._groups[full], self.element.planes)[:rest] if rest else 0
            self._groups = self._groups[:full]
        self._waiting = rest

    def _encode(self, words: Numbers) -> _Group:
        mantissa, width = self.mantissa_bits, self.element.width
        turned = np.ascontiguousarray(words.T)
        base = np.empty(self.channels, self._word)
        symbols = np.empty(turned.shape, np.uint8)
        far = np.empty(turned.size, np.uint8)
        count = split_words(turned, mantissa, self.element.exponent_bits, base, symbols, far)
        compressor = self._zstd.ZstdCompressor(level=self._level)
        head = encode_rows(symbols, compressor)
        distant = compressor.compress(far[:count].tobytes())
        planes, coded = [], []
        for raw in self._packed(turned << self._word.type(width - mantissa)):
            small = compressor.compress(raw.tobytes())
            coded.append(len(small) < raw.size)
            planes.append(small if coded[-1] else raw.tobytes())
        group = _Group(base.astype(np.uint8), head, distant, count, tuple(planes), tuple(coded))
        if group.size_B < words.nbytes:
            return group
        return _Group(base.astype(np.uint8), None, words.tobytes(), 0, (), ())

    def _packed(self, left: Numbers) -> NDArray[np.uint8]:
        """The planes [plane, byte] of mantissas that stand at the upper end of their words, channel by channel."""
        from tierform.store.kernels import pack_blocks

        width = self.element.width
        weights = self.group_tokens * self.channels
        blocks = -(-weights // BLOCK_WEIGHTS)
        flat = np.zeros(blocks * BLOCK_WEIGHTS, self._word)
        flat[:weights] = left.reshape(-1)
        # a block's words as rows of the transpose: bit r of word j is token width * j + r of the run
        rows = np.ascontiguousarray(flat.reshape(blocks, BLOCK_WEIGHTS // width, width).swapaxes(1, 2))
        stored = np.empty(blocks * width * 8, np.uint64)
        pack_blocks(rows.reshape(-1).view(np.uint64), width, width, stored, 0, blocks * 8, 8, blocks)
        return stored.view(np.uint8).reshape(width, -1)[: self.mantissa_bits]

    def _decode(self, group: _Group, depth: int) -> Numbers:
        decompressor = self._zstd.ZstdDecompressor()
        wanted = depth - 1 - self.element.exponent_bits
        if group.head is None:
            self.bytes_read += len(group.far)
            words = np.frombuffer(group.far, self._word).reshape(self.group_tokens, self.channels).copy()
            cut_words(words, self.mantissa_bits, self.element.exponent_bits, self.mantissa_bits - wanted)
            return words
        self.bytes_read += group.base.nbytes + group.head.size_B + len(group.far)
        symbols = decode_rows(group.head, self.channels, self.group_tokens, decompressor)
        far = np.frombuffer(decompressor.decompress(group.far, max_output_size=max(group.distant, 1)), np.uint8)
        words = self._unpacked(group, wanted)
        join_words(words, symbols, far, group.base, self.mantissa_bits, self.element.exponent_bits)
        cut_words(words, self.mantissa_bits, self.element.exponent_bits, self.mantissa_bits - wanted)
        return words.T

    def _unpacked(self, group: _Group, wanted: int) -> Numbers:
        """Mantissas [channel, token] of which `wanted` planes are read."""
        from tierform.store.kernels import unpack_blocks
        from tierform.store.rounding import FILL_ZERO

        width = self.element.width
        weights = self.group_tokens * self.channels
        blocks = -(-weights // BLOCK_WEIGHTS)
        size = blocks * PLANE_BYTES
        decompressor = self._zstd.ZstdDecompressor()
        stored = np.empty((wanted, size), np.uint8)
        for plane in range(wanted):
            raw = group.planes[plane]
            self.bytes_read += len(raw)
            content = decompressor.decompress(raw, max_output_size=size) if group.coded[plane] else raw
            stored[plane] = np.frombuffer(content, np.uint8)
        starts = np.zeros(width, np.int64)
        starts[:wanted] = np.arange(wanted) * (size // 8)
        words = np.empty(blocks * width * 8, np.uint64)
        view = stored.reshape(-1).view(np.uint64)
        depth = np.full(1, wanted, np.uint8)
        unpack_blocks(view, starts, 8, 0, blocks, depth, 0, width, width, FILL_ZERO, 0, 0, words)
        rows = words.view(self._word).reshape(blocks, width, BLOCK_WEIGHTS // width).swapaxes(1, 2)
        left: Numbers = rows.reshape(-1)[:weights].reshape(self.channels, self.group_tokens)
        shifted: Numbers = left >> self._word.type(width - self.mantissa_bits)
        return shifted


def check_bits(element: Element, bits: int | None) -> int:
    """The planes to read for `bits` (None: all); TierformError unless sign and exponent are among them."""
    planes, least = element.planes, 1 + element.exponent_bits
    depth = planes if bits is None else bits
    if isinstance(depth, bool) or not least <= depth <= planes:
        fail(f"a {element.name} KV cache is read at {least} to {planes} bits", key="bits", value=bits)
    return depth
