"""Systolic arrays: cycles in closed form for three dataflows, energy by MACs and SRAM accesses.

An array of R x C processing elements computes an (M, K) x (K, N) product in folds.  With the operand that stays put
loaded while the previous fold computes (double-buffered), a fold takes (Samajdar et al., SCALE-Sim, 2018/2020):

- weight-stationary: R + C + M - 2 cycles, after a load of R for the first; ceil(K/R) * ceil(N/C) folds;
- output-stationary: R + C + K - 2 cycles and, after the last, a drain of R; ceil(M/R) * ceil(N/C) folds;
- input-stationary: R + C + N - 2 cycles, after a load of R for the first; ceil(K/R) * ceil(M/C) folds.

Independent products (heads, experts) and folds are spread over the arrays.  Partial sums of weight- and
input-stationary folds along K are accumulated in the output SRAM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tierform.chip.component import WHOLE, Cost, Share
from tierform.chip.parameters import evidence, value_by_precision
from tierform.errors import fail
from tierform.provenance import Assumption, Constant
from tierform.schema import FileModel, quantity
from tierform.workload.operator import Kind, Operator

DATAFLOWS = ("ws", "os", "is")


class SystolicParameters(FileModel):
    """The data file of a systolic array (one array with its SRAM)."""

    type: Literal["systolic"]
    description: str = ""
    rows: int
    columns: int
    dataflow: Literal["ws", "os", "is", "best"] = "best"
    clock: Annotated[Constant, quantity("Hz", above=0)]
    mac_energy: dict[str, Annotated[Constant, quantity("J", minimum=0)]]
    sram_energy: Annotated[Constant, quantity("J/B", minimum=0)]
    sram_capacity: Annotated[Constant, quantity("B", above=0)]
    array_area: Annotated[Constant, quantity("m^2", above=0)]
    leakage: Annotated[Constant, quantity("W", minimum=0)]


@dataclass(frozen=True, slots=True)
class Folds:
    """How one product runs on one array: folds, cycles of each, and what is not overlapped (load or drain)."""

    count: int
    cycles: int
    edge_cycles: int
    sram_reads: int
    sram_writes: int


def folds(dataflow: str, m: int, n: int, k: int, rows: int, columns: int) -> Folds:
    """Folds and SRAM accesses (in operand words) of an (m, k) x (k, n) product; formulas in the module's text."""
    if dataflow == "ws":
        count = -(-k // rows) * -(-n // columns)
        return Folds(count, rows + columns + m - 2, rows, m * k * -(-n // columns) + k * n, m * n * -(-k // rows))
    if dataflow == "os":
        count = -(-m // rows) * -(-n // columns)
        reads = m * k * -(-n // columns) + k * n * -(-m // rows)
        return Folds(count, rows + columns + k - 2, rows, reads, m * n)
    count = -(-k // rows) * -(-m // columns)
    return Folds(count, rows + columns + n - 2, rows, k * n * -(-m // columns) + m * k, m * n * -(-k // rows))


@dataclass(frozen=True)
class SystolicArrays:
    """`units` equal systolic arrays that share an operator's products and folds."""

    name: str
    units: int
    parameters: SystolicParameters

    @classmethod
    def build(cls, name: str, units: int, parameters: SystolicParameters) -> SystolicArrays:
        """From the data file's parameters."""
        if parameters.rows < 1 or parameters.columns < 1:
            fail(
                "an array needs at least one row and one column",
                key=f"{name}.rows x columns",
                value=f"{parameters.rows} x {parameters.columns}",
            )
        return cls(name, units, parameters)

    schema = SystolicParameters

    def supports(self, operator: Operator) -> bool:
        """Any matmul in a number format that the array has a MAC energy for."""
        return operator.kind is Kind.MATMUL and self._mac_energy_J(operator) is not None

    def _mac_energy_J(self, operator: Operator) -> float | None:
        from tierform.workload.precision import bits

        widest = max((operand.precision for operand in operator.inputs), key=bits)
        return value_by_precision(self.parameters.mac_energy, widest)

    def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
        """Cycles of the best (or the given) dataflow on the arrays of the share; energy of MACs and SRAM."""
        mac_energy = self._mac_energy_J(operator)
        if not self.supports(operator) or mac_energy is None:
            fail(f"the component {self.name!r} cannot run this operator", value=operator.name)
        p, units = self.parameters, share.units or self.units
        products = operator.count * operator.batch
        options = []
        for dataflow in DATAFLOWS if p.dataflow == "best" else (p.dataflow,):
            fold = folds(dataflow, operator.m, operator.n, operator.k, p.rows, p.columns)
            rounds = -(-products * fold.count // units)
            options.append((rounds * fold.cycles + fold.edge_cycles, dataflow, fold))
        cycles, _, fold = min(options)
        seconds = cycles / p.clock.value
        word_B = max(operand.size_B / max(operand.elements, 1) for operand in operator.inputs)
        sram_B = products * (fold.sram_reads + fold.sram_writes) * word_B
        peak = units * p.rows * p.columns * cycles
        return Cost(
            latency_s=seconds,
            occupancy_s=seconds,
            energy_J={"mac": operator.macs * mac_energy, "sram": sram_B * p.sram_energy.value},
            operations=operator.operations,
            utilization=operator.macs / peak,
        )

    @property
    def sram_capacity_B(self) -> float:
        """SRAM of all arrays."""
        return self.units * self.parameters.sram_capacity.value

    @property
    def area_m2(self) -> float:
        """Arrays with their SRAM."""
        return self.units * self.parameters.array_area.value

    def leakage_W(self, temperature_K: float) -> float:
        """Doubles every 30 K, from the parameter's value at 300 K (rule of thumb for bulk CMOS; assumed)."""
        return float(self.units * self.parameters.leakage.value * 2.0 ** ((temperature_K - 300.0) / 30.0))

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every constant with its evidence."""
        return evidence(self.name, self.parameters)
