"""One way to add a part: a name, and where to find it.

A registry maps names to lazy targets (``"package.module:attribute"``).  Nothing is imported before it is asked for.
Other packages add their own parts through Python entry points of the registry's group; a name used twice is refused.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from tierform.errors import fail


class Registry:
    """Named parts of one kind, ours and those of installed plug-in packages."""

    def __init__(self, kind: str, group: str, parts: dict[str, str]) -> None:
        """`kind` is the word for messages, `group` the entry-point group, `parts` name -> ``module:attribute``."""
        self.kind = kind
        self.group = group
        self._targets = dict(parts)
        self._loaded: dict[str, object] = {}
        self._plugins_read = False

    def register(self, name: str, target: str | Any) -> None:
        """Add a part: a lazy target text or the object itself.  A name that is taken is refused."""
        if name in self._targets or name in self._loaded:
            fail(f"a {self.kind} of this name is already registered", key=name, fix="Choose another name.")
        if isinstance(target, str):
            self._targets[name] = target
        else:
            self._loaded[name] = target

    def get(self, name: str) -> Any:
        """The part, imported now if it was not before; TierformError with the nearest name when there is none."""
        if name not in self._loaded:
            if name not in self._targets:
                self._read_plugins()
            if name not in self._targets:
                fail(f"unknown {self.kind}", value=name, choices=self.names(), fix=f"Known: {', '.join(self.names())}.")
            module, _, attribute = self._targets[name].partition(":")
            self._loaded[name] = getattr(importlib.import_module(module), attribute)
        return self._loaded[name]

    def names(self) -> list[str]:
        """All names, sorted, plug-ins included."""
        self._read_plugins()
        return sorted({*self._targets, *self._loaded})

    def __contains__(self, name: object) -> bool:
        return name in self._targets or name in self._loaded or name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _read_plugins(self) -> None:
        if self._plugins_read:
            return
        self._plugins_read = True
        from importlib.metadata import entry_points

        for entry in entry_points(group=self.group):
            if self._targets.get(entry.name) != entry.value:
                self.register(entry.name, entry.value)
