"""Values that are remembered for objects while these live, by identity: costs of a component, routes of a network."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Remembered:
    """A store of values for objects that need not be hashable; a value goes when its object does."""

    def __init__(self) -> None:
        self._values: dict[int, Any] = {}

    def of(self, owner: Any, make: Callable[[], T]) -> T:
        """The value of `owner`, made now if there is none yet."""
        key = id(owner)
        if key not in self._values:
            self._values[key] = make()
            weakref.finalize(owner, self._values.pop, key, None)
        found: T = self._values[key]
        return found


class Bounded(dict[Any, Any]):
    """A dictionary that forgets its oldest entries beyond `most`."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __setitem__(self, key: object, value: object) -> None:
        super().__setitem__(key, value)
        while len(self) > self.most:
            del self[next(iter(self))]
