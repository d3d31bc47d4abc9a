"""A finished run of the compiled loop → the Service: columns of requests, figures of replicas, energy, and the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tierform.chip.description import Chip
from tierform.serving import state
from tierform.serving.capacity import Capacity
from tierform.serving.engine import Engine
from tierform.serving.fleet import FleetRun
from tierform.serving.oracle import StepOracle, numbers_of
from tierform.serving.requests import Requests
from tierform.serving.run import HOST, NO_HOST, HostLink, Machine, Pool
from tierform.serving.service import Figure, Service, Steps
from tierform.serving.wear import WearRate
from tierform.simulation.runtime import Runtime


@dataclass(frozen=True)
class ReplicaKind:
    """Replicas of one kind: on which chip, how many, their engine and what their steps take."""

    chip: Chip
    replicas: int
    settings: Engine
    software: Runtime
    oracle: StepOracle
    room: Capacity | None
    host: HostLink
    wear: WearRate | None
    draft: StepOracle | None = None
    stages: int = 1

    @property
    def pool(self) -> Pool:
        """As the compiled loop sees it."""
        draft = numbers_of(self.draft) if self.draft is not None else None
        return Pool(self.replicas, self.settings, numbers_of(self.oracle), self.host, draft, self.stages)


def outcome(made: Machine, trace: Requests, run: FleetRun, kinds: Sequence[ReplicaKind], empty: Service) -> Service:
    """The Service of a finished run; `empty` says what was asked."""
    rows, of = made.requests.rows, made.requests
    arrival = of.arrival * 1e-9

    def seconds(values: state.Ints) -> state.Floats:
        return np.where(values >= 0, values * 1e-9, np.nan)

    first, last, scheduled = seconds(of.first), seconds(of.last), seconds(of.scheduled)
    generated = np.maximum(rows[:, state.TOKENS] - rows[:, state.PROMPT], 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot = np.where(generated > 1, (last - first) / np.maximum(generated - 1, 1), np.nan)
    table = made.replicas.rows
    end_s = float(np.nanmax(last)) if np.isfinite(last).any() else 0.0
    steps = None
    counters = made.run.counters
    if counters[state.C_RECORD]:
        steps = Steps(
            made.logs.steps[: counters[state.C_STEPS_LOGGED]],
            made.logs.entries[: counters[state.C_ENTRIES_LOGGED]],
            made.logs.preempted[: counters[state.C_PREEMPTED_LOGGED]],
            made.logs.joules[: counters[state.C_STEPS_LOGGED]],
        )
    return replace(
        empty,
        columns={
            "arrival_s": arrival,
            "prompt": trace.prompt,
            "output": trace.output,
            "priority": trace.priority,
            "state": rows[:, state.STATE].astype(np.int64),
            "replica": rows[:, state.REPLICA].astype(np.int64),
            "scheduled_s": scheduled,
            "first_token_s": first,
            "last_token_s": last,
            "queue_s": scheduled - arrival,
            "ttft_s": first - arrival,
            "tpot_s": tpot,
            "e2e_s": last - arrival,
            "generated": generated.astype(np.int64),
            "prefix_hit_tokens": np.maximum(rows[:, state.HIT], 0).astype(np.int64),
            "preemptions": rows[:, state.PREEMPTIONS].astype(np.int64),
            "energy_J": of.energy.copy(),
        },
        replicas={
            "busy_s": table[:, state.BUSY_NS] * 1e-9,
            "steps": table[:, state.STEPS].copy(),
            "tokens": table[:, state.TOKENS_DONE].copy(),
            "most_running": table[:, state.PEAK_RUNNING].copy(),
            "most_blocks": table[:, state.PEAK_BLOCKS].copy(),
            "free_blocks_at_end": table[:, state.FREE].copy(),
            "on_s": run.on_s(made, end_s),
            "pool": table[:, state.POOL].copy(),
            **empty.replicas,
        },
        energy_J_by_component=_energy(made, kinds),
        steps=steps,
        lookup_tokens=int(counters[state.C_LOOKED_UP]),
        hit_tokens=int(counters[state.C_HITS]),
        over_time=run.heat.to_dict() if run.heat is not None else {},
        more={
            **_pools(made, kinds),
            **_hosts(made, kinds),
            **_drafts(made, kinds),
            **_wear(made, kinds, end_s),
            **run.figures(made),
        },
    )


def _energy(made: Machine, kinds: Sequence[ReplicaKind]) -> dict[str, float]:
    """Joules by component; of several kinds of chip, each with its chip's name before it."""
    found: dict[str, float] = {}
    for place, one in enumerate(kinds):
        joules = made.replicas.energy[made.replicas.rows[:, state.POOL] == place].sum(axis=0)
        for column, name in enumerate(one.oracle.components):
            key = name if len(kinds) == 1 else f"{one.chip.name}: {name}"
            found[key] = found.get(key, 0.0) + float(joules[column])
        if one.host != NO_HOST and len(joules):
            found[HOST] = found.get(HOST, 0.0) + float(joules[-1])
    return found


def _hosts(made: Machine, kinds: Sequence[ReplicaKind]) -> dict[str, Figure]:
    """What went to hosts and came from them."""
    found: dict[str, Figure] = {}
    if any(one.host.tokens for one in kinds):
        found["swapped_kv_tokens"] = int(made.run.counters[state.C_SWAPPED])
    if any(one.settings.enable_lora for one in kinds):
        found["adapters_loaded"] = int(made.run.counters[state.C_LOADED])
    return found


def _wear(made: Machine, kinds: Sequence[ReplicaKind], end_s: float) -> dict[str, Figure]:
    """Writes and lifetime of the cells that wear out first."""
    rows, of = made.replicas.rows, made.requests.rows
    done = of[made.finished]
    computed = done[:, state.TOKENS] - np.maximum(done[:, state.HIT], 0)
    tokens = np.bincount(done[:, state.REPLICA], weights=computed, minlength=len(rows))
    worn: dict[float, dict[str, Figure]] = {}
    for place, one in enumerate(kinds):
        own = rows[:, state.POOL] == place
        if one.wear is not None:
            figures = one.wear.figures(rows[own, state.STEPS].astype(float), tokens[own], end_s)
            if figures["lifetime_s"] is not None:
                worn[figures["lifetime_s"]] = {**figures}
    return worn[min(worn)] if worn else {}


def _pools(made: Machine, kinds: Sequence[ReplicaKind]) -> dict[str, Figure]:
    """What each kind of replica did, where there are several."""
    if len(kinds) == 1:
        return {}
    rows = made.replicas.rows
    found: list[Figure] = []
    for place, one in enumerate(kinds):
        own = rows[:, state.POOL] == place
        found.append(
            {
                "chip": one.chip.name,
                "replicas": one.replicas,
                "num_gpu_blocks": one.settings.num_gpu_blocks,
                "requests": int(own[made.requests.rows[made.finished, state.REPLICA]].sum()),
                "tokens": int(rows[own, state.TOKENS_DONE].sum()),
                "energy_J": float(made.replicas.energy[own].sum()),
            }
        )
    return {"pools": found}


def _drafts(made: Machine, kinds: Sequence[ReplicaKind]) -> dict[str, Figure]:
    """What speculative decoding got from its drafts."""
    if all(one.settings.speculative_config is None for one in kinds):
        return {}
    drafted, accepted = (int(made.run.counters[one]) for one in (state.C_DRAFTED, state.C_ACCEPTED))
    return {"drafted_tokens": drafted, "accepted_drafts": accepted, "accepted_share": accepted / max(drafted, 1)}


__all__ = ["ReplicaKind", "outcome"]
