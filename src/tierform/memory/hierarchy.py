"""Which part of a footprint waits in which memory: the nearest tier first, the rest spills to the next.

Parts are placed in the order given (put first what must be nearest), each filling what the tiers before have left.
A part may be split between tiers.  Nothing is moved later: this is a static placement by capacity alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tierform.errors import Problem, TierformError, fail
from tierform.units import format_quantity


class MemoryTier(Protocol):
    """What a memory tier must tell to be placed in."""

    @property
    def name(self) -> str:
        """The tier's name, for messages and reports."""
        ...

    @property
    def capacity_B(self) -> int:
        """Bytes that it holds."""
        ...


@dataclass(frozen=True, slots=True)
class TierShare:
    """`size_B` bytes of a part in tier number `tier` (0 is the nearest) called `tier_name`."""

    tier: int
    tier_name: str
    size_B: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where every part waits.  `shares` by part, nearest tier first; capacities and use by tier."""

    shares: Mapping[str, tuple[TierShare, ...]]
    tier_names: tuple[str, ...]
    capacity_B: tuple[int, ...]
    used_B: tuple[int, ...]

    @property
    def spilled_B(self) -> int:
        """Bytes that are not in the nearest tier."""
        return sum(self.used_B[1:])

    @property
    def spilled(self) -> dict[str, int]:
        """Bytes of each part beyond the nearest tier, parts that fit left out."""
        away = {part: sum(share.size_B for share in shares if share.tier > 0) for part, shares in self.shares.items()}
        return {part: size for part, size in away.items() if size}

    def fractions(self, part: str) -> dict[int, float]:
        """Tier number -> fraction of `part` that waits there."""
        if part not in self.shares:
            fail("no such part of the footprint", value=part, choices=self.shares)
        total = sum(share.size_B for share in self.shares[part])
        return {share.tier: share.size_B / total for share in self.shares[part]} if total else {0: 1.0}


class DoesNotFit(TierformError):
    """A footprint is larger than all tiers together, by so many bytes."""

    def __init__(self, what: str, parts_B: Mapping[str, int], available_B: int, fix: str = "") -> None:
        self.what, self.parts_B, self.available_B = what, dict(parts_B), available_B
        self.needed_B = sum(parts_B.values())
        plain = "Add a memory tier or stacks, or make the batch, the sequence or the precision smaller."
        super().__init__([Problem(what, fix=fix or plain)])

    def with_fix(self, fix: str) -> DoesNotFit:
        """The same with other advice."""
        return DoesNotFit(self.what, self.parts_B, self.available_B, fix)


def place_footprint(
    footprint: Mapping[str, int], tiers: Sequence[MemoryTier], aside: Mapping[str, float] | None = None
) -> Placement:
    """Place the parts of `footprint` (bytes by name, most important first) in `tiers` (nearest first).

    Of the parts in `aside` such a share is put into no nearer tier than the second, wherever there is room.
    TierformError naming the parts and the missing bytes when all tiers together are too small.
    """
    if not tiers:
        fail("the chip has no memory tier to place the footprint in")
    problems = [
        Problem("a footprint cannot be negative", key=part, value=size) for part, size in footprint.items() if size < 0
    ]
    if problems:
        raise TierformError(problems)
    needed, available = sum(footprint.values()), sum(tier.capacity_B for tier in tiers)
    if needed > available:
        parts = ", ".join(f"{part} {format_quantity(size, 'B')}" for part, size in footprint.items() if size)
        held = " + ".join(f"{tier.name} {format_quantity(tier.capacity_B, 'B')}" for tier in tiers)
        what = (
            f"the footprint of {format_quantity(needed, 'B')} ({parts}) does not fit in {held}; "
            f"{format_quantity(needed - available, 'B')} are missing"
        )
        raise DoesNotFit(what, footprint, available)
    free = [tier.capacity_B for tier in tiers]
    shares: dict[str, tuple[TierShare, ...]] = {}
    for part, size in footprint.items():
        away = round(size * (aside or {}).get(part, 0.0))
        placed = [0] * len(tiers)
        for rest, first in ((size - away, 0), (away, 1)):
            for index in range(first, len(tiers)):
                taken = min(rest, free[index])
                placed[index] += taken
                free[index] -= taken
                rest -= taken
            if rest:
                fail(
                    f"{format_quantity(rest, 'B')} of {part} find no place behind the nearest memory",
                    value=part,
                    fix="Give the chip a memory tier behind its own: memory: [{device: cxl-ddr5-x8}].",
                )
        where = [index for index, taken in enumerate(placed) if taken] or [0]
        shares[part] = tuple(TierShare(index, tiers[index].name, placed[index]) for index in where)
    capacity = tuple(tier.capacity_B for tier in tiers)
    used = tuple(total - left for total, left in zip(capacity, free, strict=True))
    return Placement(shares, tuple(tier.name for tier in tiers), capacity, used)
