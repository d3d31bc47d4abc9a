"""The engine's compiled loops, loaded or compiled when one is first called."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from tierform.machine_code import load_loop

_POINTER, _WORD = ctypes.c_void_p, ctypes.c_int64
_ARGUMENTS = {
    "number_addresses": (_POINTER, _WORD, _WORD, _POINTER, _POINTER, _POINTER),
    "run": (_POINTER, _POINTER, _POINTER, _WORD),
    "forbid_alone": (_POINTER, _WORD, _WORD, _WORD),
    "ready_alone": (_POINTER, _WORD, _WORD),
}


@lru_cache(maxsize=len(_ARGUMENTS))
def loop(name: str) -> Callable[..., int]:
    """A function of :mod:`tierform.memory.cycle.kernel` as a ctypes function; arrays are given by their addresses."""

    def source() -> tuple[Callable[..., int], str]:
        from tierform.memory.cycle import kernel

        return getattr(kernel, name), kernel.SIGNATURES[name]

    return load_loop(f"memory-{name}", sorted(Path(__file__).parent.glob("*.py")), _ARGUMENTS[name], source)
