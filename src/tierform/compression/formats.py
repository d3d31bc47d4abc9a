"""Formats of compressed weights, said without torch: integers in groups with scales, NF4, and densities.

``int4-g64z`` is 4-bit integers, one fp16 scale and one zero point for 64 successive inputs of an output;
``int8`` has one scale for each output; ``nf4-64`` the 16 values of NF4 in groups of 64.  Without ``z`` integers are
symmetric.  A density is a share of weights kept (``0.5``) or a pattern (``2:4``: two of every four inputs).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tierform.errors import fail

SCALE_BITS = 16
_TEXT = re.compile(r"int([2-8])(?:-g?([0-9]{1,4}))?(z)?|nf4-g?([0-9]{1,4})|float")


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """Element `bits`, `group` inputs to a scale (0: all inputs of an output), with or without a `zero` point."""

    bits: int
    group: int = 0
    zero: bool = False
    kind: str = "int"

    @classmethod
    def parse(cls, text: str | WeightFormat) -> WeightFormat:
        """From ``int4-g64z``, ``int8``, ``int3-g64``, ``nf4-64`` or ``float``; TierformError for anything else."""
        if isinstance(text, WeightFormat):
            return text
        match = _TEXT.fullmatch(text.strip().lower())
        if match is None:
            fail(
                "this is not a format of compressed weights",
                key="format",
                value=text,
                fix="For example int4-g64z (4 bits, groups of 64, a zero point), int8, int3-g128, nf4-64 or float.",
            )
        bits, group, zero, nf_group = match.groups()
        if bits is None and nf_group is None:
            return cls(16, kind="float")
        chosen = int((group if bits else nf_group) or 0)
        if chosen and not 8 <= chosen <= 4096:
            fail("a group has 8 to 4096 inputs", key="format", value=text)
        if nf_group is not None:
            return cls(4, chosen, False, "nf")
        return cls(int(bits), chosen, bool(zero))

    def bits_per_weight(self, inputs: int) -> float:
        """Bits of one weight with its share of scale and zero point, for `inputs` inputs."""
        if self.kind == "float":
            return float(self.bits)
        groups = -(-inputs // self.group) if self.group else 1
        return self.bits + groups * (SCALE_BITS + (self.bits if self.zero else 0)) / inputs

    def __str__(self) -> str:
        if self.kind == "float":
            return "float"
        if self.kind == "nf":
            return f"nf4-{self.group}"
        return f"int{self.bits}" + (f"-g{self.group}" if self.group else "") + ("z" if self.zero else "")


@dataclass(frozen=True, slots=True)
class Density:
    """How many weights are kept: a `share`, or `kept` of every `of` successive inputs."""

    share: float = 1.0
    kept: int = 0
    of: int = 0

    @classmethod
    def parse(cls, text: str | float | Density) -> Density:
        """From ``0.5`` or ``2:4``; TierformError for anything else."""
        if isinstance(text, Density):
            return text
        written = str(text).strip()
        pattern = re.fullmatch(r"([0-9]{1,2}):([0-9]{1,2})", written)
        if pattern:
            kept, of = int(pattern.group(1)), int(pattern.group(2))
            if 0 < kept <= of:
                return cls(kept / of, kept, of)
        else:
            try:
                share = float(written)
            except ValueError:
                share = -1.0
            if 0 < share <= 1:
                return cls(share)
        return fail("a density is a share kept (0.5) or a pattern (2:4)", key="density", value=text)

    @property
    def dense(self) -> bool:
        """Whether nothing is taken away."""
        return self.share == 1.0

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}" if self.of else f"{self.share:g}"


DENSE = Density()
FLOAT = WeightFormat(16, kind="float")
