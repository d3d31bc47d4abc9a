"""Compiled loops kept on disk as machine code: a later process loads them without the compiler.

Numba compiles a loop once, as a C function over pointers and numbers.  Its machine code is written to a cache folder
under a key of all sources of its package, the versions of the compiler and the processor; llvmlite alone loads it
again, in milliseconds, where importing Numba and preparing it would take most of a second.  Where no folder can be
written, every process compiles.  A loop must not raise, allocate, or refer to anything but its arguments.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tierform.compiled import say_that_nothing_is_kept
from tierform.files import atomic_path, cache_folder, make_folder

if TYPE_CHECKING:
    from tierform.arrays import Array

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
# Functions of the C library that the code may call.
_LIBRARY = ("log", "pow", "memset", "memcpy", "memmove")
# What the code refers to lives as long as the process.
_kept: list[object] = []
# How a loop takes an argument: an address, a whole number, a number.
ArgumentType = type[ctypes.c_void_p] | type[ctypes.c_int64] | type[ctypes.c_double]


def load_loop(
    name: str,
    sources: Sequence[Path],
    argument_types: tuple[ArgumentType, ...],
    source: Callable[[], tuple[Callable[..., int], str]],
) -> Callable[..., int]:
    """The loop `name` as a ctypes function that returns a 64-bit integer.

    `sources` are the files that decide what it does, all of one folder; `source` imports the Python function and gives
    it with its Numba signature, and is called only where no machine code is kept.
    """
    path = _path(name, sources)
    address = _load(path) if path is not None else None
    return ctypes.CFUNCTYPE(ctypes.c_int64, *argument_types)(address or _compile(*source(), path))


def pointer(array: Array) -> int:
    """The address of an array's first element; the caller keeps the array alive."""
    return int(array.ctypes.data)


def _path(name: str, sources: Sequence[Path]) -> Path | None:
    """Where the machine code of a loop is or can be kept, None where no folder can be written."""
    import llvmlite.binding as llvm

    key = hashlib.sha256(sys.version.encode())
    for source in (Path(__file__), Path(__file__).with_name("jit.py"), *sorted(sources)):
        key.update(source.read_bytes())
    processor = (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    for fact in (version("numba"), version("llvmlite"), *processor):
        key.update(fact.encode())
    file = f"{name}-{key.hexdigest()[:24]}.machine-code"
    writable = None
    for folder in _folders(sources[0].parent):
        if (folder / file).is_file():
            return folder / file
        if writable is None and _can_be_written(folder):
            writable = folder / file
    if writable is None:
        say_that_nothing_is_kept()
    return writable


def _can_be_written(folder: Path) -> bool:
    """Whether a folder can be written, or made: then it begins in one that can be written."""
    nearest = next((place for place in (folder, *folder.parents) if place.exists()), None)
    return nearest is not None and nearest.is_dir() and os.access(nearest, os.W_OK)


def _folders(package: Path) -> list[Path]:
    """Cache folders in the order in which they are tried; code is only taken from folders of one's own or root's."""
    own = cache_folder("kernels")
    found = [package / "__pycache__", *([own] if own is not None else [])]
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
        # One symbol that is unknown leaves all of them without an address.  Numba, once it compiles, brings its own.
        known = {symbol: library.abort for symbol in _RUNTIME if llvm.address_of_symbol(symbol) is None}
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


def _compile(loop: Callable[..., int], signature: str, path: Path | None) -> int:
    """Compile a loop, keep its machine code where that can be written, and return its address."""
    from numba.core.ccallback import CFunc
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.sigutils import normalize_signature

    options = {"error_model": "numpy", "nopython": True}
    function = CFunc(loop, normalize_signature(signature), locals={}, options=options)
    with global_compiler_lock:
        result: Any = function._compile_uncached()  # type: ignore[attr-defined]
        symbol, library = result.fndesc.llvm_cfunc_wrapper_name, result.library
        library.enable_object_caching()
        address = int(library.get_pointer_to_function(symbol))
        try:
            _, kind, content = library.serialize_using_object_code()
        except RuntimeError:  # a signal came while the code was handed over: it runs and is not kept
            kind, content = "", (b"",)
    _kept.append(function)
    _kept.append(library)
    if path is not None and kind == "object":
        head = f"{symbol} {hashlib.sha256(content[0]).hexdigest()}\n".encode("ascii")
        _keep(path, head + content[0])
    return address


def _keep(path: Path, content: bytes) -> None:
    """Write the whole file or, on a full or read-only disk, nothing."""
    from tierform.errors import TierformError

    try:
        make_folder(path.parent, parents=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except (OSError, TierformError):
        return
