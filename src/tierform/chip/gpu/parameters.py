"""The data file of a GPU: data-sheet figures, energies, and the parameters of its kernels.

Data-sheet figures belong to the device.  Kernel parameters are fitted on measured kernels; they are efficiencies, clock
cycles and ratios, so that they carry over to a device of the same family when only data-sheet figures are exchanged.
A file without a `products` or `attention` section gets a plain roofline for those operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator

from tierform.provenance import Constant
from tierform.schema import Count, FileModel, quantity

_Ratio = Annotated[Constant, quantity("1", above=0)]
_Count = Annotated[Constant, quantity("1", minimum=0)]
# With an exponent of 1 nothing overlaps; far below it times would grow beyond any number.
_Exponent = Annotated[Constant, quantity("1", minimum=0.1)]
_Energy = Annotated[Constant, quantity("J", minimum=0)]
_Rate = Annotated[Constant, quantity("1/s", above=0)]
LIGHT_KERNELS = ("softmax", "normalization", "activation", "elementwise", "rotary", "dropout", "random")


class KernelParameters(FileModel):
    """What kernels of matrix products of any format have; times are in clock cycles."""

    tensor_efficiency: _Ratio = Field(
        description="Share of the peak that the inner loop reaches; above 1 where the clock boosts above the data sheet"
    )
    memory_efficiency: _Ratio = Field(description="Share of the memory bandwidth that operands stream at")
    launch: _Count = Field(description="Cycles of starting a kernel")
    miss_latency: _Count = Field(description="Cycles that a weight missing in the L2 adds to its traffic")
    miss_step: _Count = Field(description="Share by which missing weights slow each step along k")
    operand_feed: _Ratio = Field(
        description="Bytes of operands that a multiprocessor takes for each multiply-accumulate that it could do"
    )
    step: _Count = Field(description="Cycles of the chain of k for each value of it, in 16 bits")
    epilogue: _Ratio = Field(description="Bytes a cycle at which a finished tile is written")
    half_tile: _Count = Field(description="Edge of the tile at which half of the tensor cores wait")
    resident_outputs: _Ratio = Field(description="Outputs that a multiprocessor works on at a time")
    overlap: _Exponent = Field(description="Exponent with which computing and memory overlap; large is perfect")
    sustained_efficiency: _Ratio = Field(description="Share of the peak that the board power sustains in long kernels")
    boost_time: _Count = Field(description="Cycles after which half of a kernel runs at the sustained rate")
    l2_share: _Ratio = Field(description="Share of an L2 partition that operands may fill")


class ProductParameters(KernelParameters):
    """Kernel parameters of matrix products; see `tierform.chip.gpu.gemm` for the model."""

    prologue: _Count = Field(description="Cycles before a block of threads computes")
    miss_prologue: _Count = Field(description="Cycles that a missing weight adds to the start of a round")
    reduction: _Count = Field(description="Cycles of the kernel that adds up a split k")
    reduction_bandwidth: _Ratio = Field(description="Bandwidth of the partial sums over that of the memory")
    chosen_half_tile: _Count = Field(description="As half_tile, in the estimate by which the library chooses")
    chosen_prologue: _Count = Field(description="As prologue, in the estimate by which the library chooses")
    chosen_reduction: _Count = Field(description="As reduction, in the estimate by which the library chooses")
    chosen_reduction_bandwidth: _Ratio = Field(
        description="As reduction_bandwidth, in the estimate by which the library chooses"
    )
    smallest_grid: _Count = Field(description="Outputs below which the library adds a reduction kernel in any case")
    small_grid_reduction: _Count = Field(description="Cycles of that reduction over those of reduction")
    tiles: Annotated[list[tuple[Count, Count]], Field(min_length=1, max_length=100)] = Field(
        description="Tile shapes (rows, columns) among which the library chooses"
    )
    tile_step: tuple[Count, Count] | None = Field(
        None, description="Steps in which tiles shrink to the shape; fixed tiles when left out"
    )


class WideProductParameters(KernelParameters):
    """Kernels of products of 32-bit operands; see `tierform.chip.gpu.wide`."""

    formats: Annotated[list[str], Field(min_length=1, max_length=10)] = Field(
        description="Formats of numbers that both operands have (fp32); the peak rate of the first is the kernels' peak"
    )
    prologue: _Count = Field(description="Cycles before a block of threads computes")
    reduction: _Count = Field(description="Cycles of the kernel that adds up a split k")
    reduction_bandwidth: _Ratio = Field(description="Bandwidth of the partial sums over that of the memory")
    tiles: Annotated[list[tuple[Count, Count]], Field(min_length=1, max_length=100)] = Field(
        description="Tile shapes (rows, columns) among which the library chooses"
    )


class RowTile(FileModel):
    """The tile of products of up to so many rows and columns."""

    tile: tuple[Count, Count] = Field(description="Rows and columns of the outputs of a block of threads")
    most_rows: Count | None = Field(None, description="Rows of a product up to which it holds; any when left out")
    most_columns: Count | None = Field(None, description="Columns up to which it holds; any when left out")


class NarrowProductParameters(KernelParameters):
    """Kernels of products of 8-bit operands; see `tierform.chip.gpu.narrow`."""

    formats: Annotated[list[str], Field(min_length=1, max_length=10)] = Field(
        description="Formats of numbers that both operands have (fp8); other products are those of `products`"
    )
    kernels: Annotated[list[RowTile], Field(min_length=1, max_length=50)] = Field(
        description="Tiles by rows and columns: the first that holds is taken, the last where none does; k is not split"
    )


class QuantizationParameters(FileModel):
    """Kernels that narrow a product's input to 8 bits; see `tierform.chip.gpu.narrow`."""

    launch: Annotated[Constant, quantity("s", minimum=0)] = Field(
        description="Time of starting the kernel behind another"
    )
    share: _Ratio = Field(description="Share of the memory bandwidth at which it reads and writes")
    largest_launch: Annotated[Constant, quantity("s", minimum=0)] = Field(
        description="Time of starting two kernels that find a scale for the whole tensor, where that is asked for"
    )
    largest_element: Annotated[Constant, quantity("s", minimum=0)] = Field(
        description="Time that finding that scale takes for each element"
    )


