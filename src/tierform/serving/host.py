"""What waits in a host's memory: keys and values of preempted requests, and low-rank adapters that no request uses.

Both cross the host's link before the step that needs them, and the step waits: a preempted request's keys and values on
their way out and in again, an adapter on its way in.  Every chip of a replica has a link of its own and moves its part.
What crosses costs the energy of the link for every byte.  Limits: one size of adapter; nothing is fetched ahead.
"""

from __future__ import annotations

from tierform.chip.description import Chip
from tierform.errors import TierformError, fail
from tierform.serving.capacity import kv_token_B
from tierform.serving.engine import Engine
from tierform.serving.run import NO_HOST, HostLink
from tierform.simulation.job import Job
from tierform.simulation.offload import load_host
from tierform.simulation.runtime import Runtime
from tierform.workload import Model
from tierform.workload.adapter_methods import AdapterBatch
from tierform.workload.parallel import Parallelism
from tierform.workload.precision import PrecisionPlan
from tierform.workload.task import SequenceGroup, Step

GIB = 2**30


def adapters_of(engine: Engine) -> AdapterBatch | None:
    """The adapters that an engine has in memory, one of them in use; None where it knows none."""
    if not engine.enable_lora:
        return None
    targets = tuple(one.strip() for one in engine.lora_targets.split(",") if one.strip())
    try:
        return AdapterBatch(engine.max_lora_rank, targets, 1, engine.max_loras)
    except TierformError as error:
        what = "; ".join(problem.what for problem in error.problems)
        return fail(what, key="lora_targets", value=engine.lora_targets)


def adapter_B(
    model: Model,
    chip: Chip,
    engine: Engine,
    parallelism: Parallelism,
    runtime: Runtime,
    precision: PrecisionPlan | None = None,
) -> float:
    """Bytes of one adapter on one chip of a replica."""
    batch = adapters_of(engine)
    if batch is None:
        return 0.0
    task = Step((SequenceGroup(1, 1, 1),), precision=precision, adapters=batch)
    run = Job(model, task, chip, parallelism, runtime, thermal="none", mapping="plain").simulate()._run
    assert run is not None
    return float(run.footprint["adapters"]) / batch.in_memory


def host_link(
    model: Model,
    chip: Chip,
    engine: Engine,
    parallelism: Parallelism,
    runtime: Runtime,
    precision: PrecisionPlan | None = None,
) -> HostLink:
    """A replica's link to its host; nothing where neither adapters nor keys and values wait there."""
    if not engine.enable_lora and not engine.kv_offloading_size:
        return NO_HOST
    host = load_host(engine.host).file
    one_way_B_per_s = min(host.read_bandwidth.value, host.write_bandwidth.value)
    token_B = kv_token_B(model, chip, parallelism, runtime, precision)
    own_B = adapter_B(model, chip, engine, parallelism, runtime, precision)
    room_B = min(engine.kv_offloading_size * GIB, host.capacity.value)
    return HostLink(
        tokens=int(room_B / (token_B * parallelism.chips)) if engine.kv_offloading_size else 0,
        token_ps=round(token_B / one_way_B_per_s * 1e12),
        token_J=token_B * parallelism.chips * host.energy.value,
        adapter_ns=round(own_B / host.read_bandwidth.value * 1e9),
        adapter_J=own_B * parallelism.chips * host.energy.value,
    )
