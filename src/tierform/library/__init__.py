"""The library: models, chips, components and processes as data files, each constant with its source.

:func:`find` gives the path of a named file; :func:`names` lists a shelf; :func:`citation` resolves a source key.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from tierform.errors import fail
from tierform.files import read_text, read_yaml
from tierform.provenance import Citation

ROOT = Path(__file__).parent
SHELVES = ("models", "chips", "components", "processes", "memories", "noise", "runtimes", "hosts")


def names(shelf: str) -> list[str]:
    """The names on a shelf (``models``, ``chips``, ``components``, ...), sorted; subfolders give ``folder/name``."""
    return list(_names(shelf))


@lru_cache(maxsize=32)
def _names(shelf: str) -> tuple[str, ...]:
    folder = ROOT / shelf
    return tuple(sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")))


def find(shelf: str, name: str) -> Path:
    """The file of a library entry; TierformError with the nearest name when there is none."""
    path = ROOT / shelf / f"{name}.yaml"
    if name in _names(shelf):
        return path
    return fail(
        f"no {shelf.rstrip('s')} of this name in the library",
        value=name,
        choices=_names(shelf),
        fix=f"`tierform list {shelf}` shows them all.",
    )


@lru_cache(maxsize=1)
def _sources() -> dict[str, Citation]:
    content = read_yaml(ROOT / "sources.yaml").content
    return {key: Citation(key, entry["text"], entry.get("url", "")) for key, entry in content.items()}


@lru_cache(maxsize=1)
def _source_keys() -> frozenset[str]:
    """The keys of ``sources.yaml``, which is not parsed for that: they stand at the beginning of their lines."""
    return frozenset(re.findall(r"^([^\s#:]+):", read_text(ROOT / "sources.yaml"), re.MULTILINE))


def has_source(key: str) -> bool:
    """Whether ``sources.yaml`` has a source of this key."""
    return key in _source_keys()


def citation(key: str) -> Citation:
    """The full citation of a source key; TierformError with the nearest key when it is not in ``sources.yaml``."""
    if key not in _sources():
        fail("no source of this key in the library's sources.yaml", value=key, choices=_sources())
    return _sources()[key]
