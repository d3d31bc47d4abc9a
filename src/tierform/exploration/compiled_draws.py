"""Compilation with types that a checker sees, and random numbers inside compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """The function as machine code, kept beside its file."""
    return cast("F", numba.njit(cache=True)(function))


@compiled
def start_draws(seed: int) -> None:
    """Begin the random numbers of compiled code anew."""
    np.random.seed(seed)  # noqa: NPY002 (compiled code has no generators of its own)


@compiled
def uniform() -> float:
    """A number from 0 to 1."""
    return float(np.random.random())  # noqa: NPY002


@compiled
def below(number: int) -> int:
    """A whole number from 0 to below `number`."""
    return int(np.random.randint(number))  # noqa: NPY002
