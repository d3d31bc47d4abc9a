"""The two compiled loops of the engine, as functions over pointers; see :mod:`tierform.machine_code`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tierform.arrays import Array, Floats
from tierform.machine_code import ArgumentType, load_loop
from tierform.network.cycle.state import Memory

_POINTER, _WORD = ctypes.c_void_p, ctypes.c_int64
_TYPES: tuple[ArgumentType, ...] = (
    *[_POINTER] * 2,
    _WORD,
    *[_POINTER] * 11,
    _WORD,
    _WORD,
    _WORD,
    ctypes.c_double,
    _POINTER,
)
# Sources of constants in compiled functions.
_ALSO_COMPILED = ("flow_records.py", "modes.py", "state.py")
_loaded: dict[str, Callable[..., int]] = {}


def loop(name: str) -> Callable[..., int]:
    """The compiled function ``run_bitmask`` or ``run_general`` of the cycle engine, as a ctypes function."""
    if name not in _loaded:
        _loaded[name] = load_loop(name, _sources(), _TYPES, lambda: _source(name))
    return _loaded[name]


def _sources() -> list[Path]:
    """The files of this package that hold compiled functions or their constants."""
    mark = b"\nfrom tierform.jit import"
    files = Path(__file__).parent.glob("*.py")
    return [file for file in files if file.name in _ALSO_COMPILED or mark in file.read_bytes()]


def _source(name: str) -> tuple[Callable[..., int], str]:
    from tierform.network.cycle import advance

    return getattr(advance, name), advance.SIGNATURE


def call(
    name: str,
    memory: Memory,
    arrays: tuple[Array, ...],
    cycles: int,
    generate: bool,
    mode: int,
    speedup: float,
    partial: Floats,
) -> int:
    """Run a loop on a simulation's memory and traffic arrays (kinds, rate, sizes, weights, ...); the cycles run."""
    kinds, rate, sizes, _, target, weights, _, flows = arrays
    numbers = (len(memory.counters), *memory.table.shape, len(kinds), rate.shape[1], sizes.shape[1], target.shape[1])
    shapes = np.array([*numbers, *weights.shape, len(flows), 0], np.int64)
    passed: tuple[Array, ...] = (memory.counters, memory.table, shapes, *arrays)
    pointers = [array.ctypes.data for array in passed]
    words, masks = memory.words.ctypes.data, memory.masks.ctypes.data
    step = partial.ctypes.data
    return int(loop(name)(words, masks, len(memory.words), *pointers, cycles, int(generate), mode, speedup, step))
