"""Where compiled kernels are kept when the package's own folders cannot be written.

Numba keeps machine code beside the source file.  In a read-only installation that fails, and without a home its other
place fails, too; then every command with a kernel would end.  :func:`prepare` names a locator of our own, which Numba
asks only when it is loaded: the cache folder of :func:`tierform.files.cache_folder`, or, where that cannot be written
either, none at all, with a note that the kernels are compiled anew in each run.
Source: Numba's caching module, NUMBA_CACHE_LOCATOR_CLASSES.  Limits: versions of Numba that do not know that variable
keep kernels in their own user-wide cache, and need a home for it.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

_LOCATORS = "NUMBA_CACHE_LOCATOR_CLASSES"
_ORDER = "UserProvidedCacheLocator,InTreeCacheLocator,tierform.compiled.KernelCache,IPythonCacheLocator,ZipCacheLocator"


def prepare() -> None:
    """Name the locator if this package's folder cannot be written; costs three system calls where it can."""
    place = Path(__file__).parent / "__pycache__"
    place = place if place.exists() else place.parent
    if (place.is_dir() and os.access(place, os.W_OK)) or _LOCATORS in os.environ:
        return
    os.environ[_LOCATORS] = _ORDER
    if "numba" in sys.modules:  # loaded before us: its settings were read already
        sys.modules["numba"].config.CACHE_LOCATOR_CLASSES = _ORDER


@lru_cache(maxsize=1)
def _folder() -> Path | None:
    """A cache folder that can be written; else None, with a note, and Numba keeps nothing from here on."""
    import tempfile

    from tierform.errors import TierformError
    from tierform.files import cache_folder, make_folder

    folder = cache_folder("kernels")
    if folder is not None:
        try:
            make_folder(folder, parents=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except (TierformError, OSError):
            pass
    from numba.core.caching import Cache

    Cache.enable = Cache.disable
    say_that_nothing_is_kept()
    return None


@lru_cache(maxsize=1)
def say_that_nothing_is_kept() -> None:
    """A note, once in a process."""
    from tierform.errors import note

    note("no folder for compiled kernels can be written, so they are compiled anew (set TIERFORM_CACHE to a folder)")


class KernelCache:
    """Numba's cache locator for our cache folder (its methods are Numba's protocol)."""

    def __init__(self, py_file: str, line: int) -> None:
        self._file, self._line = Path(py_file), line

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> KernelCache | None:
        """The locator of a function, or None where it has no source file."""
        if not Path(py_file).is_file():
            return None
        made = cls(py_file, py_func.__code__.co_firstlineno)
        try:
            made.ensure_cache_path()
        except OSError:
            return None
        return made

    def ensure_cache_path(self) -> None:
        """Make the folder, if anything is kept."""
        if _folder() is not None:
            Path(self.get_cache_path()).mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        """The folder of the source file's kernels."""
        from hashlib import sha256

        name = f"{self._file.parent.name}_{sha256(str(self._file.parent.resolve()).encode()).hexdigest()[:24]}"
        folder = _folder()
        return str(folder / name) if folder is not None else os.devnull + "/" + name

    def get_source_stamp(self) -> tuple[float, int]:
        """What changes with the source."""
        found = self._file.stat()
        return found.st_mtime, found.st_size

    def get_disambiguator(self) -> str:
        """What tells functions of one name apart."""
        return str(self._line)
