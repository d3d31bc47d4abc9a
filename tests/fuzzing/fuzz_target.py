"""What a fuzzing target is, and what would be nonsense in its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST = 1e60  # no figure in SI units of anything that is described here comes near


@dataclass(frozen=True)
class Target:
    """One parser; `read` gets the path of the input, in a folder of its own."""

    file: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], Any]
    repair: Callable[[bytes], bytes] = lambda content: content
    nonsense: Callable[[Any], str | None] = lambda found: not_finite(found)


def not_finite(found: Any, name: str = "", depth: int = 0) -> str | None:
    """The place of a number in a result that is infinite, not a number, or beyond any physical size."""
    import numpy as np

    if depth > 8 or found is None or isinstance(found, (bool, str, bytes, Path)):
        return None
    if isinstance(found, (int, float)):
        return None if abs(found) < LARGEST else f"{name} is {found!r}"[:80]
    if isinstance(found, np.ndarray):
        fine = found.dtype.kind != "f" or bool((np.abs(found[~np.isnan(found)]) < LARGEST).all())
        return None if fine else f"{name} has infinite values"
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        items: Any = [(one.name, getattr(found, one.name)) for one in dataclasses.fields(found)]
    elif hasattr(type(found), "model_fields"):
        items = [(key, getattr(found, key)) for key in type(found).model_fields]
    elif isinstance(found, dict):
        items = list(found.items())
    elif isinstance(found, (list, tuple, set, frozenset)):
        items = list(enumerate(found))[:200]
    else:
        return None
    for key, value in items:
        if (wrong := not_finite(value, f"{name}.{key}", depth + 1)) is not None:
            return wrong
    return None
