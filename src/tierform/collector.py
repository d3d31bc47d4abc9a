"""Python's search for unused cycles of objects, left out while one answer is worked out.

A job makes some ten thousand objects that live until it ends and hardly a cycle; searching among them again and again
takes a fifth of its time and finds nothing.  What a job leaves is found by the first search after it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Without searches inside; nested, or where the caller has switched them off, it changes nothing."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
