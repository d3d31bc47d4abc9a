"""Address mapping: which channel, rank, bank group, bank, row and column a byte address means.

A mapping is a string of six two-letter fields from the most to the least significant bits, in any order: ``ch``
channel, ``ra`` rank, ``bg`` bank group, ``ba`` bank in the group, ``ro`` row, ``co`` column.  Below the last field lie
the bytes of one burst.  The notation is that of DRAMsim3's configuration files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tierform.errors import Problem, TierformError, nearest

FIELDS = ("ch", "ra", "bg", "ba", "ro", "co")
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AddressMap:
    """Bit positions and widths of the fields of one mapping; `burst_bytes` is the unit of an access."""

    text: str
    burst_bytes: int
    position: dict[str, int]
    width: dict[str, int]

    @property
    def capacity_B(self) -> int:
        """Bytes that the mapping reaches."""
        return self.burst_bytes << sum(self.width.values())

    def decode(self, address: Int64) -> dict[str, Int64]:
        """Field values of byte addresses; addresses beyond the capacity wrap."""
        burst = address // self.burst_bytes
        return {name: (burst >> self.position[name]) & ((1 << self.width[name]) - 1) for name in FIELDS}


def address_map(
    text: str, burst_bytes: int, counts: dict[str, int], file: str | None = None, line: int | None = None
) -> AddressMap:
    """The mapping `text` for fields of the given counts (powers of two); TierformError with all that is wrong."""
    problems: list[Problem] = []
    fields = [text[at : at + 2] for at in range(0, len(text), 2)]
    fix = "A mapping names ch, ra, bg, ba, ro and co once each, as in rorabacobgch."
    for field in fields:
        if field not in FIELDS:
            close = nearest(field, FIELDS)
            problems.append(Problem(f"{field!r} is no field of an address", file, line, "address_mapping", text, close))
        elif fields.count(field) > 1:
            problems.append(Problem(f"the field {field!r} stands twice", file, line, "address_mapping", text))
    missing = [field for field in FIELDS if field not in fields]
    if missing:
        what = f"the mapping leaves {', '.join(missing)} unresolved"
        problems.append(Problem(what, file, line, "address_mapping", text, fix=fix))
    for name in FIELDS:
        if counts[name] < 1 or counts[name] & (counts[name] - 1):
            what = f"the mapping needs a power of two for {name!r}"
            problems.append(Problem(what, file, line, "address_mapping", counts[name]))
    if burst_bytes & (burst_bytes - 1):
        problems.append(Problem("the bytes of a burst must be a power of two", file, line, value=burst_bytes))
    if not problems and burst_bytes * math.prod(counts.values()) > 2**56:
        problems.append(Problem("the capacity is beyond 2^56 bytes", file, line))
    if problems:
        raise TierformError(dict.fromkeys(problems))
    position, width, at = {}, {}, 0
    for field in reversed(fields):
        position[field], width[field] = at, counts[field].bit_length() - 1
        at += width[field]
    return AddressMap(text, burst_bytes, position, width)
