"""The compiled loops of SCALE-Sim's buffers, loaded or compiled when one is first called."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from tierform.arrays import Ints, Words
from tierform.machine_code import load_loop, pointer

# A table of addresses of whole numbers, and marks of elements.
_SIGNATURE = "i8(CPointer(CPointer(i8)), CPointer(i4))"
_FILES = ("bounded", "estimate", "records", "streams", "write_buffer")
_MODULES = {
    "asking_lines": "streams",
    "drain_writes": "write_buffer",
    "estimate_product_reads": "estimate",
    "estimate_reads": "estimate",
    "prefetch_order": "bounded",
    "run_bounded": "bounded",
}


@lru_cache(maxsize=len(_MODULES))
def _loop(name: str) -> Callable[..., int]:
    def source() -> tuple[Callable[..., int], str]:
        from importlib import import_module

        return getattr(import_module(f"tierform.compat.scalesim.{_MODULES[name]}"), name), _SIGNATURE

    files = [Path(__file__).with_name(f"{file}.py") for file in _FILES]
    return load_loop(f"scalesim-{name}", files, (ctypes.c_void_p, ctypes.c_void_p), source)


def call(name: str, arrays: list[Ints], marks: Words | None = None) -> int:
    """Run a loop on arrays of 64-bit whole numbers, in the order of its text, and on 32-bit marks."""
    if not all(array.dtype == np.int64 and array.flags.c_contiguous for array in arrays):
        raise TypeError("a loop needs whole numbers of 64 bits in one piece")
    table = np.array([pointer(array) for array in arrays], np.uintp)
    kept = np.zeros(0, np.int32) if marks is None else marks
    return int(_loop(name)(pointer(table), pointer(kept)))
