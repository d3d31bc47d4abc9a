"""A GPU as one component: every operator is a kernel, unless its neighbours are fused with it.

Products: `tierform.chip.gpu.products`, and what narrows the inputs of those of 8 bits: `tierform.chip.gpu.narrow`.
Softmax, normalization, activation, elementwise, rotary, embedding, loss, routing and optimizer kernels: launch +
max(arithmetic on the vector units, bytes / (bandwidth * efficiency)).  `fuse` finds attention and chains of such light
kernels among neighbours (`tierform.chip.gpu.fusion`).  Energy is counted per
operation and per byte; idle power is charged over the whole run as leakage, active power over the time of kernels and
collectives.  The board's power limit acts over a whole pass (`tierform.simulation.power_cap`).

A product of quantized weights with wider activations runs at the activations' rate after dequantization, as weight-only
kernels do; its weights still move in their own width.  Limits: kernels run one after another, each on the whole GPU;
temperature does not change the rates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property

from pydantic import BaseModel

from tierform.chip.component import WHOLE, Cost, Costs, FusedKernel, Kelvin, Roof, Share, remember
from tierform.chip.gpu.attention import DecodeModel, PrefillModel
from tierform.chip.gpu.collectives import DIRECT_BELOW_B, KINDS, MOST_GPUS, CollectiveModel, direct_s
from tierform.chip.gpu.fusion import find_fused
from tierform.chip.gpu.gemm import ProductModel
from tierform.chip.gpu.narrow import NarrowProductModel, quantization_s
from tierform.chip.gpu.parameters import GpuParameters, Sheet
from tierform.chip.gpu.products import few_rows_s, has_kernels, product_s
from tierform.chip.gpu.wide import WideProductModel
from tierform.chip.laws import Scaled, Steps
from tierform.chip.parameters import evidence, value_by_precision
from tierform.errors import fail
from tierform.provenance import Assumption
from tierform.workload.formats import format_of
from tierform.workload.operator import Kind, Operator, Origin

SPARSE_PATTERN = "2:4"  # that tensor cores skip
_MANY = 1e6  # as many distinct weights as defeat any cache
_FUSED_KEPT = 512  # blocks whose fused kernels are remembered


def light_kernel(operator: Operator) -> str:
    """What a kernel that is no product is called in `light_time`; one that also makes a mask draws random numbers."""
    masks = operator.kind is Kind.ELEMENTWISE and bool(operator.outputs) and operator.outputs[-1].precision == "int8"
    if masks:
        return "dropout" if operator.inputs else "random"
    return operator.kind.value


def elements_of(operator: Operator) -> float:
    """Elements that a kernel's time in `light_time` counts: of an elementwise one a third of all that cross."""
    sizes = [operand.elements for operand in (*operator.inputs, *operator.outputs)]
    return sum(sizes) / 3 if light_kernel(operator) == "elementwise" else max(sizes)


