"""How hot chips get while they serve, and how much slower: power over windows of time → the stack → the clock.

Over each window the energy of every component of a replica heats the tiles that hold it, evenly; what the replica
draws while it waits heats them, too.  Temperatures follow the thermal model of the chip's stack (the same as
``simulate``'s, here over time).  Above the limit the clock falls by a tenth a window, 3 K below it rises again; at a
lower clock a step takes longer and its energy stays (the clock is skipped, the voltage kept, so heat falls as the rate
does).  Limits: leakage is that of the oracle's tables; all chips of a replica are alike; energy counts when its step
is planned, so a window should be longer than a step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tierform.chip.description import Chip
from tierform.errors import Problem, TierformError
from tierform.serving import state
from tierform.serving.controls import SECOND
from tierform.serving.run import Machine
from tierform.simulation.heat import stack_of
from tierform.thermal import GridModel, TemperatureField
from tierform.thermal.influence import default_grid

Floats = NDArray[np.float64]
MOST_REPLICAS = 64
MOST_WINDOWS = 100_000
STEP, LOWEST, BELOW_K = 0.1, 0.2, 3.0


@dataclass
class HeatOverTime:
    """Power, temperature and clock of every replica by window; `limit_K` slows what is hotter, None only watches."""

    chip: Chip
    components: tuple[str, ...]
    chips: int = 1
    window_s: float = 1.0
    limit_K: float | None = None
    idle_W: float = 0.0
    time_s: list[float] = field(default_factory=list)
    power_W: list[Floats] = field(default_factory=list)  # (replicas,) of each window
    peak_K: list[Floats] = field(default_factory=list)
    clock: list[Floats] = field(default_factory=list)
    _model: GridModel | None = None
    _fields: list[TemperatureField] = field(default_factory=list)
    _share: Floats = field(default_factory=lambda: np.zeros(0))
    _energy: Floats = field(default_factory=lambda: np.zeros(0))
    _busy: Floats = field(default_factory=lambda: np.zeros(0))
    _clock: Floats = field(default_factory=lambda: np.zeros(0))

    def begin(self, made: Machine) -> int:
        """Everything is as warm as it gets while it waits."""
        number = len(made.replicas.rows)
        problems = []
        if not self.window_s > 0:
            problems.append(Problem("must be greater than 0", key="window", value=self.window_s))
        if number > MOST_REPLICAS:
            problems.append(Problem(f"temperatures of at most {MOST_REPLICAS} replicas", key="replicas", value=number))
        if not self.components:
            problems.append(Problem("the oracle tells no energy, so nothing is heated", key="heat"))
        if problems:
            raise TierformError(problems)
        stack = stack_of(self.chip)
        self._model = GridModel(stack, *default_grid(stack))
        numbers = {
            f"{self.chip.package.dies[tile.die].name}[{tile.y},{tile.x}]": tile.number for tile in self.chip.tiles
        }
        order = [numbers[tile.region.name] for tile in self._model.stack.tiles]
        shares = []
        for name in self.components:
            tiles = list(self.chip.tiles_of(name)) if name in self.chip.components else []
            part = np.zeros(len(self.chip.tiles))
            part[tiles or slice(None)] = 1.0 / (len(tiles) or len(part))
            shares.append(part[order])
        self._share = np.array(shares)
        start = self._model.steady(self.idle_W / self.chips * self._share.mean(axis=0))
        self._fields = [start] * number
        self._energy, self._busy = made.replicas.energy.copy(), np.zeros(number)
        self._clock = np.ones(number)
        return round(self.window_s * SECOND)

    def act(self, made: Machine, now_ns: int) -> int:
        """The window that ends now."""
        if len(self.time_s) >= MOST_WINDOWS:
            what = f"more than {MOST_WINDOWS:,} windows: take longer ones"
            raise TierformError([Problem(what, key="window", value=self.window_s)])
        self._follow(made, now_ns, self.window_s)
        made.replicas.stretch[:] = 1.0 / self._clock
        return now_ns + round(self.window_s * SECOND)

    def _follow(self, made: Machine, now_ns: int, seconds: float) -> None:
        assert self._model is not None
        joules = made.replicas.energy - self._energy
        # What is booked beyond now is part of a later window's busy time, not of this one's.
        ahead = np.maximum(made.replicas.rows[:, state.CHIP_FREE] - now_ns, 0) / SECOND
        busy = made.replicas.rows[:, state.BUSY_NS] / SECOND - ahead
        idle_s = np.clip(seconds - (busy - self._busy), 0.0, seconds)
        self._energy, self._busy = made.replicas.energy.copy(), busy
        idle = self.idle_W * idle_s / seconds
        peaks = np.zeros(len(idle))
        for replica, (energy, waiting_W) in enumerate(zip(joules, idle, strict=True)):
            tiles_W = (energy / seconds) @ self._share + waiting_W * self._share.mean(axis=0)
            (after,) = self._model.march([tiles_W / self.chips], seconds, start=self._fields[replica])
            self._fields[replica] = after
            peaks[replica] = float(after.tiles_K().max())
        self.time_s.append(now_ns / SECOND)
        self.power_W.append(joules.sum(axis=1) / seconds + idle)
        self.peak_K.append(peaks)
        if self.limit_K is not None:
            self._clock = np.where(peaks > self.limit_K, self._clock - STEP, self._clock)
            self._clock = np.where(peaks < self.limit_K - BELOW_K, self._clock + STEP, self._clock)
            self._clock = np.clip(self._clock, LOWEST, 1.0)
        self.clock.append(self._clock.copy())

    def to_dict(self) -> dict[str, list[float]]:
        """Over time: mean power of all replicas together, the hottest tile of any, the slowest clock."""
        return {
            "time_s": list(self.time_s),
            "power_W": [float(one.sum()) for one in self.power_W],
            "peak_K": [float(one.max()) for one in self.peak_K],
            "clock": [float(one.min()) for one in self.clock],
        }
