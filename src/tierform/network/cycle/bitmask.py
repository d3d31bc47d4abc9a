"""Which networks the bitmask router simulates exactly as the general one would."""

from __future__ import annotations

from collections.abc import Sequence

from tierform.network.cycle import state as s
from tierform.network.cycle.modes import (
    BY_NODE,
    GRID,
    GROUPS,
    ROMM,
    SPREAD,
    TABLE,
    TORUS,
    TORUS_BALANCED,
    TORUS_TABLE,
    VALIANT,
    VALIANT_TORUS,
    XY_YX,
)
from tierform.network.parameters import RouterParameters

_MODES = (
    TABLE,
    GRID,
    XY_YX,
    VALIANT,
    ROMM,
    TORUS,
    TORUS_BALANCED,
    TORUS_TABLE,
    VALIANT_TORUS,
    BY_NODE,
    SPREAD,
    GROUPS,
)


def fits_bitmask_router(memory: s.Memory, routers: Sequence[RouterParameters]) -> bool:
    """True when this module simulates these routers exactly as the general router would."""
    m = memory.words
    ports = len(memory.link_out) + int(m[s.NODES])
    inputs = int(memory.section(s.AT_ROUTER, int(m[s.ALL_ROUTERS]), s.R_SIZE)[:, s.R_INPUTS].max())
    outputs = int(memory.section(s.AT_ROUTER, int(m[s.ALL_ROUTERS]), s.R_SIZE)[:, s.R_OUTPUTS].max())
    return (
        int(m[s.MODE]) in _MODES
        and int(m[s.CLASSES]) == int(m[s.SUBNETS]) == 1
        and int(m[s.VCS]) <= s.RANGE_BITS
        and max(inputs * int(m[s.VCS]), outputs) <= s.MASK_BITS
        and bool((memory.section(s.AT_OUT, ports, int(m[s.OUT_SIZE]))[:, s.O_INTERVAL] == 1).all())
        and all(
            router.vc_allocator == router.switch_allocator == "islip"
            and router.alloc_iterations == router.vc_alloc_delay == router.switch_alloc_delay == 1
            and router.input_speedup == router.output_speedup == router.switch_speedup == 1
            and not router.wait_for_tail_credit
            and not router.vc_busy_when_full
            and not router.speculative
            and router.priority == "none"
            for router in routers
        )
    )
