"""Paths of component files: from anywhere inside, seen from the chip file's folder when written."""

from __future__ import annotations

import os
from pathlib import Path


def with_full_paths(content: dict[str, object], file: Path) -> dict[str, object]:
    """The content with component files named from anywhere."""
    entries = content.get("components")
    if not isinstance(entries, dict):
        return content
    full: dict[str, object] = {}
    for name, entry in entries.items():
        given = entry.get("file") if isinstance(entry, dict) else None
        if isinstance(given, str) and given.endswith((".yaml", ".yml")):
            entry = {**entry, "file": str(file.absolute().parent / given)}
        full[name] = entry
    return {**content, "components": full}


def seen_from(folder: Path, file: str) -> str:
    """A component file as a chip file in this folder names it; names of the library stay."""
    path = Path(file)
    return os.path.relpath(path, folder) if path.is_absolute() and path.is_relative_to(folder) else file
