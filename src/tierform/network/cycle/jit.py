"""How the functions of the compiled loops are compiled: for each other alone, without wrappers for Python."""

from __future__ import annotations

from numba import njit

_OPTIONS: dict[str, str | bool] = {
    "error_model": "numpy",
    "_nrt": False,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
compiled = njit(**_OPTIONS)
inlined = njit(**_OPTIONS, forceinline=True)
