"""Traces in DRAMsim3's format: one request a line, ``0xADDRESS READ|WRITE CYCLE``, cycles not falling."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tierform.errors import fail
from tierform.files import read_text
from tierform.memory.cycle.trace import Trace

MAX_TRACE_BYTES = 2 * 2**30
_HEXADECIMAL = re.compile(r"(0[xX])?[0-9a-fA-F]{1,16}")
_WRITES = frozenset(("WRITE", "P_MEM_WR", "BOFF"))
_READS = frozenset(("READ", "P_MEM_RD", "P_FETCH", "P_LOCK_RD", "IFETCH"))


def read_trace(path: Path | str) -> Trace:
    """The requests of a DRAMsim3 trace; TierformError with the line of the first mistake."""
    return parse_trace(read_text(path, MAX_TRACE_BYTES), str(path))


def parse_trace(text: str, file: str) -> Trace:
    """As :func:`read_trace`, from a text."""
    fields = text.split()
    if fields and len(fields) % 3 == 0 and text.isascii() and not set(text) & set("#_+"):
        try:
            kinds = [word.upper() for word in fields[1::3]]
            if set(kinds) <= _WRITES | _READS:
                address = np.array([int(word, 16) for word in fields[0::3]], np.int64)
                cycle = np.array(fields[2::3], np.int64)
                trace = Trace(cycle, address, np.array([word in _WRITES for word in kinds], np.bool_))
                if (
                    not np.any(np.diff(cycle) < 0)
                    and cycle[0] >= 0
                    and address.min() >= 0
                    and text.count("\n") >= len(trace) - 1
                ):
                    return trace
        except (ValueError, OverflowError):
            pass
    return _read_lines(text, file)


def _read_lines(text: str, file: str) -> Trace:
    addresses, writes, cycles = [], [], []
    last = 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("#", 1)[0].split()
        if not line:
            continue
        fix = "A line is '0xADDRESS READ|WRITE CYCLE'."
        if len(line) != 3:
            fail("this is not a request", file=file, line=number, value=raw.strip(), fix=fix)
        if not _HEXADECIMAL.fullmatch(line[0]):
            fail("the address is not hexadecimal", file=file, line=number, value=line[0], fix=fix)
        address = int(line[0], 16)
        if address >= 2**63:
            fail("the address is out of range", file=file, line=number, value=line[0])
        kind = line[1].upper()
        if kind not in _WRITES and kind not in _READS:
            fail("neither a read nor a write", file=file, line=number, value=line[1], choices=_WRITES | _READS, fix=fix)
        if not (line[2].isascii() and line[2].isdigit()) or len(line[2]) > 18:
            fail("the cycle is not a whole number", file=file, line=number, value=line[2], fix=fix)
        cycle = int(line[2])
        if cycle < last:
            fail(f"the trace goes back in time, from cycle {last}", file=file, line=number, value=cycle)
        last = cycle
        addresses.append(address)
        writes.append(kind in _WRITES)
        cycles.append(cycle)
    if not cycles:
        fail("the trace holds no request", file=file)
    return Trace(np.array(cycles, np.int64), np.array(addresses, np.int64), np.array(writes, np.bool_))
