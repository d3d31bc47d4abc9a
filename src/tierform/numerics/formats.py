"""How numbers are rounded, said without torch: one quantizer's settings, and which module gets how many bits.

A quantizer has a format (``int2`` to ``int8``, ``nf4``, ``fp8`` = ``fp8-e4m3``, ``fp8-e5m2``), a granularity (what
shares one scale), a symmetry, and a way to find its range.  A :class:`BitPlan` gives weights, activations and KV cache
their widths; weights may differ by module, as in ``M8F4`` (8-bit attention, 4-bit feed-forward) or by name pattern.

Sources of the formats: NF4 is Dettmers et al., QLoRA (NeurIPS 2023), appendix E; FP8 is the OCP 8-bit floating point
specification (2023).
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, replace
from typing import Literal

from tierform.errors import fail

Granularity = Literal["tensor", "channel", "group", "crossbar", "column"]
RangeRule = Literal["range", "percentile", "mse"]
GRANULARITIES = ("tensor", "channel", "group", "crossbar", "column")
RANGE_RULES = ("range", "percentile", "mse")
FORMATS = ("int2", "int3", "int4", "int5", "int6", "int7", "int8", "nf4", "fp8", "fp8-e4m3", "fp8-e5m2")


@dataclass(frozen=True, slots=True)
class Quantizer:
    """Settings of one quantizer.

    `granularity`: ``tensor``, ``channel`` (one scale per output row), ``group`` (`group` inputs of a row) or
    ``crossbar`` (blocks of `block` = (inputs, outputs), one per crossbar) or ``column`` (the inputs of a block, one
    output: the column sums of a weight in one crossbar).  `rule` finds the range: the largest magnitude, the
    `percentile` of magnitudes, or the clipping with the least squared error among 32.
    """

    format: str = "int8"
    granularity: Granularity = "tensor"
    symmetric: bool = True
    rule: RangeRule = "range"
    percentile: float = 99.9
    group: int = 64
    block: tuple[int, int] = (128, 32)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            fail("unknown quantization format", value=self.format, choices=FORMATS, fix=f"Known: {', '.join(FORMATS)}.")
        if self.granularity not in GRANULARITIES:
            fail("unknown granularity", value=self.granularity, choices=GRANULARITIES)
        if self.rule not in RANGE_RULES:
            fail("unknown calibration rule", value=self.rule, choices=RANGE_RULES)
        if not 50 < self.percentile <= 100:
            fail("a percentile above 50 and up to 100 is needed", key="percentile", value=self.percentile)
        if self.group < 1 or min(self.block) < 1:
            fail("groups and blocks hold at least one value", key="group", value=(self.group, self.block))
        if not self.symmetric and not self.format.startswith("int"):
            fail("only integer formats may be asymmetric", key="symmetric", value=self.format)

    @property
    def bits(self) -> int:
        """Bits of one value."""
        return 8 if self.format.startswith("fp8") else int(self.format[-1])

    @property
    def integer_range(self) -> tuple[int, int]:
        """Least and greatest integer: symmetric leaves out the most negative one, so that zero is in the middle."""
        top = 2 ** (self.bits - 1) - 1
        return (-top, top) if self.symmetric else (0, 2**self.bits - 1)


@dataclass(frozen=True, slots=True)
class BitPlan:
    """Integer widths: `attention` and `ffn` for the weights of those modules, `other` for the remaining weights.

    `patterns` holds (module name pattern, bits) that come first.  `activations` is the input width, `kv_cache` the
    width of stored keys and values (0: left as they are).
    """

    attention: int = 8
    ffn: int = 8
    other: int = 8
    activations: int = 8
    kv_cache: int = 0
    patterns: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        widths = [self.attention, self.ffn, self.other, self.activations, *(bits for _, bits in self.patterns)]
        for width in widths:
            if not 2 <= width <= 8:
                fail("weights and activations take 2 to 8 bits", key="bits", value=width)
        if self.kv_cache and not 2 <= self.kv_cache <= 8:
            fail("the KV cache takes 2 to 8 bits, or 0 to leave it", key="kv_cache", value=self.kv_cache)

    @classmethod
    def parse(cls, text: str | int | BitPlan) -> BitPlan:
        """From ``8``, ``W4A8``, ``M8F4``, ``M8F4A8KV8``: weights W (or M attention, F feed-forward), A, KV."""
        if isinstance(text, BitPlan):
            return text
        written = str(text).strip().upper()
        if re.fullmatch("[0-9]{1,3}", written):
            return cls(int(written), int(written), int(written))
        match = re.fullmatch(r"(?:W(\d)|M(\d)F(\d))(?:A(\d))?(?:KV(\d))?", written, re.ASCII)
        if match is None:
            fail("this is not a bit plan", key="bits", value=text, fix="Write 8, W4A8, M8F4 or M8F4A8KV8.")
        both, attention, ffn, activations, cache = (int(part) if part else None for part in match.groups())
        if both is not None:
            attention = ffn = other = both
        else:
            other = max(attention or 8, ffn or 8)
        return cls(attention or 8, ffn or 8, other or 8, activations or 8, cache or 0)

    def with_pattern(self, pattern: str, bits: int) -> BitPlan:
        """This plan with an exception for module names that match a shell-style pattern (first match counts)."""
        return replace(self, patterns=(*self.patterns, (pattern, bits)))

    def weight_bits(self, module: str, role: str) -> int:
        """Bits of a weight, by its module name and its role (``attention``, ``ffn``, ...)."""
        for pattern, bits in self.patterns:
            if fnmatch.fnmatchcase(module, pattern):
                return bits
        return {"attention": self.attention, "ffn": self.ffn}.get(role, self.other)

    def __str__(self) -> str:
        weights = f"W{self.attention}" if self.attention == self.ffn else f"M{self.attention}F{self.ffn}"
        return f"{weights}A{self.activations}" + (f"KV{self.kv_cache}" if self.kv_cache else "")
