"""Routers: which replica gets a request.

Those of this file run inside the compiled loop; a plug-in is a callable ``(view, request) -> replica`` that is asked at
every arrival.  `view` shows the load of every replica and the request's lengths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.registry import Registry
from tierform.serving.state import (
    ADAPTER_AWARE,
    LEAST_LOADED,
    OUTSIDE_ROUTER,
    PREFIX_AWARE,
    ROUND_ROBIN,
    TWO_CHOICES,
)

ROUTERS = Registry(
    "router",
    "tierform.routers",
    {
        "round-robin": "tierform.serving.routers:round_robin",
        "least-loaded": "tierform.serving.routers:least_loaded",
        "two-choices": "tierform.serving.routers:two_choices",
        "prefix-aware": "tierform.serving.routers:prefix_aware",
        "adapter-aware": "tierform.serving.routers:adapter_aware",
    },
)


@dataclass(frozen=True)
class RouterView:
    """What a router may look at: requests that wait or run on each replica, the time, and which take this request."""

    load: NDArray[np.int64]
    now_ns: int
    prompt: int
    output: int
    takes: NDArray[np.bool_]


Router = Callable[[RouterView, int], int]


@dataclass(frozen=True)
class Compiled:
    """A router of the compiled loop, by its number."""

    number: int


round_robin = Compiled(ROUND_ROBIN)
least_loaded = Compiled(LEAST_LOADED)
two_choices = Compiled(TWO_CHOICES)
prefix_aware = Compiled(PREFIX_AWARE)
adapter_aware = Compiled(ADAPTER_AWARE)


def number_of(name: str) -> tuple[int, Router | None]:
    """The compiled loop's number of a router, and the callable behind one that must be asked."""
    found = ROUTERS.get(name)
    if isinstance(found, Compiled):
        return found.number, None
    if not callable(found):
        fail("a router is a callable (view, request) -> replica", key="router", value=name)
    return OUTSIDE_ROUTER, found
