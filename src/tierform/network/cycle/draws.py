# mypy: disable-error-code="untyped-decorator, no-any-return"
"""Random numbers of the compiled loops: splitmix64 (Steele, Lea and Flood 2014), its state among the counters."""

from __future__ import annotations

import numpy as np

from tierform.arrays import Ints
from tierform.jit import compiled, inlined
from tierform.network.cycle import state as s


@inlined
def random_word(c: Ints) -> np.uint64:
    """The next 64 random bits (splitmix64)."""
    state = np.uint64(c[s.RANDOM]) + np.uint64(0x9E3779B97F4A7C15)
    c[s.RANDOM] = np.int64(state)
    word = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@inlined
def fraction(c: Ints) -> float:
    """A random number in [0, 1)."""
    return np.float64(random_word(c) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@inlined
def below(c: Ints, bound: int) -> np.int64:
    """A random integer from 0 to bound - 1."""
    return np.int64(((random_word(c) >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))


@compiled
def geometric(c: Ints, inverse_log: float) -> np.int64:
    """Cycles to the next success of a Bernoulli trial per cycle; `inverse_log` is 1 / log(1 - rate), 0 for rate 1."""
    return np.int64(1) + np.int64(np.log(1.0 - fraction(c)) * inverse_log)
