"""Part files: where a file is written before it stands whole at its path, and what killed processes leave of them.

A part file lies beside its target, is named after it, and is locked by the process that writes it.  So a part that
nobody has locked is stale.  Limits: where files cannot be locked (Windows, some network file systems) none is removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path

from tierform.errors import note


def short_name(name: str) -> str:
    """A name that leaves room for the marks of a part file (255 bytes are the usual limit)."""
    return name.encode("utf-8", "surrogateescape")[:200].decode("utf-8", "ignore")


def new_part(target: Path) -> tuple[int, Path]:
    """An empty part file of the target, locked while this process works on it."""
    while True:
        path = target.parent / f".{short_name(target.name)}.{os.urandom(4).hex()}.part"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        if lock(handle, wait=True) is None or os.fstat(handle).st_nlink:
            return handle, path
        os.close(handle)  # another process took it for a stale one before it was locked


def lock(handle: int, *, wait: bool) -> bool | None:
    """Lock an open file for this process; False when another has it, None where files cannot be locked."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def remove_stale(target: Path) -> None:
    """Remove what killed processes left of this target: parts that no living process has locked."""
    form = re.compile(re.escape(f".{short_name(target.name)}.") + r"[0-9a-z_]{8}\.part")
    if not os.access(target.parent, os.R_OK):
        return
    for path in [one for one in target.parent.iterdir() if form.fullmatch(one.name)]:
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            try:
                if lock(handle, wait=False):
                    path.unlink()
                    note(f"removed {path}: an interrupted run left it unfinished")
            finally:
                os.close(handle)
