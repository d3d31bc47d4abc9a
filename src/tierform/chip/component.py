"""What every component of a chip must answer: can you run this operator, and what does it cost?

A component stands for all units of one type on a chip (256 crossbar tiles, 16 systolic arrays, one GPU).  It never
knows the network, the memory behind the chip or the schedule; those add their own time and energy.
What only some components can do is a protocol of its own, a *capability*: a component has it by having its members,
and whoever needs it asks ``isinstance(part, WeightHolder)``.  `tierform.chip.contract` holds the tests that any
implementation of any of them, ours or a plug-in's, must pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tierform.provenance import Assumption
from tierform.registry import Registry
from tierform.workload.formats import element
from tierform.workload.operator import Operator
from tierform.workload.precision import bits

# Temperature in kelvin: of one unit, or of many at once.
Kelvin = TypeVar("Kelvin", float, NDArray[np.float64])

COMPONENTS = Registry(
    "component type",
    "tierform.components",
    {
        "crossbar": "tierform.chip.crossbar:CrossbarTiles",
        "systolic": "tierform.chip.systolic:SystolicArrays",
        "vector": "tierform.chip.vector:VectorUnits",
        "gpu": "tierform.chip.gpu:Gpu",
        "pim": "tierform.chip.pim:DramPim",
    },
)


def cmos_leakage_W(at_300_K: float, temperature_K: Kelvin) -> Kelvin:
    """Leakage that doubles every 30 K from its value at 300 K (rule of thumb for bulk CMOS; assumed)."""
    power: Kelvin = at_300_K * 2.0 ** ((temperature_K - 300.0) / 30.0)
    return power


@dataclass(frozen=True, slots=True)
class Cost:
    """What one execution of one operator takes on one component.

    `occupancy_s` is how long the component (or the share of it that the operator got) cannot take the next work;
    `latency_s` >= `occupancy_s` is from the first input to the last output.  `energy_J` is by part.  `memory_read_B`
    and `memory_write_B` is traffic to the memory behind the component that is already inside the latency (a GPU's HBM).
    `cell_writes` counts programmed non-volatile cells, `writes_per_cell` the most that any one cell was written.
    """

    latency_s: float
    occupancy_s: float
    energy_J: dict[str, float] = field(default_factory=dict)
    operations: float = 0.0
    memory_read_B: float = 0.0
    memory_write_B: float = 0.0
    cell_writes: int = 0
    writes_per_cell: float = 0.0
    utilization: float = 0.0

    @property
    def total_energy_J(self) -> float:
        """Sum over the parts."""
        return math.fsum(self.energy_J.values())

    def scaled(self, occupancy: float) -> Cost:
        """The same work stretched to another occupancy (for example by sharing a bandwidth)."""
        return replace(self, occupancy_s=occupancy, latency_s=occupancy + self.latency_s - self.occupancy_s)


@dataclass(frozen=True, slots=True)
class Share:
    """What of a component an operator may use: `units` of it (0: all), and `replicas` copies of its static weight.

    `second_copy` says that a transposed copy of the weight is held for the backward pass.  `parts`: the tokens of a
    product come in so many parts, with other work between them; what takes tokens one by one need not care.  A product
    of two activations has operands of its own for each of its `sequences`.
    """

    units: int = 0
    replicas: int = 1
    second_copy: bool = False
    parts: int = 1
    sequences: int = 1


WHOLE = Share()
Costs = dict[tuple[object, ...], Cost]
Answer = TypeVar("Answer")


def remember(
    known: dict[tuple[object, ...], Answer],
    operator: Operator,
    share: Share,
    compute: Callable[[Operator, Share], Answer],
) -> Answer:
    """What is computed of an operator's shape, once; `known` belongs to one component and is never shared.

    A component keeps it in a field that is made anew for every instance (``field(init=False)``), so that a component
    with another value has another memory and one without keeps its own.
    """
    key = (operator.shape_key, share)
    found = known.get(key)
    if found is None:
        found = known[key] = compute(operator, share)
    return found


@runtime_checkable
class Component(Protocol):
    """The interface of a component; see the module's text."""

    @property
    def name(self) -> str:
        """Its name on the chip."""

    @property
    def units(self) -> int:
        """Equal units that it stands for."""

    def supports(self, operator: Operator) -> bool:
        """Whether it can run the operator at all."""

    def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
        """Time, energy by part, traffic and wear of one execution; TierformError when it is not supported."""

    @property
    def area_m2(self) -> float:
        """Silicon area of all units."""

    def leakage_W(self, temperature_K: Kelvin) -> Kelvin:
        """Static power of all units if they were at this temperature; of an array of temperatures, one for each."""

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every constant it uses, with its source and kind."""


# -- capabilities: what only some components can do ---------------------------------------------------------------


@runtime_checkable
class WeightHolder(Protocol):
    """Keeps static weights in place, in crossbars that are written before they are used."""

    @property
    def crossbars(self) -> int:
        """Crossbars of all units."""

    def crossbars_for(self, operator: Operator) -> int:
        """Crossbars that one copy of the operator's weight takes (all `count` groups)."""

    def programming_cost(self, crossbars: int, writes_per_cell: float = 1.0) -> Cost:
        """Time, energy and wear of writing so many crossbars once."""


@runtime_checkable
class Wearing(Protocol):
    """Has cells that survive a limited number of writes, and that may forget what was written."""

    @property
    def crossbars(self) -> int:
        """Crossbars of all units: each wears on its own."""

    @property
    def cells_per_crossbar(self) -> int:
        """Cells of one crossbar."""

    @property
    def endurance_writes(self) -> float:
        """Writes that a cell survives."""

    def refreshes(self, seconds: float) -> int:
        """How often what is held must be written anew in so many seconds; 0 where cells do not forget."""


@runtime_checkable
class MemoryHolder(Protocol):
    """Has memory of its own: its costs contain the traffic with it."""

    @property
    def memory_capacity_B(self) -> int:
        """Bytes of all units."""


@dataclass(frozen=True, slots=True)
class Refetch:
    """How often the operands of an operator cross between memory and a component's buffer, as factors on their bytes.

    `first` is for what is streamed (all inputs but the last of a matmul, all inputs of another kind), `second` for the
    matmul's other operand (its weight, keys or values); both are at least 1.  `result_write` (at least 1) and
    `result_read` (0 unless partial results come back) are factors on the bytes of the result.
    """

    first: float = 1.0
    second: float = 1.0
    result_read: float = 0.0
    result_write: float = 1.0


ONCE = Refetch()
Refetches = dict[tuple[object, ...], Refetch]


@runtime_checkable
class BufferHolder(Protocol):
    """Has an on-chip buffer, which decides how often operands are fetched from the memory behind it."""

    @property
    def sram_capacity_B(self) -> float:
        """Bytes of the buffers of all units."""

    def refetch(self, operator: Operator, share: Share = WHOLE) -> Refetch:
        """Factors on the operator's bytes; a larger buffer never gives more traffic."""


@dataclass(frozen=True, slots=True)
class FusedKernel:
    """Operators that run as one kernel: their positions among those given, and each one's part of the cost.

    `generation` is that of the attention kernels (FlashAttention 2, 3) whose times they are; 0 where none is told.
    """

    name: str
    members: tuple[int, ...]
    costs: tuple[Cost, ...]
    generation: int = 0


@runtime_checkable
class OperatorFuser(Protocol):
    """Runs neighbouring operators as one kernel."""

    @property
    def fuses_attention(self) -> bool:
        """Whether attention is among them, so that its scores never stand in memory."""

    def fuse(self, operators: Sequence[Operator], keeps_activations: bool = False) -> list[FusedKernel]:
        """Kernels that replace the costs of some of these operators of one block, which are given in their order.

        `keeps_activations`: intermediate values are written because a backward pass reads them.
        """


@runtime_checkable
class KernelIssuer(Protocol):
    """May be a processor that issues its own kernels: each call of a framework takes it time, computing or not."""

    @property
    def issues_kernels(self) -> bool:
        """Whether it does; an operator without operands is then one with which the host alone has work."""


@runtime_checkable
class PoweredBoard(Protocol):
    """Draws power while it works on anything at all, beside what its operators and bytes take."""

    @property
    def active_W(self) -> float:
        """Power on top of idling while a kernel or a collective runs; not part of any Cost."""

    @property
    def headroom_W(self) -> float:
        """Power that its limit leaves for operations and bytes."""

    def memory_s(self, size_B: float) -> float:
        """How long so many bytes take to or from its memory, streamed."""


@runtime_checkable
class Explainer(Protocol):
    """Tells why it does not support an operator."""

    def why_not(self, operator: Operator) -> str:
        """A sentence for people; empty when it supports the operator or nobody would expect it to."""


@runtime_checkable
class FormatConverter(Protocol):
    """Runs operators in number formats that it does not have, as others that it has."""

    def conversion(self, operator: Operator) -> str:
        """A sentence on what it makes of the formats of an operator that it supports; empty when it has them."""


@runtime_checkable
class Remarker(Protocol):
    """Has something to say about its parameters."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences for people, each naming the component."""


@runtime_checkable
class CollectiveTimer(Protocol):
    """Knows from measurements how long collectives take among a few of its kind."""

    def collective_s(self, kind: str, members: int, size_B: float, *, direct: bool = False) -> float | None:
        """Seconds of a collective among so many over `size_B` bytes on each; None where nothing was measured.

        `direct`: a small all-reduce may be one kernel that reads the others' memory.
        """


@dataclass(frozen=True, slots=True)
class Roof:
    """What bounds every operator of a component: peak operations a second by format, bytes a second of its memory.

    What is no product of matrices has the rate of the vector units, where the component tells one.
    """

    peak_per_s: dict[str, float]
    bandwidth_B_per_s: float
    vector_per_s: float | None = None

    def peak_of(self, precision: str) -> float | None:
        """The peak in a format: its own, or that of the narrowest wider one."""
        precision = precision if precision in self.peak_per_s else element(precision)
        floating = not precision.startswith("int")
        wider = [
            (bits(name), rate)
            for name, rate in self.peak_per_s.items()
            if bits(name) >= bits(precision) and (not floating or not name.startswith("int"))
        ]
        return self.peak_per_s.get(precision) or (min(wider)[1] if wider else None)


@runtime_checkable
class Roofed(Protocol):
    """Has one peak rate for each format and one memory bandwidth, as a roofline shows them."""

    def roof(self) -> Roof:
        """Both of all units."""
