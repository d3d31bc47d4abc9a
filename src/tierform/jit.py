"""How functions of loops that are kept as machine code are compiled: for each other alone, no wrappers for Python.

See :mod:`tierform.machine_code`.
"""

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
