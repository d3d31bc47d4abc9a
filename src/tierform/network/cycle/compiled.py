"""The compiled loops, kept on disk as machine code: a later process loads them without the compiler.

Numba compiles :func:`~tierform.network.cycle.advance.run_bitmask` and ``run_general`` once.  Their machine code is
written to a cache folder under a key of all sources of this package, the versions of the compiler and the processor;
llvmlite alone loads it again, in milliseconds, where importing Numba and preparing it would take most of a second.
Where no folder can be written, every process compiles.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tierform.errors import TierformError
from tierform.files import atomic_path, cache_folder, make_folder
from tierform.network.cycle.state import Memory

_POINTER, _WORD = ctypes.c_void_p, ctypes.c_int64
_TYPES = (*[_POINTER] * 2, _WORD, *[_POINTER] * 11, _WORD, _WORD, _WORD, ctypes.c_double, _POINTER)
# Symbols of the compiler's runtime that the code would call to report an exception, which these loops never raise.
_RUNTIME = (
    "NRT_Free",
    "NRT_MemInfo_call_dtor",
    "numba_do_raise",
    "numba_gil_ensure",
    "numba_gil_release",
    "numba_runtime_build_excinfo_struct",
    "numba_unpickle",
)
# Functions of the C library that it does call.
_LIBRARY = ("log", "memset", "memcpy", "memmove")
# Sources of constants in compiled functions.
_ALSO_COMPILED = ("flow_records.py", "jit.py", "modes.py", "state.py")
_loaded: dict[str, Any] = {}
# What the code refers to lives as long as the process.
_kept: list[Any] = []


def loop(name: str) -> Any:
    """The compiled function ``run_bitmask`` or ``run_general`` of the cycle engine, as a ctypes function."""
    if name not in _loaded:
        path = _path(name)
        address = _load(path) if path is not None else None
        _loaded[name] = ctypes.CFUNCTYPE(_WORD, *_TYPES)(address or _compile(name, path))
    return _loaded[name]


def call(
    name: str,
    memory: Memory,
    arrays: tuple[Any, ...],
    cycles: int,
    generate: bool,
    mode: int,
    speedup: float,
    partial: Any,
) -> int:
    """Run a loop on a simulation's memory and traffic arrays (kinds, rate, sizes, weights, ...); the cycles run."""
    kinds, rate, sizes, _, target, weights, _, flows = arrays
    numbers = (len(memory.counters), *memory.table.shape, len(kinds), rate.shape[1], sizes.shape[1], target.shape[1])
    shapes = np.array([*numbers, *weights.shape, len(flows), 0], np.int64)
    pointers = [array.ctypes.data for array in (memory.counters, memory.table, shapes, *arrays)]
    words, masks = memory.words.ctypes.data, memory.masks.ctypes.data
    step = partial.ctypes.data
    return int(loop(name)(words, masks, len(memory.words), *pointers, cycles, int(generate), mode, speedup, step))


def _path(name: str) -> Path | None:
    """Where the machine code of a loop is or can be kept, None where no folder can be written."""
    import llvmlite.binding as llvm

    key = hashlib.sha256(sys.version.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        content = source.read_bytes()
        if b"\nfrom tierform.network.cycle.jit import" in content or source.name in (
            "flow_records.py",
            "jit.py",
            "modes.py",
            "state.py",
        ):
            key.update(content)
    processor = (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    for fact in (version("numba"), version("llvmlite"), *processor):
        key.update(fact.encode())
    file = f"{name}-{key.hexdigest()[:24]}.machine-code"
    writable = None
    for folder in _folders():
        if (folder / file).is_file():
            return folder / file
        with suppress(TierformError, OSError):
            make_folder(folder, parents=True)
        if writable is None and os.access(folder, os.W_OK):
            writable = folder / file
    return writable


def _folders() -> list[Path]:
    """Cache folders in the order in which they are tried; code is only taken from folders of one's own or root's."""
    own = cache_folder("network")
    found = [Path(__file__).parent / "__pycache__", *([own] if own is not None else [])]
    if os.environ.get("NUMBA_CACHE_DIR"):
        found.insert(0, Path(os.environ["NUMBA_CACHE_DIR"]) / "tierform")
    user = os.getuid() if hasattr(os, "getuid") else 0
    return [folder for folder in found if not folder.exists() or folder.stat().st_uid in (0, user)]


def _load(path: Path) -> int | None:
    """The address of the function in a machine-code file, or None if there is no whole file."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head, _, code = content.partition(b"\n")
    name, _, digest = head.decode("ascii", "replace").rpartition(" ")
    if hashlib.sha256(code).hexdigest() != digest:
        return None
    import llvmlite.binding as llvm

    try:
        library = ctypes.CDLL(None)
        known = {symbol: library.abort for symbol in _RUNTIME if "numba" not in sys.modules}
        known |= {symbol: getattr(library, symbol) for symbol in _LIBRARY}
    except (OSError, AttributeError, TypeError):
        return None
    for symbol, function in known.items():
        llvm.add_symbol(symbol, ctypes.cast(function, ctypes.c_void_p).value)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    processor = {"cpu": llvm.get_host_cpu_name(), "features": llvm.get_host_cpu_features().flatten()}
    machine = llvm.Target.from_default_triple().create_target_machine(**processor, opt=3, jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _kept.append(engine)
    return int(engine.get_function_address(name)) or None


def _compile(name: str, path: Path | None) -> int:
    """Compile a loop, keep its machine code where that can be written, and return its address."""
    from numba.core.ccallback import CFunc
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.sigutils import normalize_signature

    from tierform.network.cycle import advance

    options = {"error_model": "numpy", "nopython": True}
    function = CFunc(getattr(advance, name), normalize_signature(advance.SIGNATURE), locals={}, options=options)
    with global_compiler_lock:
        result: Any = function._compile_uncached()  # type: ignore[attr-defined]
        symbol, library = result.fndesc.llvm_cfunc_wrapper_name, result.library
        library.enable_object_caching()
        address = int(library.get_pointer_to_function(symbol))
        _, kind, content = library.serialize_using_object_code()
    _kept.append(function)
    _kept.append(library)
    if path is not None and kind == "object":
        head = f"{symbol} {hashlib.sha256(content[0]).hexdigest()}\n".encode("ascii")
        _write(path, head + content[0])
    return address


def _write(path: Path, content: bytes) -> None:
    """Write the whole file or, on a full or read-only disk, nothing."""
    with suppress(TierformError, OSError), atomic_path(path) as temporary:
        temporary.write_bytes(content)