_PerWeight = Annotated[Constant, quantity("s", minimum=0)]


class FewRowsParameters(FileModel):
    """Products of one to a few rows on a processor; see `tierform.chip.gpu.few_rows`."""

    most: Count = Field(description="Rows up to which these figures hold instead of those of `products`")
    start: _PerWeight = Field(description="Time of starting a product")
    first: _PerWeight = Field(description="Time of each weight with one row")
    stream: _PerWeight = Field(description="Time of each weight with several rows, whatever their number")
    row: _PerWeight = Field(description="Time of each weight and row beside it")
    in_step: list[Annotated[Constant, quantity("1", above=0)]] = Field(
        [], description="Factor on the time of products of 1, 2, ... rows, measured in a step of decoding"
    )


class PrefillParameters(FileModel):
    """Kernel parameters of fused attention over many queries; see `tierform.chip.gpu.attention`."""

    launch: _Count = Field(description="Cycles of starting the kernel")
    tensor_efficiency: _Ratio = Field(description="Share of the peak that all blocks reach together")
    lone_block: _Ratio = Field(description="Time of the longest block over that of its tiles at the mean rate")
    block_setup: _Count = Field(description="Cycles of setting up a block of queries")
    bytes_per_cycle: _Ratio = Field(description="Bytes a cycle that a multiprocessor takes from the L2")
    memory_efficiency: _Ratio = Field(description="Share of the memory bandwidth that keys and values stream at")
    overlap: _Exponent = Field(description="Exponent with which computing, the longest block and memory overlap")
    cache_write: _Count = Field(
        description="Time of appending keys and values to a paged cache over that of streaming them"
    )


class DecodeParameters(FileModel):
    """Kernel parameters of fused attention of one query over a cache; see `tierform.chip.gpu.attention`."""

    launch: _Count = Field(description="Cycles of starting the kernel")
    combine: _Count = Field(description="Cycles of combining the parts of keys that were split")
    block: _Count = Field(description="Cycles of one tile of keys in one block")
    memory_efficiency: _Ratio = Field(description="Share of the memory bandwidth that the cache streams at")
    overlap: _Exponent = Field(description="Exponent with which the chain, memory and the setting-up of blocks overlap")
    block_setup: _Count = Field(description="Cycles of setting up a block")
    regroup: _Count = Field(description="Cycles of regrouping queries that share keys")
    blocks_per_multiprocessor: _Ratio = Field(description="Blocks that a multiprocessor works on at a time")
    splits_ungrouped: bool = Field(
        False, description="Whether keys are split also where every head of queries has its own keys"
    )


