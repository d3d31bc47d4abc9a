"""An attribute that is computed when it is first asked for, and then stands in the object like any other.

As :class:`functools.cached_property` without its lock, which Python 3.11 takes at every first access.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from functools import cached_property as lazy
else:

    class lazy:
        """Decorates a method without arguments of a class whose objects have a ``__dict__``."""

        def __init__(self, compute):
            self.compute, self.__doc__ = compute, compute.__doc__

        def __set_name__(self, owner, name):
            self.name = name

        def __get__(self, held, owner=None):
            if held is None:
                return self
            found = held.__dict__[self.name] = self.compute(held)
            return found


__all__ = ["lazy"]
