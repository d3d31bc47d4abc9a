"""Reading HotSpot's files: floorplan, power trace, configuration, layer file, materials, temperatures, channels.

Each reader gives plain records with line numbers; every malformed line is reported with its number, all at once.
Formats after HotSpot 7 (source: hotspot-7).  Blank lines and lines that begin with ``#`` are skipped, and what follows
the value on a line of a configuration.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tierform.compat.hotspot.keys import (
    COUNTS,
    FLAGS,
    FLOORPLANNER,
    KEYS,
    LEAST_SIZE_M,
    MOST,
    MOST_COUNT,
    MOST_KELVIN,
    MOST_POWER_W,
    MOST_SIZE_M,
    POSITIVE,
    WORDS,
    bounds,
)
from tierform.errors import Problem, TierformError, fail, nearest, note
from tierform.files import read_text
from tierform.thermal.airflow import AirCooler
from tierform.thermal.materials import Material
from tierform.thermal.network import Array
from tierform.thermal.stack import Region, region_problems


@dataclass(frozen=True, slots=True)
class Setting:
    """A configured value and its line."""

    text: str
    line: int | None


@dataclass(frozen=True, slots=True)
class Configuration:
    """A checked configuration; `number` and `word` give values or the default that HotSpot has."""

    file: str
    settings: dict[str, Setting]

    def number(self, key: str, default: float) -> float:
        """A number."""
        return float(self.settings[key].text) if key in self.settings else default

    def flag(self, key: str) -> bool:
        """True where the value is not 0."""
        return self.number(key, 0.0) != 0

    def word(self, key: str) -> str | None:
        """A text; None when absent or ``(null)``."""
        text = self.settings[key].text if key in self.settings else "(null)"
        return None if text == "(null)" else text

    def line(self, key: str) -> int | None:
        """Where the key stands."""
        return self.settings[key].line if key in self.settings else None


@dataclass(frozen=True, slots=True)
class Floorplan:
    """Blocks in the file's order from their lower left corner, the size that they span, and where that corner is."""

    file: str
    regions: tuple[Region, ...]
    width_m: float
    height_m: float
    west_m: float = 0.0
    south_m: float = 0.0


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """One layer of a layer file, with the name of its floorplan."""

    number: int
    lateral: bool
    powered: bool
    material: Material
    thickness_m: float
    floorplan: str
    line: int


@dataclass(frozen=True, slots=True)
class PowerTrace:
    """Block names in the file's order and power (samples, blocks) in W."""

    file: str
    names: tuple[str, ...]
    power_W: Array