class AttentionParameters(FileModel):
    """Fused attention: tile of queries and keys, and the parameters of both phases."""

    generation: Literal[2, 3] = Field(
        2, description="Generation of FlashAttention that was fitted: 3 uses Hopper's own instructions"
    )
    tile: tuple[Count, Count] = Field(description="Queries and keys of a tile of the prefill kernel")
    prefill: PrefillParameters = Field(description="The kernel of many queries")
    decode: DecodeParameters = Field(description="The kernel of one query over a cache")


class DirectParameters(FileModel):
    """All-reduces in which every GPU reads the others' memory in one kernel; see `tierform.chip.gpu.collectives`."""

    start: Annotated[Constant, quantity("s", minimum=0)] = Field(
        description="Time of one shot between two GPUs, without its bytes"
    )
    member: Annotated[Constant, quantity("s", minimum=0)] = Field(description="Time of one shot for each further GPU")
    share: _Ratio = Field(description="Share of the link's bandwidth at which one shot reads")
    two_start: Annotated[Constant, quantity("s", minimum=0)] = Field(
        description="Time of two shots between two GPUs, without their bytes"
    )
    two_member: Annotated[Constant, quantity("s", minimum=0)] = Field(
        description="Time of two shots for each further GPU"
    )
    two_share: _Ratio = Field(description="Share of the link's bandwidth at which two shots read")


class LinkParameters(FileModel):
    """Links to other GPUs of the node: bandwidth per direction; see `tierform.chip.gpu.collectives`."""

    bandwidth: Annotated[Constant, quantity("B/s", above=0)] = Field(
        description="Bytes a second of one GPU in one direction"
    )
    launch: Annotated[Constant, quantity("s", minimum=0)] = Field(description="Time of starting a collective")
    step: Annotated[Constant, quantity("s", minimum=0)] = Field(
        description="Time of a step of the low-latency protocol"
    )
    share: _Ratio = Field(description="Share of the bandwidth of the low-latency protocol")
    bulk_start: Annotated[Constant, quantity("s", minimum=0)] = Field(description="Time of starting the bulk protocol")
    bulk_step: Annotated[Constant, quantity("s", minimum=0)] = Field(description="Time of a step of the bulk protocol")
    bulk_share: _Ratio = Field(description="Share of the bandwidth of the bulk protocol")
    direct: DirectParameters | None = Field(
        None,
        description="Kernels of a serving system for small all-reduces, where the runtime has them "
        "(`direct_all_reduce`); none when left out",
    )


class FittedAt(FileModel):
    """The multiprocessors and the clock at which kernel models were fitted, where those of the GPU are others."""

    fitted_multiprocessors: Annotated[float, Field(gt=0)] = Field(description="Multiprocessors of the fitted device")
    fitted_clock_Hz: Annotated[float, Field(gt=0)] = Field(description="Clock of the fitted device in Hz")


