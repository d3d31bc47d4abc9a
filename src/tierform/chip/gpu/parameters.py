"""The data file of a GPU: data-sheet figures, energies, and the parameters of its kernels.

Data-sheet figures belong to the device.  Kernel parameters are fitted on measured kernels; they are efficiencies, clock
cycles and ratios, so that they carry over to a device of the same family when only data-sheet figures are exchanged.
A file without a `products` or `attention` section gets a plain roofline for those operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tierform.provenance import Constant
from tierform.schema import Count, FileModel, quantity

_Ratio = Annotated[Constant, quantity("1", above=0)]
_Count = Annotated[Constant, quantity("1", minimum=0)]
_Energy = Annotated[Constant, quantity("J", minimum=0)]
_Rate = Annotated[Constant, quantity("1/s", above=0)]


class ProductParameters(FileModel):
    """Kernel parameters of matrix products; times are in clock cycles.  See `tierform.chip.gpu.gemm` for the model."""

    tensor_efficiency: _Ratio
    memory_efficiency: _Ratio
    launch: _Count
    prologue: _Count
    miss_latency: _Count
    miss_prologue: _Count
    miss_step: _Count
    operand_feed: _Ratio
    step: _Count
    epilogue: _Ratio
    half_tile: _Count
    resident_outputs: _Ratio
    overlap: _Ratio
    reduction: _Count
    reduction_bandwidth: _Ratio
    chosen_half_tile: _Count
    chosen_prologue: _Count
    chosen_reduction: _Count
    chosen_reduction_bandwidth: _Ratio
    smallest_grid: _Count
    small_grid_reduction: _Count
    sustained_efficiency: _Ratio
    boost_time: _Count
    l2_share: _Ratio
    tiles: Annotated[list[tuple[Count, Count]], Field(min_length=1, max_length=100)]
    tile_step: tuple[Count, Count] | None = None


class PrefillParameters(FileModel):
    """Kernel parameters of fused attention over many queries; see `tierform.chip.gpu.attention`."""

    launch: _Count
    tensor_efficiency: _Ratio
    lone_block: _Ratio
    block_setup: _Count
    bytes_per_cycle: _Ratio
    memory_efficiency: _Ratio
    overlap: _Ratio
    cache_write: _Count


class DecodeParameters(FileModel):
    """Kernel parameters of fused attention of one query over a cache; see `tierform.chip.gpu.attention`."""

    launch: _Count
    combine: _Count
    block: _Count
    memory_efficiency: _Ratio
    overlap: _Ratio
    block_setup: _Count
    regroup: _Count
    blocks_per_multiprocessor: _Ratio
    splits_ungrouped: bool = False


class AttentionParameters(FileModel):
    """Fused attention: tile of queries and keys, and the parameters of both phases."""

    tile: tuple[Count, Count]
    prefill: PrefillParameters
    decode: DecodeParameters


class LinkParameters(FileModel):
    """Links to other GPUs of the node: bandwidth per direction; see `tierform.chip.gpu.collectives`."""

    bandwidth: Annotated[Constant, quantity("B/s", above=0)]
    launch: Annotated[Constant, quantity("s", minimum=0)]
    step: Annotated[Constant, quantity("s", minimum=0)]
    share: _Ratio
    bulk_start: Annotated[Constant, quantity("s", minimum=0)]
    bulk_step: Annotated[Constant, quantity("s", minimum=0)]
    bulk_share: _Ratio


class GpuParameters(FileModel):
    """The data file of a GPU."""

    type: Literal["gpu"]
    description: str = ""
    multiprocessors: Annotated[Constant, quantity("1", above=0)]
    clock: Annotated[Constant, quantity("Hz", above=0)]
    peak_rate: dict[str, _Rate]
    vector_rate: _Rate
    memory_bandwidth: Annotated[Constant, quantity("B/s", above=0)]
    memory_capacity: Annotated[Constant, quantity("B", above=0)]
    l2_capacity: Annotated[Constant, quantity("B", above=0)]
    l2_partitions: Annotated[Constant, quantity("1", above=0)]
    compute_efficiency: _Ratio
    memory_efficiency: _Ratio
    launch: Annotated[Constant, quantity("s", minimum=0)]
    operation_energy: dict[str, _Energy]
    memory_energy: Annotated[Constant, quantity("J/B", minimum=0)]
    idle_power: Annotated[Constant, quantity("W", minimum=0)]
    board_power: Annotated[Constant, quantity("W", above=0)]
    die_area: Annotated[Constant, quantity("m^2", above=0)]
    fusion: bool = True
    products: ProductParameters | None = None
    attention: AttentionParameters | None = None
    links: LinkParameters | None = None
    held_out_error: dict[str, _Count] = {}


@dataclass(frozen=True, slots=True)
class Sheet:
    """The data-sheet figures that the kernel models use, as floats in SI; `peak` is of 16-bit products."""

    multiprocessors: float
    clock_Hz: float
    peak_per_s: float
    memory_B_per_s: float
    l2_B: float

    @classmethod
    def of(cls, p: GpuParameters) -> Sheet:
        """From a data file; the L2 that one multiprocessor's accesses can fill is one partition's."""
        peak = p.peak_rate.get("bf16") or p.peak_rate.get("fp16") or next(iter(p.peak_rate.values()))
        return cls(
            p.multiprocessors.value,
            p.clock.value,
            peak.value,
            p.memory_bandwidth.value,
            p.l2_capacity.value / p.l2_partitions.value,
        )