def _lines(path: Path | str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            yield number, words


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_configuration(path: Path | str | None, overrides: dict[str, str] | None = None) -> Configuration:
    """A configuration file of ``-key value`` lines; `overrides` (from the command line) win.  None reads no file."""
    file = str(path) if path is not None else "command line"
    settings: dict[str, Setting] = {}
    problems: list[Problem] = []
    if path is not None:
        for line, words in _lines(path):
            if len(words) < 2 or not words[0].startswith("-"):
                problems.append(Problem("a line is '-key value'", file, line, value=" ".join(words)))
                continue
            problems += _check(words[0][1:], words[1], file, line)
            first = settings.setdefault(words[0][1:], Setting(words[1], line))
            if first.text != words[1]:
                note(f"{file}:{line}: {words[0]} stands twice: the first value, {first.text}, counts, as in HotSpot")
    for key, text in (overrides or {}).items():
        problems += _check(key, text, "command line", None)
        settings[key] = Setting(text, None)
    if problems:
        raise TierformError(problems)
    return Configuration(file, settings)


_COOLER = {
    "natural_convec": "",
    "flow_type": "impinging",
    "sink_type": "pins",
    "fin_height": "fin_height_m",
    "fin_width": "fin_width_m",
    "channel_width": "channel_width_m",
    "pin_height": "pin_height_m",
    "pin_diam": "pin_diameter_m",
    "pin_dist": "pin_distance_m",
    "fan_radius": "fan_radius_m",
    "motor_radius": "motor_radius_m",
    "rpm": "revolutions_per_min",
}


def read_cooler(path: Path | str) -> AirCooler:
    """A package file: fins or pins and the fan of a heat sink in forced air."""
    file = str(path)
    found: dict[str, float] = {}
    problems: list[Problem] = []
    for line, words in _lines(path):
        key = words[0].removeprefix("-")
        value = _number(words[1]) if len(words) > 1 else None
        if key not in _COOLER or not words[0].startswith("-"):
            problems.append(Problem("unknown key", file, line, key, None, nearest(key, _COOLER)))
        elif value is None:
            problems.append(Problem("a number is needed", file, line, key, words[1] if len(words) > 1 else None))
        elif key in ("natural_convec", "flow_type", "sink_type"):
            if value not in (0, 1):
                problems.append(Problem("must be 0 or 1", file, line, key, words[1]))
            elif key == "natural_convec" and value:
                fix = "Give r_convec instead."
                problems.append(Problem("natural convection is not supported", file, line, key, words[1], fix=fix))
            elif _COOLER[key]:
                found[_COOLER[key]] = bool(value)
        elif not bounds(key)[0] <= value <= bounds(key)[1]:
            what = "must be greater than zero, {:g} to {:g}".format(*bounds(key))
            problems.append(Problem(what, file, line, key, words[1]))
        else:
            found[_COOLER[key]] = value
    if found.get("motor_radius_m", 0.01) >= found.get("fan_radius_m", 0.03):
        problems.append(Problem("the fan must be wider than its motor", file, None, "motor_radius"))
    if problems:
        raise TierformError(problems)
    return AirCooler(**found)  # type: ignore[arg-type]


def _check(key: str, text: str, file: str, line: int | None) -> Iterator[Problem]:
    if key not in KEYS:
        yield Problem("unknown key", file, line, key, None, nearest(key, KEYS))
        return
    if key in WORDS or key in FLOORPLANNER:
        return
    value = _number(text)
    if value is None:
        yield Problem("a number is needed", file, line, key, text)
    elif key == "pump_internal_res" and not 0 <= value <= MOST:
        yield Problem(f"must lie between 0 and {MOST:g}", file, line, key, text)
    elif key in POSITIVE and not bounds(key)[0] <= value <= bounds(key)[1]:
        yield Problem("must be greater than zero, {:g} to {:g}".format(*bounds(key)), file, line, key, text)
    elif key in COUNTS and (not 1 <= value <= MOST_COUNT or value != int(value)):
        yield Problem(f"a whole number of 1 to {MOST_COUNT} is needed", file, line, key, text)
    elif key in FLAGS and value not in (0, 1):
        yield Problem("must be 0 or 1", file, line, key, text)


def read_floorplan(path: Path | str) -> Floorplan:
    """A floorplan; blocks must not overlap nor leave gaps.  Heat capacity and resistivity of a block are kept."""
    file = str(path)
    problems: list[Problem] = []
    regions: list[Region] = []
    at: dict[str, int] = {}
    for line, words in _lines(path):
        numbers = [_number(word) for word in words[1:]]
        if len(words) == 3 and numbers[0] is None and numbers[1] is not None:
            continue  # connectivity between two blocks, which heat does not need
        if len(words) not in (5, 7) or any(number is None for number in numbers):
            what = "a block is 'name width height left bottom' with optional heat capacity and resistivity"
            problems.append(Problem(what, file, line, value=" ".join(words)))
            continue
        width, height, x, y, *own = [number for number in numbers if number is not None]
        if not (max(width, height, abs(x), abs(y)) <= MOST_SIZE_M and min(width, height) >= LEAST_SIZE_M):
            what = f"sizes must be positive, {LEAST_SIZE_M:g} to {MOST_SIZE_M:g} m, and places within {MOST_SIZE_M:g} m"
            problems.append(Problem(what, file, line, words[0], " ".join(words[1:5])))
            continue
        material = None
        if own:
            if not (min(own) >= 1.0 / MOST and max(own) <= MOST):
                what = f"heat capacity and resistivity must be positive, within {1.0 / MOST:g} and {MOST:g}"
                problems.append(Problem(what, file, line, words[0], " ".join(words[5:])))
                continue
            material = Material.isotropic(f"of {words[0]}", 1.0 / own[1], own[0])
        if words[0] not in at:
            at[words[0]] = line
        regions.append(Region(words[0], x, y, width, height, material))
    sound = [region for region in regions if region.width_m > 0 and region.height_m > 0]
    if not sound and not problems:
        problems.append(Problem("the floorplan has no blocks of positive size", file))
    if not sound:
        raise TierformError(problems)
    west, south = min(r.x_m for r in sound), min(r.y_m for r in sound)
    moved = tuple(Region(r.name, r.x_m - west, r.y_m - south, r.width_m, r.height_m, r.material) for r in regions)
    width = max(r.x_m + r.width_m for r in sound) - west
    height = max(r.y_m + r.height_m for r in sound) - south
    problems += region_problems(moved, width, height, where="floorplan", file=file, lines=at, cover=not problems)
    if problems:
        raise TierformError(problems)
    return Floorplan(file, moved, width, height, west, south)


def read_power_trace(path: Path | str) -> PowerTrace:
    """A power trace: a line of names, then one line of powers per interval."""
    file = str(path)
    names: tuple[str, ...] = ()
    rows: list[list[float]] = []
    problems: list[Problem] = []
    for line, words in _lines(path):
        if not names:
            names = tuple(words)
            continue
        numbers = [_number(word) for word in words]
        bad = next((word for word, number in zip(words, numbers, strict=True) if number is None), None)
        if bad is not None:
            problems.append(Problem("a power is not a number", file, line, value=bad))
        elif max(abs(number) for number in numbers if number is not None) > MOST_POWER_W:
            problems.append(Problem(f"a power must lie within {MOST_POWER_W:g} W", file, line))
        elif min(number for number in numbers if number is not None) < 0:
            problems.append(Problem("a power must not be negative", file, line))
        elif len(words) != len(names):
            problems.append(Problem(f"{len(names)} powers are needed, one per name", file, line, value=len(words)))
        else:
            rows.append([number for number in numbers if number is not None])
    if not problems and not names:
        problems.append(Problem("the trace has no line of names", file))
    elif not problems and not rows:
        problems.append(Problem("the trace has no powers", file))
    if problems:
        raise TierformError(problems)
    return PowerTrace(file, names, np.array(rows))


def read_materials(path: Path | str) -> dict[str, Material]:
    """A materials file: name, ``solid`` or ``fluid``, conductivity, heat capacity and, for a fluid, viscosity."""
    file = str(path)
    materials: dict[str, Material] = {}
    entries = [(line, words[0]) for line, words in _lines(path)]
    position = 0
    while position < len(entries):
        line, name = entries[position]
        kind = entries[position + 1][1] if position + 1 < len(entries) else ""
        if kind not in ("solid", "fluid"):
            fail("after a material's name comes 'solid' or 'fluid'", file=file, line=line, key=name, value=kind)
        count = 2 if kind == "solid" else 3
        values = []
        for offset, word in entries[position + 2 : position + 2 + count]:
            value = _number(word)
            if value is None or not 1.0 / MOST <= value <= MOST:
                what = f"a number between {1.0 / MOST:g} and {MOST:g} is needed"
                fail(what, file=file, line=offset, key=name, value=word)
            values.append(value)
        if len(values) < count:
            fail(f"the material needs {count} numbers", file=file, line=line, key=name, value=len(values))
        materials[name] = Material.isotropic(
            name, values[0], values[1], viscosity_Pa_s=values[2] if count == 3 else 0.0
        )
        position += 2 + count
    return materials


def read_layers(path: Path | str, materials: dict[str, Material]) -> tuple[LayerEntry, ...]:
    """A layer file, sorted from layer 0 (farthest from the sink) up."""
    file = str(path)
    entries = [(line, words[0]) for line, words in _lines(path)]
    layers: list[LayerEntry] = []
    position = 0

    def take(what: str) -> tuple[int, str]:
        nonlocal position
        if position >= len(entries):
            fail(f"the file ends where {what} is needed", file=file, line=entries[-1][0] if entries else None)
        position += 1
        return entries[position - 1]

    def number(what: str, least: float = 1.0 / MOST, most: float = MOST) -> float:
        line, word = take(what)
        value = _number(word)
        if value is None or not least <= value <= most:
            fail(f"{what} must be positive, within {least:g} and {most:g}", file=file, line=line, value=word)
        return value

    def choice(what: str) -> bool:
        line, word = take(what)
        if word.upper() not in ("Y", "N"):
            fail(f"{what} must be Y or N", file=file, line=line, value=word)
        return word.upper() == "Y"

    while position < len(entries):
        line, word = take("a layer number")
        if not (word.isascii() and word.isdigit() and len(word) < 6):
            fail("a layer begins with its number", file=file, line=line, value=word)
        lateral, powered = choice("lateral heat flow"), choice("power dissipation")
        where, capacity = take("a heat capacity or a material's name")
        known = _number(capacity)
        if known is None:
            if capacity not in materials:
                fix = "Give the materials file that defines it."
                fail("unknown material", file=file, line=where, value=capacity, choices=materials, fix=fix)
            material = materials[capacity]
        else:
            if not 1.0 / MOST <= known <= MOST:
                fail(
                    f"the heat capacity must be positive, within {1.0 / MOST:g} and {MOST:g}",
                    file=file,
                    line=where,
                    value=capacity,
                )
            material = Material.isotropic(f"of layer {word}", 1.0 / number("the resistivity"), known)
        thickness = number("the thickness", LEAST_SIZE_M, MOST_SIZE_M)
        plan = take("a floorplan")[1]
        layers.append(LayerEntry(int(word), lateral, powered, material, thickness, floorplan=plan, line=line))
    layers.sort(key=lambda layer: layer.number)
    if not layers:
        fail("the layer file has no layers", file=file)
    if [layer.number for layer in layers] != list(range(len(layers))):
        numbers = [layer.number for layer in layers]
        fail("layer numbers must be 0, 1, 2, ... without repetition", file=file, value=numbers)
    return tuple(layers)


def read_temperatures(path: Path | str) -> dict[str, float]:
    """A temperature file (``name<tab>kelvin``), as HotSpot writes and reads initial temperatures."""
    values: dict[str, float] = {}
    problems: list[Problem] = []
    for line, words in _lines(path):
        value = _number(words[1]) if len(words) == 2 else None
        if value is None or not 0 < value <= MOST_KELVIN:
            problems.append(Problem("a line is 'name temperature'", str(path), line, value=" ".join(words)))
        else:
            values[words[0]] = value
    if problems:
        raise TierformError(problems)
    return values


def read_channels(path: Path | str) -> tuple[str, ...]:
    """A channel network (rows of 0 wall, 1 fluid, 2 inlet, 3 outlet, north first), as rows from the south."""
    rows = []
    for line, words in _lines(path):
        cells = "".join(words).replace(",", "")
        if set(cells) - set("0123"):
            fail("a channel cell is 0, 1, 2 or 3", file=str(path), line=line, value=cells)
        rows.append(cells)
    return tuple(reversed(rows))
