"""Folders to write into: one that is missing is made, the folders above it are not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from tierform.errors import Problem, TierformError, fail, nearest


def check_output_folder(path: Path | str) -> None:
    """TierformError when no files can be written into this folder: asked before long work; makes nothing."""
    if "\0" in str(path) or not str(path):
        fail("this is no name of a folder", value=str(path))
    folder = Path(path)
    if folder.is_dir():
        if not os.access(folder, os.W_OK | os.X_OK):
            fail("cannot write into this folder", file=str(folder), fix="Name a folder that you may write.")
    elif os.path.lexists(folder):
        fail("this is no folder, one is needed", file=str(folder))
    elif not folder.parent.is_dir():
        no_folder(folder.parent, str(folder))
    elif not os.access(folder.parent, os.W_OK | os.X_OK):
        fail("cannot make this folder", file=str(folder), fix="Name a folder that you may write.")


def no_folder(folder: Path, file: str) -> NoReturn:
    """The error of a folder that is missing, with the nearest that is there and the fix."""
    above = next((one for one in folder.parents if one.is_dir()), Path())
    missing = folder.relative_to(above).parts[0]
    near = (
        nearest(missing, [one.name for one in above.iterdir() if one.is_dir()]) if os.access(above, os.R_OK) else None
    )
    raise TierformError(
        [Problem("cannot write here: no such folder", file, nearest=near, fix=f"Make it first: mkdir -p {folder}")]
    )


def make_folder(path: Path | str, *, parents: bool = False) -> Path:
    """The folder, made if it is missing; the folder above must exist, or with `parents` is made, too (caches)."""
    folder = Path(path)
    if not parents and not folder.exists() and not folder.parent.is_dir():
        no_folder(folder.parent, str(folder))
    try:
        folder.mkdir(parents=parents, exist_ok=True)
    except (OSError, ValueError) as error:
        fail(f"cannot make this folder: {getattr(error, 'strerror', None) or error}", file=str(folder))
    return folder
