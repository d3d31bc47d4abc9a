"""Units: files may say ``0.9 pJ/bit`` or ``100 MHz``; inside, everything is an SI float.

:func:`parse_quantity` is the one parser.  It turns a text with a unit into a float in the unit that the caller names
and refuses a value of another dimension, or one without a unit where one is needed.  Information is counted in bytes
(``B``); ``bit`` is an eighth of one.  Counts (cycles, operations, transfers, lanes) have no dimension.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from tierform.errors import fail

# Exponents of metre, kilogram, second, ampere, kelvin, byte.
Dimension = tuple[int, int, int, int, int, int]
_NONE: Dimension = (0, 0, 0, 0, 0, 0)

_UNITS: dict[str, tuple[float, Dimension]] = {
    "m": (1.0, (1, 0, 0, 0, 0, 0)),
    "g": (1e-3, (0, 1, 0, 0, 0, 0)),
    "s": (1.0, (0, 0, 1, 0, 0, 0)),
    "A": (1.0, (0, 0, 0, 1, 0, 0)),
    "K": (1.0, (0, 0, 0, 0, 1, 0)),
    "B": (1.0, (0, 0, 0, 0, 0, 1)),
    "bit": (0.125, (0, 0, 0, 0, 0, 1)),
    "b": (0.125, (0, 0, 0, 0, 0, 1)),
    "Hz": (1.0, (0, 0, -1, 0, 0, 0)),
    "J": (1.0, (2, 1, -2, 0, 0, 0)),
    "W": (1.0, (2, 1, -3, 0, 0, 0)),
    "V": (1.0, (2, 1, -3, -1, 0, 0)),
    "F": (1.0, (-2, -1, 4, 2, 0, 0)),
    "ohm": (1.0, (2, 1, -3, -2, 0, 0)),
    "S": (1.0, (-2, -1, 3, 2, 0, 0)),
    "Wh": (3600.0, (2, 1, -2, 0, 0, 0)),
    "eV": (1.602176634e-19, (2, 1, -2, 0, 0, 0)),
    "min": (60.0, (0, 0, 1, 0, 0, 0)),
    "h": (3600.0, (0, 0, 1, 0, 0, 0)),
    "day": (86400.0, (0, 0, 1, 0, 0, 0)),
    "year": (31557600.0, (0, 0, 1, 0, 0, 0)),
    "flop": (1.0, _NONE),
    "FLOP": (1.0, _NONE),
    "op": (1.0, _NONE),
    "OP": (1.0, _NONE),
    "MAC": (1.0, _NONE),
    "T": (1.0, _NONE),
    "cycle": (1.0, _NONE),
    "flit": (1.0, _NONE),
    "%": (0.01, _NONE),
    "1": (1.0, _NONE),
}
_NEVER_PREFIXED = {"min", "h", "day", "year", "%", "1", "cycle", "flit"}
_PREFIXES = {
    "a": 1e-18,
    "f": 1e-15,
    "p": 1e-12,
    "n": 1e-9,
    "u": 1e-6,
    "µ": 1e-6,
    "μ": 1e-6,
    "m": 1e-3,
    "c": 1e-2,
    "k": 1e3,
    "K": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}
SMALLEST, LARGEST = 1e-40, 1e40  # of any figure, in the unit asked for; products of a few such stay finite
LONGEST = 200  # characters of a number with its unit
# The number at the beginning; no two parts of the expression can share a digit, so it takes linear time.
_NUMBER = re.compile(r"[+-]?(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_FACTOR = re.compile(r"([^0-9*/·^\s]+|1)(?:\^?(-?[0-9]{1,3}))?")


@lru_cache(maxsize=512)
def whole_number(text: str) -> int | None:
    """The whole number that a text writes in at most 18 plain digits, None for anything else."""
    return int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else None


@lru_cache(maxsize=512)
def unit_scale(unit: str) -> tuple[float, Dimension] | None:
    """Scale to SI and dimension of a unit expression such as ``pJ/bit`` or ``W/(m*K)``; None if unknown."""
    if len(unit) > LONGEST:
        return None
    text = unit.replace("·", "*").replace("²", "^2").replace("³", "^3").replace(" per ", "/").strip()
    if not text:
        return 1.0, _NONE
    numerator, slash, denominator = text.partition("/")
    if denominator.startswith("(") and denominator.endswith(")"):
        denominator = denominator[1:-1].replace("/", "*")
    else:
        denominator = denominator.replace("/", "*")
    top, bottom = _product(numerator), _product(denominator)
    if top is None or bottom is None or (slash and not denominator):
        return None
    dimension = tuple(a - b for a, b in zip(top[1], bottom[1], strict=True))
    return (top[0] / bottom[0], dimension) if bottom[0] else None  # type: ignore[return-value]


def _product(text: str) -> tuple[float, Dimension] | None:
    scale, exponents = 1.0, [0] * 6
    for part in filter(None, text.replace(" ", "*").split("*")):
        match = _FACTOR.fullmatch(part)
        single = _single(match.group(1)) if match else None
        if match is None or single is None:
            return None
        power = int(match.group(2) or 1)
        if abs(power) > 9 or abs(power * math.log10(single[0])) > 200:
            return None
        scale *= single[0] ** power
        for axis in range(6):
            exponents[axis] += single[1][axis] * power
    return scale, tuple(exponents)  # type: ignore[return-value]


def _single(name: str) -> tuple[float, Dimension] | None:
    if name in _UNITS:
        return _UNITS[name]
    if name.endswith("s") and name[:-1] in ("bit", "cycle", "flit", "day", "year", "flop", "op"):
        return _UNITS[name[:-1]]
    for length in (2, 1):
        prefix, base = name[:length], name[length:]
        if prefix in _PREFIXES and base in _UNITS and base not in _NEVER_PREFIXED:
            scale, dimension = _UNITS[base]
            return _PREFIXES[prefix] * scale, dimension
    return None


def parse_quantity(value: object, unit: str, *, key: str | None = None) -> float:
    """The value of e.g. ``"0.9 pJ/bit"`` in `unit` (e.g. ``"J/B"``), as a float.

    Numbers without a unit are taken only where `unit` has no dimension.  Temperatures may be given in ``degC``.
    Raises TierformError naming `key` when the text cannot be read, is not finite, or has another dimension.
    """
    wanted = unit_scale(unit)
    if wanted is None:
        raise ValueError(f"unknown unit {unit!r} in the program")
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        fail("a number with a unit is needed", key=key, value=value, fix=f'Write it as in "1.5 {unit}".')
    if isinstance(value, str):
        text = value.strip()
        match = _NUMBER.match(text) if len(text) <= LONGEST else None
        if match is None:
            fail("this is not a number with a unit", key=key, value=value, fix=f'Write it as in "1.5 {unit}".')
        number, given = float(match.group().replace("_", "")), text[match.end() :].strip()
    else:
        number, given = float(value) if abs(value) <= 1e308 else math.inf, ""
    if not math.isfinite(number):
        fail("the number is not finite", key=key, value=value)
    if given in ("degC", "°C", "C") and wanted[1] == (0, 0, 0, 0, 1, 0):
        if number < -273.15:
            fail("a temperature lies above -273.15 degC", key=key, value=value)
        number, given = number + 273.15, "K"
    scale = unit_scale(given)
    if scale is None:
        fail(f"unknown unit {given!r}", key=key, value=value, fix=f"A unit that converts to {unit} is needed.")
    if scale[1] != wanted[1]:
        what = f"a unit that converts to {unit} is needed" if given else f"the unit is missing; {unit} is needed"
        fail(what, key=key, value=value, fix=f'For example "1.5 {unit}".')
    result = number * scale[0] / wanted[0]
    if not math.isfinite(result):
        fail("the number is not finite", key=key, value=value)
    if result and not SMALLEST < abs(result) < LARGEST:
        fail(f"beyond anything physical: {SMALLEST:g} to {LARGEST:g} {unit} are read", key=key, value=value)
    return result


def name_suffix(unit: str) -> str:
    """How a unit is written at the end of a Python name: ``J/B`` becomes ``J_per_B``; no unit gives an empty string."""
    return unit.replace("/", "_per_").replace("^", "").replace("*", "_").replace("(", "").replace(")", "")


_STEPS = [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")]
_STEPS += [(1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f"), (1e-18, "a")]


def format_quantity(value: float, unit: str, digits: int = 4) -> str:
    """A value for people, with an engineering prefix: ``format_quantity(0.0031, "s")`` is ``3.1 ms``.

    Areas (``m2``) are given in mm² or µm²; temperatures (``K``) in °C; counts (empty unit) with k, M, G, T.
    """
    if value == 0:
        return f"0 {_shown_unit(unit)}".strip()
    if not math.isfinite(value):
        return f"{value} {_shown_unit(unit)}".strip()
    if unit == "1":
        unit = ""
    if unit in ("m2", "m^2", "m^2/bit"):
        scaled, shown = (value * 1e6, "mm²") if abs(value) >= 1e-8 else (value * 1e12, "µm²")
        shown += unit[3:]
        return f"{scaled:.{digits}g} {shown}" if abs(scaled) < 10**digits else f"{scaled:,.0f} {shown}"
    if unit == "K":
        return f"{value - 273.15:.1f} °C"
    if unit == "%":
        return f"{value * 100:.{digits}g} %"
    if not unit and abs(value) < 1000:
        return f"{value:.{digits}g}"
    for step, prefix in _STEPS:
        if abs(value) >= step * 0.9999999:
            return f"{value / step:.{digits}g} {prefix}{_shown_unit(unit)}".strip()
    return f"{value:.{digits}g} {_shown_unit(unit)}".strip()


def _shown_unit(unit: str) -> str:
    return {"J*s": "J·s", "Js": "J·s", "1/s": "/s", "J/(bit*m)": "J/(bit·m)"}.get(unit, unit)
