"""Ramulator's memory traces: one request a line, without a cycle, so each is offered as soon as it is taken.

Version 2 writes ``LD ADDRESS`` and ``ST ADDRESS``, and ``R`` and ``W`` with an address or with an address vector,
``R channel,rank,bank group,bank,row,column``; version 1 writes ``0xADDRESS R``.  Addresses are bytes, hexadecimal with
``0x`` and decimal without.  A vector's column counts columns, as there; without bank groups it may leave them out.
"""

from __future__ import annotations

import re

import numpy as np

from tierform.errors import fail
from tierform.memory.cycle.trace import Trace
from tierform.memory.spec import DramSpec

_READS, _WRITES = ("R", "LD"), ("W", "ST")
_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19}")
_VECTOR = re.compile(r"[0-9]{1,9}(,[0-9]{1,9}){4,5}")
# The order of a vector's fields, and which field of a mapping each is.
_ORDER = ("ch", "ra", "bg", "ba", "ro", "co")
_NAMES = ("channel", "rank", "bank group", "bank", "row", "column")


def is_ramulator_trace(text: str) -> bool:
    """Whether the first request of a trace's text is one of Ramulator's: two words, one of them R, W, LD or ST."""
    for raw in text.splitlines():
        words = raw.split("#", 1)[0].split()
        if words:
            return len(words) == 2 and any(word.upper() in (*_READS, *_WRITES) for word in words)
    return False


def parse_trace(text: str, spec: DramSpec, file: str) -> Trace:
    """The requests of a Ramulator trace for a memory of `spec`; TierformError with the line of the first mistake."""
    addresses, writes = [], []
    fix = "A line is 'LD|ST ADDRESS', 'R|W ADDRESS', 'R|W ch,ra,bg,ba,ro,co' or '0xADDRESS R|W'."
    for number, raw in enumerate(text.splitlines(), 1):
        words = raw.split("#", 1)[0].split()
        if not words:
            continue
        if len(words) != 2:
            fail("this is not a request", file=file, line=number, value=raw.strip(), fix=fix)
        kind, where = words if words[0].upper() in (*_READS, *_WRITES) else reversed(words)
        if kind.upper() not in (*_READS, *_WRITES):
            fail("neither a read nor a write", file=file, line=number, value=raw.strip(), fix=fix)
        if _ADDRESS.fullmatch(where):
            address = int(where, 16 if where[:2] in ("0x", "0X") else 10)
        elif _VECTOR.fullmatch(where):
            address = _of_vector([int(part) for part in where.split(",")], spec, file, number)
        else:
            fail("this is no address", file=file, line=number, value=where, fix=fix)
        if address >= 2**63:
            fail("the address is out of range", file=file, line=number, value=where)
        addresses.append(address)
        writes.append(kind.upper() in _WRITES)
    if not addresses:
        fail("the trace holds no request", file=file)
    return Trace(np.zeros(len(addresses), np.int64), np.array(addresses, np.int64), np.array(writes, np.bool_))


def _of_vector(values: list[int], spec: DramSpec, file: str, line: int) -> int:
    """The byte address of an address vector."""
    if len(values) == 5:
        if spec.bank_groups > 1:
            fail(f"the memory has bank groups: {len(_NAMES)} fields are needed", file=file, line=line, value=values)
        values = [*values[:2], 0, *values[2:]]
    mapping = spec.address_map()
    values[-1] //= spec.burst_length
    burst = 0
    for name, field, value in zip(_NAMES, _ORDER, values, strict=True):
        if value >> mapping.width[field]:
            most = (1 << mapping.width[field]) - 1
            fail(
                f"the {name} is at most {most}" + (" bursts" if field == "co" else ""),
                file=file,
                line=line,
                value=value,
            )
        burst |= value << mapping.position[field]
    return burst * spec.burst_bytes
