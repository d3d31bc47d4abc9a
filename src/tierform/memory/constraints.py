"""Timing constraints as data: which command must wait how long after which other, and where.

A standard's file writes one constraint per line, ``scope | earlier commands -> later commands | spacing``, where the
spacing is a formula in clock cycles (:mod:`tierform.memory.formula`).  Scopes: ``bank`` the same bank, ``group`` any
bank of the same group, ``rank`` any bank of the same rank, ``others`` any bank of another rank, ``channel`` anything on
the channel's command bus.  A fourth field counts the spacing from that many earlier commands back (nFAW: 4).
Commands: ACT activate, PRE precharge one bank, RD and WR read and write, RDA and WRA the same with automatic precharge,
REF refresh a rank, REFB refresh one bank (or one bank of each group), SRE and SRX enter and leave self-refresh, PDE and
PDX enter and leave power-down, RFM refresh management of a rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tierform.errors import Problem, TierformError, nearest
from tierform.memory.formula import MOST_CYCLES, FormulaError, evaluate
from tierform.memory.spec import DramSpec

COMMANDS = ("ACT", "PRE", "RD", "RDA", "WR", "WRA", "REF", "REFB", "SRE", "SRX", "PDE", "PDX", "RFM")
ACT, PRE, RD, RDA, WR, WRA, REF, REFB, SRE, SRX, PDE, PDX, RFM = range(len(COMMANDS))
_WINDOWS = tuple(str(count) for count in range(2, 257))
SCOPES = ("bank", "group", "rank", "others", "channel")


@dataclass(frozen=True, slots=True)
class Constraint:
    """`later` may follow `earlier` in `scope` after `cycles`, counted from the `window`-th last `earlier`."""

    scope: str
    earlier: str
    later: str
    cycles: int
    window: int
    formula: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class ConstraintTable:
    """The constraints of one memory: the list, and arrays for the kernels.

    `spacing[scope, earlier, later]` in cycles, 0 where there is none; `windows[n] = (count, cycles)` of activations in
    one rank.
    """

    constraints: tuple[Constraint, ...]
    spacing: npt.NDArray[np.int64]
    windows: npt.NDArray[np.int64]


# Tables that were evaluated: checking every spacing asks for the same one again and again.
_MOST_TABLES = 32
_TABLES: dict[tuple[object, ...], ConstraintTable] = {}


def constraint_table(spec: DramSpec) -> ConstraintTable:
    """Read and evaluate the constraints of `spec`; TierformError with every line that is wrong."""
    key = (spec.constraint_text, spec.constraint_line, spec.file, spec.clock_s, tuple(spec.timings.items()))
    if key not in _TABLES:
        if len(_TABLES) >= _MOST_TABLES:
            _TABLES.clear()
        _TABLES[key] = _evaluated(spec)
    return _TABLES[key]


def _evaluated(spec: DramSpec) -> ConstraintTable:
    found: list[Constraint] = []
    problems: list[Problem] = []
    for offset, text in enumerate(spec.constraint_text.splitlines()):
        line = spec.constraint_line + offset if spec.file else None
        if text.strip() and not text.lstrip().startswith("#"):
            try:
                found.extend(_read(text, spec, line))
            except FormulaError as error:
                problems.append(Problem(str(error), spec.file or None, line, "constraints"))
    if problems:
        raise TierformError(problems)
    spacing = np.zeros((len(SCOPES), len(COMMANDS), len(COMMANDS)), np.int64)
    windows: list[tuple[int, int]] = []
    for item in found:
        if item.window > 1:
            windows.append((item.window, item.cycles))
            continue
        at = (SCOPES.index(item.scope), COMMANDS.index(item.earlier), COMMANDS.index(item.later))
        spacing[at] = max(spacing[at], item.cycles)
    return ConstraintTable(tuple(found), spacing, np.array(windows, np.int64).reshape(-1, 2))


def _read(text: str, spec: DramSpec, line: int | None) -> list[Constraint]:
    parts = [part.strip() for part in text.split("|")]
    if len(parts) not in (3, 4) or "->" not in parts[1]:
        raise FormulaError(f"{text.strip()!r} is not 'scope | earlier -> later | spacing [| window]'")
    scope, window = parts[0], 1
    if scope not in SCOPES:
        close = nearest(scope, SCOPES)
        raise FormulaError(f"unknown scope {scope!r}" + (f"; did you mean {close!r}?" if close else ""))
    earlier, later = (side.split() for side in parts[1].split("->", 1))
    for command in (*earlier, *later):
        if command not in COMMANDS:
            raise FormulaError(f"unknown command {command!r}; known: {', '.join(COMMANDS)}")
    if len(parts) == 4:
        if parts[3] not in _WINDOWS or scope != "rank" or (earlier, later) != (["ACT"], ["ACT"]):
            raise FormulaError("a window of 2 to 256 is counted for 'rank | ACT -> ACT' only")
        window = int(parts[3])

    def value_of(name: str) -> float:
        if name not in spec.timings:
            close = nearest(name, spec.timings)
            raise FormulaError(
                f"{name!r} is no timing of this memory" + (f"; did you mean {close!r}?" if close else "")
            )
        return spec.timings[name]

    cycles = evaluate(parts[2], value_of, spec.clock_s * 1e9)
    if not 0 <= cycles <= MOST_CYCLES or cycles != int(cycles):
        raise FormulaError(f"the spacing {parts[2]!r} is {cycles:g}, not a whole number of cycles of at least 0")
    return [
        Constraint(scope=scope, earlier=a, later=b, cycles=int(cycles), window=window, formula=parts[2], line=line)
        for a in earlier
        for b in later
    ]