@dataclass(frozen=True)
class Gpu:
    """One GPU (or `units` of them side by side, each with its own share of the work).

    `weights_in_turn`: as many weights of a product's size are used before one is used again.  A model has more than any
    cache holds; a benchmark that turns through a few leaves small ones in the L2.
    """

    name: str
    units: int
    parameters: GpuParameters
    weights_in_turn: float = _MANY
    _costs: Costs = field(init=False, default_factory=dict, repr=False, compare=False)
    _fused: dict[tuple[int, ...], tuple[tuple[Operator, ...], list[FusedKernel]]] = field(
        init=False, default_factory=dict, repr=False, compare=False
    )

    schema = GpuParameters

    @classmethod
    def build(cls, name: str, units: int, parameters: GpuParameters) -> Gpu:
        """From the data file's parameters."""
        return cls(name, units, parameters)

    @cached_property
    def sheet(self) -> Sheet:
        """The data-sheet figures that the kernel models use."""
        return Sheet.of(self.parameters)

    @cached_property
    def products(self) -> ProductModel | None:
        """The model of matrix products, or None for a plain roofline."""
        p = self.parameters.products
        return ProductModel.of(self.sheet, p) if p else None

    @cached_property
    def narrow(self) -> NarrowProductModel | None:
        """The model of products of 8-bit operands, if the file has one."""
        p = self.parameters.narrow_products
        return NarrowProductModel.of(self.sheet, p) if p else None

    @cached_property
    def wide(self) -> WideProductModel | None:
        """The model of products of 32-bit operands, if the file has one and tells their peak."""
        p = self.parameters.wide_products
        return WideProductModel.of(self.parameters, self.sheet, p) if p else None

    @cached_property
    def prefill(self) -> PrefillModel | None:
        """The model of fused attention over many queries, if the file has one."""
        p = self.parameters.attention
        return PrefillModel.of(self.sheet, p.prefill, p.tile) if p else None

    @cached_property
    def decode(self) -> DecodeModel | None:
        """The model of fused attention of one query, if the file has one."""
        p = self.parameters.attention
        return DecodeModel.of(self.sheet, p.decode) if p else None

    def supports(self, operator: Operator) -> bool:
        """Everything but collectives, in a format that the GPU has a peak for (or a wider one)."""
        if operator.kind is Kind.COLLECTIVE:
            return False
        return operator.kind is not Kind.MATMUL or self.rate(operator) is not None

    def why_not(self, operator: Operator) -> str:
        """Why it does not support the operator, for a message; empty when it does."""
        if self.supports(operator) or operator.kind is Kind.COLLECTIVE:
            return ""
        known = ", ".join(self.parameters.peak_rate)
        return f"{self.name}: no peak rate for {operator.widest} or a wider format, only for {known}."

    def rate(self, operator: Operator) -> float | None:
        """Peak operations a second in the operator's widest format (with 2:4 weights its sparse rate), of one GPU."""
        peak = value_by_precision(self.parameters.peak_rate, operator.widest)
        if peak is not None and operator.weight_B and format_of(operator.inputs[1].precision).pattern == SPARSE_PATTERN:
            peak *= self.parameters.structured_sparsity.value
        return peak

    def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
        """Time, energy by part and memory traffic of the operator as a kernel of its own."""
        return remember(self._costs, operator, share, self._cost)

    def _cost(self, operator: Operator, share: Share) -> Cost:
        if not self.supports(operator):
            fail(
                f"the GPU {self.name!r} has no peak rate for this operator's format",
                key=operator.name,
                value=operator.widest,
                choices=self.parameters.peak_rate,
                fix=self.why_not(operator),
            )
        read_B = float(operator.read_B)
        p = self.parameters
        if not operator.outputs:  # views: the host alone has work
            host = p.view or p.issue
            return self.kernel_cost(operator, operator.count * host.value if host else 0.0, 0.0, 0.0, 0.0)
        seconds = self._seconds(operator, read_B) + (p.issue.value if p.issue else 0.0)
        seconds *= self._in_step(operator)
        energy = self.arithmetic_J(operator)
        return self.kernel_cost(operator, seconds, energy, read_B, float(operator.output_B))

    def _in_step(self, operator: Operator) -> float:
        """Time of an operator in a step over that of its kernel alone."""
        p = self.parameters
        if p.few_rows is not None and self._has_few_rows(operator):
            factors = p.few_rows.in_step
            return float(factors[operator.m - 1].value) if operator.m <= len(factors) else 1.0
        return float(p.in_step_time.value) if p.in_step_time is not None else 1.0

    def _seconds(self, operator: Operator, read_B: float) -> float:
        p = self.parameters
        if p.few_rows is not None and self._has_few_rows(operator):
            return operator.count * few_rows_s(self, operator, p.few_rows)
        if operator.kind is Kind.MATMUL and has_kernels(self, operator):
            return self.beside_fitted(lambda gpu: product_s(gpu, operator))
        if operator.origin is Origin.QUANTIZE and p.quantization is not None:
            elements = operator.count * max(operand.elements for operand in operator.inputs)
            results = max(operand.elements for operand in operator.outputs)
            return quantization_s(p.quantization, elements / self.units, results, p.memory_bandwidth.value)
        size_B = read_B + operator.output_B
        if (element := p.light_time.get(light_kernel(operator))) is not None:
            most = elements_of(operator)
            beyond = self.memory_s(size_B) if size_B > p.l2_capacity.value else 0.0
            own: float = most * element.value / self.units
            return p.launch.value + max(own, beyond)
        peak = self.rate(operator) if operator.kind is Kind.MATMUL else p.vector_rate.value
        arithmetic_s = operator.operations / ((peak or 1.0) * p.compute_efficiency.value * self.units)
        return p.launch.value + max(arithmetic_s, self.memory_s(size_B))

    def _has_few_rows(self, operator: Operator) -> bool:
        """A product that was measured with weights from memory, as a step finds them: no kernel alone."""
        few = self.parameters.few_rows
        return operator.kind is Kind.MATMUL and few is not None and bool(operator.weight_B) and operator.m <= few.most

    @cached_property
    def fitted(self) -> Gpu | None:
        """The same GPU with the multiprocessors and clock at which its kernels were fitted; None where it is that."""
        p = self.parameters
        if p.fitted_at is None:
            return None
        units, clock = p.fitted_at.fitted_multiprocessors, p.fitted_at.fitted_clock_Hz
        ratio = units * clock / (p.multiprocessors.value * p.clock.value)
        return self.at(
            fitted_at=None,
            multiprocessors=replace(p.multiprocessors, value=units),
            clock=replace(p.clock, value=clock),
            peak_rate={name: replace(rate, value=rate.value * ratio) for name, rate in p.peak_rate.items()},
        )

    def beside_fitted(self, seconds: Callable[[Gpu], float]) -> float:
        """A kernel's time: with more than what was fitted never more than there, with less never less."""
        mine, other = seconds(self), self.fitted
        if other is None:
            return mine
        sheet, theirs = self.sheet, other.sheet
        more = sheet.multiprocessors * sheet.clock_Hz >= theirs.multiprocessors * theirs.clock_Hz
        return min(mine, seconds(other)) if more else max(mine, seconds(other))

    @classmethod
    def scaled(cls, parameters: BaseModel, given: BaseModel, own: AbstractSet[Steps]) -> Scaled:
        """Rates, energies and die scaled from the data file's GPU; see :mod:`tierform.chip.gpu.laws`."""
        from tierform.chip.gpu.laws import scaled

        assert isinstance(parameters, GpuParameters) and isinstance(given, GpuParameters)
        return scaled(parameters, given, own)

    def memory_s(self, size_B: float) -> float:
        """How long so many bytes take to or from memory, streamed."""
        p = self.parameters
        return size_B / (p.memory_bandwidth.value * p.memory_efficiency.value * self.units)

    def arithmetic_J(self, operator: Operator) -> float:
        """Energy of the operator's arithmetic."""
        form = operator.widest if operator.kind is Kind.MATMUL else "fp32"
        return operator.operations * (value_by_precision(self.parameters.operation_energy, form) or 0.0)

    def kernel_cost(
        self, operator: Operator, seconds: float, arithmetic_J: float, read_B: float, write_B: float
    ) -> Cost:
        """A cost from its parts.  The board's power limit holds over a whole pass, not here."""
        p = self.parameters
        energy = {"arithmetic": arithmetic_J, "memory": (read_B + write_B) * p.memory_energy.value}
        rate = self.rate(operator) if operator.kind is Kind.MATMUL else p.vector_rate.value
        return Cost(
            latency_s=seconds,
            occupancy_s=seconds,
            energy_J=energy,
            operations=operator.operations,
            memory_read_B=read_B,
            memory_write_B=write_B,
            utilization=operator.operations / ((rate or 1.0) * self.units * seconds),
        )

    @property
    def _floor_W(self) -> float:
        p = self.parameters.active_power
        return p.value if p is not None else 0.0

    @property
    def active_W(self) -> float:
        """Power of all boards on top of idling while they work on anything; its energy is booked with the time."""
        return self.units * self._floor_W

    @property
    def headroom_W(self) -> float:
        """Power that the limit of all boards leaves for operations and bytes."""
        p = self.parameters
        return self.units * (p.board_power.value - p.idle_power.value - self._floor_W)

    def fuse(self, operators: Sequence[Operator], keeps_activations: bool = False) -> list[FusedKernel]:
        """The kernels into which a library would fuse some of these operators (of one block, in order).

        The kernel's time, energy and traffic are divided among its members.  `keeps_activations`: intermediate values
        are written because a backward pass reads them.  The same operators are looked at once.
        """
        if not self.parameters.fusion:
            return []
        key = (keeps_activations, *map(id, operators))
        found = self._fused.get(key)
        if found is None:
            kernels = find_fused(self, operators, keeps_activations)
            # The operators are kept, so that no other can take over one of their identities.
            found = self._fused[key] = (tuple(operators), kernels)
            while len(self._fused) > _FUSED_KEPT:
                del self._fused[next(iter(self._fused))]
        return list(found[1])

    @property
    def issues_kernels(self) -> bool:
        """Whether the file says how long a call takes the host."""
        return self.parameters.issue is not None

    @property
    def fuses_attention(self) -> bool:
        """Whether the file has fused attention, and fusion is on."""
        return self.parameters.fusion and self.prefill is not None and self.decode is not None

    def collective_s(self, kind: str, members: int, size_B: float, *, direct: bool = False) -> float | None:
        """Seconds of a collective inside a node, where the file has them fitted and not beyond the fit's GPUs."""
        link = self.parameters.links
        if link is None or kind not in KINDS or members > MOST_GPUS:
            return None
        library_s = float(CollectiveModel.of(link).seconds(kind, members, size_B))
        if direct and link.direct is not None and kind == "all_reduce":
            own_s = direct_s(link.direct, link.bandwidth.value, members, size_B)
            return own_s if size_B < DIRECT_BELOW_B else max(own_s, library_s)
        return library_s

    def roof(self) -> Roof:
        """Data-sheet peaks and memory bandwidth of all GPUs."""
        p = self.parameters
        rates = {name: self.units * constant.value for name, constant in p.peak_rate.items()}
        return Roof(rates, self.units * p.memory_bandwidth.value, self.units * p.vector_rate.value)

    @property
    def memory_capacity_B(self) -> int:
        """Bytes of the memory of all GPUs."""
        return int(self.units * self.parameters.memory_capacity.value)

    @property
    def area_m2(self) -> float:
        """The GPU die; its memory stacks are not counted."""
        return self.units * self.parameters.die_area.value

    def leakage_W(self, temperature_K: Kelvin) -> Kelvin:
        """Idle power of the board; its dependence on temperature is not published."""
        return self.units * self.parameters.idle_power.value + 0.0 * temperature_K

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every constant with its evidence."""
        return evidence(self.name, self.parameters)

    def at(self, **changes: object) -> Gpu:
        """The same GPU with parameters exchanged (for what-if studies and for carrying a fit to another device)."""
        return replace(self, parameters=self.parameters.model_copy(update=changes))