class GpuParameters(FileModel):
    """The data file of a GPU."""

    type: Literal["gpu"] = Field(description="The kind of component; it decides which other keys there are")
    description: str = Field("", description="One line for people; changes no figure")
    multiprocessors: Annotated[Constant, quantity("1", above=0)] = Field(
        description="Multiprocessors (threads of a CPU); changes waves of tiles and blocks"
    )
    clock: Annotated[Constant, quantity("Hz", above=0)] = Field(
        description="Clock in which kernel parameters count cycles"
    )
    peak_rate: dict[str, _Rate] = Field(
        description="Operations a second of matrix units by format, dense; a format without one uses the next wider"
    )
    vector_rate: _Rate = Field(description="Operations a second of vector units in fp32")
    memory_bandwidth: Annotated[Constant, quantity("B/s", above=0)] = Field(description="Bytes a second of the memory")
    memory_capacity: Annotated[Constant, quantity("B", above=0)] = Field(
        description="Bytes of the memory; changes what fits"
    )
    l2_capacity: Annotated[Constant, quantity("B", above=0)] = Field(
        description="Bytes of the last-level cache; changes which operands come from memory"
    )
    l2_partitions: Annotated[Constant, quantity("1", above=0)] = Field(
        description="Partitions of the cache, one of which an access can fill"
    )
    structured_sparsity: Annotated[Constant, quantity("1", above=0)] = Field(
        Constant(1.0, "", "assumed", note="none"),
        description="Times the peak rate of products whose weights keep two of four numbers (2:4)",
    )
    compute_efficiency: _Ratio = Field(description="Share of the peak that kernels without a fitted model reach")
    memory_efficiency: _Ratio = Field(description="Share of the bandwidth that kernels without a fitted model reach")
    launch: Annotated[Constant, quantity("s", minimum=0)] = Field(
        description="Time of starting a kernel without a fitted model"
    )
    issue: Annotated[Constant, quantity("s", minimum=0)] | None = Field(
        None,
        description="Time of the host that issues an operator, in which nothing computes: of a processor that issues "
        "its own kernels; none when left out",
    )
    view: Annotated[Constant, quantity("s", minimum=0)] | None = Field(
        None,
        description="Time of the host for a view of a tensor, which computes nothing; as `issue` when left out",
    )
    in_step_time: _Ratio | None = Field(
        None,
        description="Time of an operator in a step over its kernel's alone, measured on a step; not of products in "
        "few_rows; 1 when left out",
    )
    light_time: dict[str, Annotated[Constant, quantity("s", above=0)]] = Field(
        {},
        description="Measured time that an element takes in kernels that are no products, by kind, from and to caches; "
        "arithmetic and bytes by the peaks where a kind is left out",
    )

    @field_validator("light_time")
    @classmethod
    def _known_kernels(cls, given: dict[str, Constant]) -> dict[str, Constant]:
        if unknown := sorted(set(given) - set(LIGHT_KERNELS)):
            raise ValueError(f"no such kind of kernel: {', '.join(unknown)}; known: {', '.join(LIGHT_KERNELS)}")
        return given

    operation_energy: dict[str, _Energy] = Field(description="Energy of an operation by number format")
    memory_energy: Annotated[Constant, quantity("J/B", minimum=0)] = Field(
        description="Energy of a byte from or to the memory"
    )
    idle_power: Annotated[Constant, quantity("W", minimum=0)] = Field(
        description="Power of the board while it does nothing; drawn all the time"
    )
    active_power: Annotated[Constant, quantity("W", minimum=0)] | None = Field(
        None,
        description="Power that the board draws on top of that while a kernel or a collective runs, whatever it does; "
        "none when left out",
    )
    board_power: Annotated[Constant, quantity("W", above=0)] = Field(
        description="Power limit of the board; a pass that would exceed it runs at a lower clock"
    )
    die_area: Annotated[Constant, quantity("m^2", above=0)] = Field(description="Area of the die, memory not counted")
    fusion: bool = Field(True, description="Whether attention cores and chains of light operators run as one kernel")
    products: ProductParameters | None = Field(
        None, description="Fitted kernels of matrix products; a plain roofline when left out"
    )
    narrow_products: NarrowProductParameters | None = Field(
        None, description="Fitted kernels of products of 8-bit operands; as `products` when left out"
    )
    wide_products: WideProductParameters | None = Field(
        None, description="Fitted kernels of products of 32-bit operands; as `products` when left out"
    )
    quantization: QuantizationParameters | None = Field(
        None, description="Kernels that narrow a product's input to 8 bits; as any light kernel when left out"
    )
    attention: AttentionParameters | None = Field(
        None, description="Fitted kernels of attention; separate products and softmax when left out"
    )
    links: LinkParameters | None = Field(
        None, description="Links to other GPUs of the node; no collectives when left out"
    )
    fitted_at: FittedAt | None = Field(
        None,
        description="Where the kernels were fitted, if not here: more multiprocessors or clock make none slower, fewer "
        "none faster; set by what `set` and `vary` change",
    )
    few_rows: FewRowsParameters | None = Field(
        None, description="Products of a processor with a few rows; by `products` when left out"
    )
    held_out_error: dict[str, _Count] = Field(
        {}, description="Errors of the fit on rows held out, for people; changes no figure"
    )


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
