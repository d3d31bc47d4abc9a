"""How many KV blocks an engine has: the memory that it may use, less what stands in it, by the size of a block.

As vLLM finds it: the board's memory times ``gpu_memory_utilization``, less weights, what a step of the largest size
needs beside them, captured graphs and the driver's context; the rest is KV cache.  What a step needs is the larger of a
layer's tensors (as ``simulate`` counts them) and of the choice of tokens: sorted logits of ``max_num_seqs`` rows.
Memory sizes of data sheets are binary ("24 GB" of DRAM are 24 * 2^30 bytes); a part is kept by the driver.
"""

from __future__ import annotations

from dataclasses import dataclass

from tierform.chip.description import Chip
from tierform.errors import fail
from tierform.provenance import Constant
from tierform.serving.engine import Engine
from tierform.simulation.job import Job
from tierform.simulation.run import Run
from tierform.simulation.runtime import Runtime
from tierform.units import format_quantity
from tierform.workload import Model
from tierform.workload.parallel import Parallelism
from tierform.workload.precision import PrecisionPlan
from tierform.workload.task import SequenceGroup, Step

BINARY = 2**30 / 1e9  # bytes of a data sheet's gigabyte of memory, over 10^9
VISIBLE = Constant(
    0.98, "1", "measured", "vllm-rtx4090-run", "25,250,627,584 bytes of 24 * 2^30 that an RTX 4090 reports"
)
CONTEXT = Constant(0.3e9, "B", "assumed", note="driver context and libraries' workspaces on a board")
GRAPHS = Constant(0.2e9, "B", "assumed", note="captured graphs of an engine that captures any")
SAMPLER = Constant(
    24.0, "B", "assumed", note="logits, probabilities, sorted values with 8-byte places, sums: of each row and word"
)


@dataclass(frozen=True)
class Capacity:
    """Where a replica's memory goes, of one chip, and the blocks that are left."""

    memory_B: float
    usable_B: float
    weights_B: float
    step_B: float
    graphs_B: float
    context_B: float
    block_B: float
    blocks: int
    beside: str = ""  # whose weights are there, too

    def lines(self) -> list[tuple[str, str]]:
        """What is what, for people."""
        parts = [
            ("memory of a chip", self.memory_B),
            ("that the engine may use", self.usable_B),
            (f"weights{self.beside}", self.weights_B),
            ("a step's tensors and the choice of tokens", self.step_B),
            ("captured graphs", self.graphs_B),
            ("driver and libraries", self.context_B),
            ("a KV block", self.block_B),
        ]
        return [(name, format_quantity(value, "B")) for name, value in parts] + [("KV blocks", f"{self.blocks:,}")]


def kv_token_B(
    model: Model,
    chip: Chip,
    parallelism: Parallelism,
    runtime: Runtime,
    precision: PrecisionPlan | None = None,
) -> float:
    """Bytes of a token's keys and values on one chip of a replica."""

    def held(tokens: int) -> float:
        task = Step((SequenceGroup(1, tokens, 0),), precision=precision)
        run = Job(model, task, chip, parallelism, runtime, thermal="none", mapping="plain").simulate()._run
        assert run is not None
        return float(run.footprint["kv_cache"])

    return held(2) - held(1)


def capacity(
    model: Model,
    chip: Chip,
    engine: Engine,
    parallelism: Parallelism,
    runtime: Runtime,
    precision: PrecisionPlan | None = None,
    adapter_B: float = 0.0,
    draft: Model | None = None,
) -> Capacity:
    """The KV blocks of a replica, whose adapters take `adapter_B` each; TierformError where nothing is left.

    A `draft` model has its weights there, and its keys and values in the same blocks.
    """
    board = len(chip.can.boards) == 1

    def passed(tokens: int, of: Model = model) -> Run:
        task = Step((SequenceGroup(1, tokens, 0),), precision=precision)
        run = Job(of, task, chip, parallelism, runtime, thermal="none", mapping="plain").simulate()._run
        assert run is not None
        return run

    size = engine.block_size
    one, more = passed(size), passed(2 * size)
    block_B = more.footprint["kv_cache"] - one.footprint["kv_cache"]
    drafts_B = 0.0
    if draft is not None:
        held, held_more = passed(size, draft), passed(2 * size, draft)
        block_B += held_more.footprint["kv_cache"] - held.footprint["kv_cache"]
        drafts_B = _weights_B(held)
    step = passed(min(engine.max_num_batched_tokens, engine.max_model_len)).footprint
    memory_B = float(sum(device.capacity_B for device in one.memory.tiers)) * (BINARY * VISIBLE.value if board else 1.0)
    weights_B = _weights_B(one) + drafts_B
    rows_B = SAMPLER.value * engine.max_num_seqs * model.vocabulary / parallelism.tensor
    step_B = max(float(step["activations"]), rows_B if board else 0.0)
    graphs_B, context_B = (GRAPHS.value, CONTEXT.value) if board else (0.0, 0.0)
    usable_B = memory_B * engine.gpu_memory_utilization
    adapters_B = engine.max_loras * adapter_B
    left_B = usable_B - adapters_B - weights_B - step_B - graphs_B - context_B
    blocks = int(left_B // block_B) if block_B else 0
    if blocks < 2:
        fail(
            f"no memory is left for a KV cache: {format_quantity(max(-left_B, 0.0), 'B')} are missing",
            key="num_gpu_blocks",
            value=chip.name,
            fix="Take a chip with more memory, more chips (tensor parallelism), or smaller weights.",
        )
    return Capacity(
        memory_B=memory_B,
        usable_B=usable_B,
        weights_B=weights_B + adapters_B,
        step_B=step_B,
        graphs_B=graphs_B,
        context_B=context_B,
        block_B=block_B,
        blocks=blocks,
        beside=(", adapters" if adapters_B else "") + (" and draft" if draft is not None else ""),
    )


def _weights_B(run: Run) -> float:
    """Bytes of the weights in memory."""
    shares = run.placement.shares.get("weights", ()) if run.placement is not None else ()
    return float(sum(share.size_B for share in shares))
