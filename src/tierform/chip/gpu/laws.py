"""How a GPU changes with its multiprocessors, clock and cache: rates, energies, die.

Peak rates and the vector rate go with multiprocessors times clock.  A clock needs its supply: energy of an operation
goes with its square.  The die has a share that goes with the multiprocessors, and the SRAM of its L2.  Kernel models
were fitted at the data file's multiprocessors and clock; they stay the yardstick (`fitted_at`): with more of either no
kernel is slower than there, with less none is faster.  Idle power, what a board draws at work before it does anything,
and the board's limit follow multiprocessors, clock and memory bandwidth, as data sheets and fits of boards do.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

from tierform.chip.gpu.parameters import FittedAt, GpuParameters
from tierform.chip.laws import Scaled, Scaling, Steps, laws
from tierform.chip.process import load_process

_L2_NODE = "7nm"


def scaled(parameters: GpuParameters, given: GpuParameters, own: AbstractSet[Steps]) -> Scaled:
    """The parameters scaled from the data file's GPU to this one; keys of `own` stay."""
    p, found = parameters, Scaling(own)
    units, clock = p.multiprocessors.value / given.multiprocessors.value, p.clock.value / given.clock.value
    supply = found.supply(p.clock, given.clock)
    rate = units * clock
    told = f"given at {given.multiprocessors.value:.4g} multiprocessors and {given.clock.value / 1e9:.3g} GHz"
    moved = [
        found.constant(("peak_rate", form), constant, rate, told)
        for form, constant in p.peak_rate.items()
        if form in given.peak_rate
    ]
    if found.constant(("vector_rate",), p.vector_rate, rate, told) or any(moved):
        found.say(f"rates {told}: x {rate:.3g}")
    for form, energy in p.operation_energy.items():
        found.constant(("operation_energy", form), energy, supply**2, "the supply of the clock")
    _power(p, given, found, supply)
    node, share = load_process(_L2_NODE), laws().multiprocessor_area.value
    cell = node.file.sram_area.value * node.area_factor
    cache = (p.l2_capacity.value - given.l2_capacity.value) * cell
    die = 1 + share * (units - 1) + cache / given.die_area.value
    if die > 0 and found.constant(("die_area",), p.die_area, die, told):
        found.say(f"die {told}, with {given.l2_capacity.value / 2**20:.3g} MiB of L2: x {die:.3g}")
    if rate != 1.0 or units != 1.0:
        found.changes[("fitted_at",)] = FittedAt(
            fitted_multiprocessors=given.multiprocessors.value, fitted_clock_Hz=given.clock.value
        )
    return found.on(p)


def _power(p: GpuParameters, given: GpuParameters, found: Scaling, supply: float) -> None:
    """Idle power, floor and limit of the board by its cores and its memory."""
    law = laws().gpu_power
    core = p.multiprocessors.value * p.clock.value / 1e9 * supply**2
    old = given.multiprocessors.value * given.clock.value / 1e9
    bandwidth, before = p.memory_bandwidth.value, given.memory_bandwidth.value
    if (core, bandwidth) == (old, before):
        return

    def grown(power: Callable[[float, float], float]) -> float:
        return power(core, bandwidth) / power(old, before)

    told = f"given for {old:.4g} multiprocessors times GHz and {before / 1e12:.3g} TB/s"
    idle, floor, board = grown(law.idle), grown(law.floor), grown(law.board)
    found.constant(("idle_power",), p.idle_power, idle, told)
    if p.active_power is not None:
        found.constant(("active_power",), p.active_power, floor, told)
    if found.constant(("board_power",), p.board_power, board, told):
        found.say(f"power of the board {told}: idle x {idle:.3g}, at work x {floor:.3g}, limit x {board:.3g}")
