"""What must hold: which published figures of Atleus, HeTraX and HpT can be true at once, and under which assumptions.

Their texts leave open how many arrays there are and how fast, what these spend, which GPU ran with which software, how
many stacks a baseline has.  Each of these is taken over a stated plausible range, every combination is tried, and a
figure holds where it comes within a quarter of the published number or has the published sign.
Nothing of the library is changed: its own values are one of the combinations.
Limits: what is told is exact for the values that are tried, and for this library's models alone; a constant that is
published or measured is not varied; few sizes of task stand for all of a paper's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tierform import __version__
from tierform.chip.description import load_chip
from tierform.errors import fail
from tierform.exploration.evaluator import Outcome
from tierform.exploration.results_base import ResultsBase
from tierform.library import citation
from tierform.provenance import Assumption
from tierform.studies.must_hold_chips import atleus, hetrax
from tierform.studies.must_hold_hpt import hpt
from tierform.studies.must_hold_parts import Design, Side, Swing, System, Tried, Value, swings
from tierform.studies.study import Cell, Check, Picture, StudyOptions, StudyResult, Table

SYSTEMS: dict[str, Callable[[], System]] = {"atleus": atleus, "hetrax": hetrax, "hpt": hpt}
SETTINGS = ("systems", "file")
SOURCES = ("atleus-2025", "hetrax-2024", "hpt-2024", "haima-2023", "transpim-2022", "horowitz-2014")
# The chips of the library that a kept figure depends on: where one of them changes, it is made anew.
CHIPS = ("atleus", "hetrax", "hpt", "haima", "transpim", "tpu-3d", "a100", "v100", "jetson-agx-orin")
BATCH = 20  # designs between two writes to the file


class Kept:
    """Figures of designs, in memory and, where a file is named, there too: what is there is not simulated again."""

    def __init__(self, path: Path | None) -> None:
        self._known: dict[tuple[tuple[str, Value], ...], dict[str, float]] = {}
        self._new: list[dict[str, Value]] = []
        self._base = ResultsBase(path) if path else None
        self._stamp = f"{__version__} {' '.join(load_chip(name).fingerprint[:8] for name in CHIPS)}"
        if self._base is not None:
            if (kind := self._base.fact("kind") or "must-hold") != "must-hold" or self._base.fact("space"):
                fail("this is the file of another study", file=str(path), value=kind, fix="Name another file.")
            self._base.set_fact("kind", "must-hold")
            for row in self._base.rows():
                self._known[self._key(row.chosen)] = row.outcome.figures  # type: ignore[arg-type]

    @staticmethod
    def _key(design: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
        return tuple(sorted(design.items()))

    def figures(self, system: System, side: Side, design: Design) -> dict[str, float]:
        """The figures of a design of a side."""
        whole = {**design, ".system": system.name, ".side": side.name, ".of": self._stamp}
        key = self._key(whole)
        if key not in self._known:
            self._known[key] = side.evaluate(design)
            self._new.append(whole)
            if len(self._new) >= BATCH:
                self.write()
        return self._known[key]

    def write(self) -> None:
        """Write what is new to the file."""
        if self._base is not None:
            self._base.write_done((dict(one), Outcome(self._known[self._key(one)]), ()) for one in self._new)
        self._new.clear()


def tried(system: System, kept: Kept, options: StudyOptions) -> Tried:
    """Simulate every design of every side once."""
    designs, figures = [], {}
    own: dict[str, NDArray[np.float64]] = {}
    for axis, side in enumerate(system.sides):
        mine = side.designs(options.quick)
        found = []
        for number, design in enumerate(mine, 1):
            options.say(f"{system.name}: {side.name} {number} of {len(mine)}")
            found.append(kept.figures(system, side, design))
        shape = [-1 if number == axis else 1 for number in range(len(system.sides))]
        for name in dict.fromkeys(key for one in found for key in one):
            array = np.array([one.get(name, math.nan) for one in found])
            figures[f"{side.name}: {name}"] = array.reshape(shape)
        own |= {f"{side.name}: {key}": np.array([value]) for key, value in kept.figures(system, side, side.own).items()}
        designs.append(mine)
    return Tried(system, tuple(designs), figures, own)


def run(options: StudyOptions) -> StudyResult:
    """The study.  Settings: ``systems`` (atleus,hetrax,hpt), ``file`` (keeps what was simulated, and goes on there)."""
    options.check_settings(SETTINGS)
    names = [name.strip() for name in (options.settings.get("systems") or ",".join(SYSTEMS)).split(",")]
    for name in names:
        if name not in SYSTEMS:
            fail("no such system", key="systems", value=name, choices=SYSTEMS, fix=", ".join(SYSTEMS))
    file = options.settings.get("file")
    kept = Kept(Path(file) if file else None)
    before = [load_chip(name).fingerprint for name in CHIPS]
    found, tornadoes = [], []
    try:
        for name in names:
            system = SYSTEMS[name]()
            found.append(tried(system, kept, options))
            options.say(f"{system.name}: one assumption at a time")
            for number, claim in enumerate(system.claims):
                if claim.headline and claim.unit == "times":
                    moved = swings(system, claim, partial(kept.figures, system))
                    tornadoes.append((found[-1], number, moved))
    finally:
        kept.write()
    charts = [(one, number, tornado_table(one, number, moved)) for one, number, moved in tornadoes]
    return StudyResult(
        study="must-hold",
        title="What must hold: published figures of Atleus, HeTraX and HpT that can be true at once",
        tables=(
            figures_table(found),
            conflicts_table(found),
            needs_table(found),
            alone_table(found),
            *(table for _, _, table in charts),
        ),
        checks=_checks(found, before),
        remarks=_remarks(found, options.quick),
        assumptions=_ranges(found),
        sources=tuple(citation(key).text for key in SOURCES),
        pictures=tuple(_picture(one, number, table) for one, number, table in charts),
    )


def figures_table(found: list[Tried]) -> Table:
    """Every claim: as shipped, over the ranges, and whether it is in the largest set."""
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        for number, claim in enumerate(one.system.claims):
            value, now = one.values[number], one.as_shipped[number]
            seen = value[np.isfinite(value)]
            inside = sum(number in claims for claims in one.largest)
            rows.append(
                (
                    one.system.name,
                    claim.name,
                    claim.published,
                    claim.rule,
                    now,
                    claim.low <= now <= claim.high,
                    float(seen.min()) if seen.size else None,
                    float(seen.max()) if seen.size else None,
                    one.can((number,)),
                    _inside(inside, len(one.largest)) if claim.counts else "",
                )
            )
    head = (
        "system",
        "figure",
        "published",
        "holds if",
        "as shipped",
        "holds so",
        "least",
        "most",
        "can hold",
        "together",
    )
    note = (
        "Least and most: over every combination of the ranges.  Together: whether it is in the largest sets of figures "
        "that hold at once."
    )
    return Table("Published figures over the ranges", head, tuple(rows), note)


def _inside(number: int, of: int) -> str:
    """In how many of the largest sets a figure is."""
    return "yes" if number == of else f"{number} of {of}" if number else "no"


def conflicts_table(found: list[Tried]) -> Table:
    """What no combination has at once."""
    rows: list[tuple[Cell, ...]] = [
        (one.system.name, " with ".join(one.system.claims[number].name for number in claims), len(claims))
        for one in found
        for claims in one.conflicts
    ]
    note = "The smallest sets of up to three; one figure: out of reach by itself."
    return Table("What cannot hold together", ("system", "figures", "how many"), tuple(rows), note)


def needs_table(found: list[Tried]) -> Table:
    """For the largest set: the values that each assumption may have, and the combination nearest to the library."""
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        claims = _chosen(one)
        needed, (nearest, _) = one.needed(claims), one.nearest(claims)
        rows += [
            (
                one.system.name,
                f"{side.name}: {knob.name}" + (f" ({knob.unit})" if knob.unit else ""),
                _text(knob.own),
                _list(knob.values),
                _list(needed[side.name, knob.name]),
                _text(nearest[side.name][knob.name]),
            )
            for side in one.system.sides
            for knob in side.knobs
        ]
    head = ("system", "assumption", "library", "tried", "can be", "nearest")
    note = "With the largest set of figures at once: what each assumption can be, and the combination with the fewest "
    note += "steps from the library."
    return Table("What the largest set needs", head, tuple(rows), note)


def alone_table(found: list[Tried]) -> Table:
    """For each figure by itself, the assumptions that it restricts."""
    rows: list[tuple[Cell, ...]] = []
    for one in found:
        for number, claim in enumerate(one.system.claims):
            if not (claim.counts and one.can((number,))):
                continue
            needed = one.needed((number,))
            for side, designs in zip(one.system.sides, one.designs, strict=True):
                for knob in side.knobs:
                    values = needed[side.name, knob.name]
                    if len(values) < len({design[knob.name] for design in designs}):
                        rows.append(
                            (one.system.name, claim.name, f"{side.name}: {knob.name}", _text(knob.own), _list(values))
                        )
    head = ("system", "figure", "assumption", "library", "must be one of")
    return Table("What each figure needs by itself", head, tuple(rows), "Assumptions that it leaves open are left out.")


def tornado_table(one: Tried, number: int, moved: list[Swing]) -> Table:
    """What each assumption alone does to a figure."""
    claim = one.system.claims[number]
    now = one.as_shipped[number]
    rows: list[tuple[Cell, ...]] = [
        (
            f"{swing.side}: {swing.knob.name}, {_text(swing.knob.values[0])} to {_text(swing.knob.values[-1])} "
            f"{swing.knob.unit}".rstrip(),
            swing.low,
            swing.high,
            now,
        )
        for swing in moved
    ]
    head = ("assumption, from to", "at the first", "at the last", "as shipped")
    title = f"{one.system.name}, {claim.name}: one assumption at a time"
    return Table(title, head, tuple(rows), f"Published: {claim.published}.  All other assumptions as in the library.")


def _picture(one: Tried, number: int, table: Table) -> Picture:
    published = one.system.claims[number].published
    assert isinstance(published, float)
    return Picture(
        table=table.title,
        x=table.head[0],
        y=table.head[1:],
        kind="tornado",
        unit="times",
        log=True,
        marks=(("published", published),),
    )


def _chosen(one: Tried) -> tuple[int, ...]:
    """Of the largest sets the one nearest to the library."""
    return min(one.largest, key=lambda claims: one.nearest(claims)[1])


def _checks(found: list[Tried], before: list[str]) -> tuple[Check, ...]:
    after = [load_chip(name).fingerprint for name in CHIPS]
    checks = [Check("no chip of the library is changed by the search", after == before, f"{len(CHIPS)} chips")]
    for one in found:
        counting = [number for number, claim in enumerate(one.system.claims) if claim.counts]
        shipped = [n for n in counting if one.system.claims[n].low <= one.as_shipped[n] <= one.system.claims[n].high]
        checks.append(
            Check(
                f"{one.system.name}: as many figures hold at once as with the library's own values, or more",
                len(_chosen(one)) >= len(shipped),
                f"{len(_chosen(one))} of {len(counting)}, as shipped {len(shipped)}",
            )
        )
    return tuple(checks)


def _remarks(found: list[Tried], quick: bool) -> tuple[str, ...]:
    said = []
    for one in found:
        claims, total = _chosen(one), sum(claim.counts for claim in one.system.claims)
        missed = [c.name for number, c in enumerate(one.system.claims) if c.counts and number not in claims]
        _, steps = one.nearest(claims)
        where = f"{int(one.where(claims).sum()):,} of {one.mask.size:,} combinations"
        said.append(
            f"{one.system.name}: {len(claims)} of {total} figures can hold at once ({where}; the nearest is {steps} "
            f"steps from the library)" + (f"; not with them: {', '.join(missed)}." if missed else ".")
        )
    if quick:
        said.append("Only the library's value and one other of each assumption were tried.")
    said.append(
        "A figure that holds nowhere may hold outside the ranges or under another model of a baseline; one that holds "
        "says that the paper's assumptions may be of this kind, not that they were."
    )
    return tuple(said)


def _ranges(found: list[Tried]) -> tuple[Assumption, ...]:
    """The ranges as assumptions, each once."""
    lines: dict[Assumption, None] = {}
    for one in found:
        for side in one.system.sides:
            for knob in side.knobs:
                values = f"{_list(knob.values)} {knob.unit}".rstrip()
                lines[Assumption(f"{side.name}: {knob.name}", values, "assumed", "", knob.why)] = None
    return tuple(lines)


def _text(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _list(values: list[Value] | tuple[Value, ...]) -> str:
    return ", ".join(map(_text, values))
