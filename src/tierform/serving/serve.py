"""The main call of this room: requests, a model on chips, an engine → what the users get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import fsum
from pathlib import Path

import numpy as np

from tierform.chip.description import Chip, load_chip
from tierform.errors import Problem, TierformError
from tierform.serving import state
from tierform.serving.capacity import Capacity, capacity, kv_token_B
from tierform.serving.engine import Engine, load_engine
from tierform.serving.fleet import Fleet, FleetRun
from tierform.serving.grid import grid_for
from tierform.serving.host import adapter_B, adapters_of, host_link
from tierform.serving.kernel_oracle import OUTSIDE
from tierform.serving.oracle import StepOracle, StepShape, numbers_of
from tierform.serving.requests import Requests
from tierform.serving.routers import Router, RouterView, number_of
from tierform.serving.run import HOST, NO_HOST, HostLink, Machine, Pool, machine
from tierform.serving.service import Figure, Service, Steps
from tierform.serving.simulated import SimulatedOracle
from tierform.serving.slo import Slo
from tierform.serving.traces import load_trace
from tierform.serving.wear import WearRate, wear_rate
from tierform.simulation.runtime import Runtime, load_runtime
from tierform.workload import Model, load_model
from tierform.workload.parallel import Parallelism
from tierform.workload.precision import PrecisionPlan

ALONE = Parallelism()
MOST_REPLICAS = 100_000


@dataclass(frozen=True)
class _Kind:
    """Replicas of one kind: on which chip, how many, their engine and what their steps take."""

    chip: Chip
    replicas: int
    settings: Engine
    software: Runtime
    oracle: StepOracle
    room: Capacity | None
    host: HostLink
    wear: WearRate | None

    @property
    def pool(self) -> Pool:
        """As the compiled loop sees it."""
        return Pool(self.replicas, self.settings, numbers_of(self.oracle), self.host)


def serve(
    model: Model | str,
    chip: Chip | str | Sequence[Chip | str],
    requests: Requests | str | Path,
    *,
    engine: Engine | str | Path | None = None,
    replicas: int | Sequence[int] = 1,
    router: str = "least-loaded",
    parallelism: Parallelism = ALONE,
    runtime: Runtime | str | None = None,
    precision: PrecisionPlan | None = None,
    oracle: StepOracle | None = None,
    slo: Slo | None = None,
    record: bool = False,
    seed: int = 0,
    fleet: Fleet | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Service:
    """What the users of `requests` get from `replicas` of a model on a chip.

    Several chips with as many numbers of replicas make pools of different kinds; their replicas are numbered in that
    order.  `parallelism` is inside a replica.  `runtime` is by default vLLM's on a chip that is a board, else the ideal
    one.  `oracle` tells what a step takes, by default tables made from ``simulate``.  `record` keeps every step.
    `fleet` says what happens to the replicas: prefill apart, failures, autoscaling, heat, fewer bits under load.
    Raises TierformError with all problems found.
    """
    settings = engine if isinstance(engine, Engine) else load_engine(engine) if engine is not None else Engine()
    trace = requests if isinstance(requests, Requests) else load_trace(requests)
    found = model if isinstance(model, Model) else load_model(model)
    several = [chip] if isinstance(chip, Chip | str) else list(chip)
    chips = [one if isinstance(one, Chip) else load_chip(one) for one in several]
    numbers = [replicas] if isinstance(replicas, int) else list(replicas)
    number, ask = number_of(router)
    run = FleetRun(fleet or Fleet())
    problems = _problems(chips, numbers, trace, oracle, run.fleet)
    if (trace.adapter >= 0).any() and not settings.enable_lora:
        what = "requests ask for adapters, and the engine knows none"
        problems.append(Problem(what, key="enable_lora", value=False, fix="Set it to true."))
    if problems:
        raise TierformError(problems)
    if found.positions == "learned":
        settings = replace(settings, max_model_len=min(settings.max_model_len, found.max_positions))
    longest = int(min(settings.max_model_len, max(2, int((trace.prompt + trace.output).max()))))

    def tables(on: Chip, own: Engine, software: Runtime, plan: PrecisionPlan | None) -> StepOracle:
        budget = own.max_num_batched_tokens if own.scheduler != "orca" else longest * own.max_num_seqs
        return SimulatedOracle(
            model=found,
            chip=on,
            runtime=software,
            grid=grid_for(min(budget, 2**14), own.max_num_seqs, max(longest, 32)),
            parallelism=parallelism,
            precision=plan,
            adapters=adapters_of(own),
            progress=(lambda share: progress(_tables(on, chips), share)) if progress is not None else None,
        )

    def kind(on: Chip, count: int) -> _Kind:
        software = runtime if isinstance(runtime, Runtime) else load_runtime(runtime or _usual(on))
        if settings.generation_config == "vllm":
            software = replace(software, sampling_s=0.0)
        own, room = settings, None
        if own.num_gpu_blocks is None:
            size_B = adapter_B(found, on, own, parallelism, software, precision)
            room = capacity(found, on, own, parallelism, software, precision, size_B)
            own = replace(own, num_gpu_blocks=room.blocks)
        asked = oracle
        if asked is None:
            asked = tables(on, own, software, plans[0] if plans else precision)
        host = host_link(found, on, own, parallelism, software, precision)
        wear = wear_rate(found, on, parallelism, software, precision) if oracle is None else None
        return _Kind(
            chip=on,
            replicas=count,
            settings=own,
            software=software,
            oracle=asked,
            room=room,
            host=host,
            wear=wear,
        )

    usual = precision or chips[0].precision or PrecisionPlan(master_weights=None)
    plans = [replace(usual, weights=one) for one in run.fleet.formats]
    kinds = [kind(on, count) for on, count in zip(chips, numbers, strict=True)]
    first = kinds[0]
    pools = [one.pool for one in kinds]
    coarser = [tables(first.chip, first.settings, first.software, plan) for plan in plans[1:]]
    more = [numbers_of(one) for one in (*run.fleet.levels, *coarser)]
    made = machine(trace, pools, router=number, record=record, seed=seed, more=more)
    run.fleet.prepare(made, first.chip, lambda: kv_token_B(found, first.chip, parallelism, first.software, precision))
    idle_W = np.repeat([_idle_W(one.chip, parallelism) if one.oracle.components else 0.0 for one in kinds], numbers)
    window = run.begin(made, first.chip, first.oracle.components, parallelism.chips, float(idle_W[0]))

    def pause(done: int) -> None:
        if progress is not None:
            progress("requests", done / len(trace))

    asker = _ask_oracle(first.oracle) if pools[0].packed[0] == OUTSIDE else None
    made.go(_ask_router(ask) if ask is not None else None, asker, pause, window)
    return _service(
        made,
        trace,
        run,
        kinds,
        Service(
            model=found.name,
            chip=" + ".join(one.name for one in chips),
            engine=asdict(first.settings),
            columns={},
            states=state.STATES,
            replicas={"idle_W": idle_W},
            energy_J_by_component={},
            idle_W=float(idle_W.mean()),
            router=router if sum(numbers) > 1 else "none",
            slo=slo or Slo(),
            source=trace.source,
            chips=sum(numbers) * parallelism.chips,
            capacity=tuple(_capacity_lines(kinds)),
        ),
    )


def _problems(
    chips: Sequence[Chip], numbers: Sequence[int], trace: Requests, oracle: StepOracle | None, fleet: Fleet
) -> list[Problem]:
    """What cannot be served like this."""
    problems = []
    whole = f"must be a whole number from 1 to {MOST_REPLICAS:,}"
    problems += [
        Problem(whole, key="replicas", value=one)
        for one in numbers
        if isinstance(one, bool) or not isinstance(one, int) or not 1 <= one <= MOST_REPLICAS
    ]
    if len(numbers) != len(chips):
        what = f"{len(chips)} chips need as many numbers of replicas"
        problems.append(
            Problem(what, key="replicas", value=", ".join(map(str, numbers)), fix="Write 2,3 for h100,l40s.")
        )
    if fleet.formats and oracle is not None:
        problems.append(Problem("formats need tables from simulate, not an oracle of one's own", key="formats"))
    if len(chips) > 1:
        alone = {
            "oracle": oracle is not None,
            "heat_window_s": fleet.heat_window_s is not None,
            "levels": bool(fleet.levels or fleet.formats),
        }
        what = "is for chips of one kind"
        problems += [Problem(what, key=name, fix="Serve on one chip.") for name, given in alone.items() if given]
    if not len(trace):
        problems.append(Problem("there is no request", key="requests", value=trace.source))
    return problems if problems else fleet.problems(sum(numbers), chips[0])


def _tables(on: Chip, chips: Sequence[Chip]) -> str:
    return "tables of the oracle" if len(chips) == 1 else f"tables of {on.name}"


def _capacity_lines(kinds: Sequence[_Kind]) -> list[tuple[str, str]]:
    """Where memory goes, of every kind whose blocks were derived."""
    return [
        (name if len(kinds) == 1 else f"{one.chip.name}: {name}", value)
        for one in kinds
        if one.room is not None
        for name, value in one.room.lines()
    ]


def _usual(chip: Chip) -> str:
    return "vllm" if len(chip.can.boards) == 1 else "ideal"


def _idle_W(chip: Chip, parallelism: Parallelism) -> float:
    """What the chips of a replica draw while they do nothing."""
    from tierform.simulation.run import STATIC_TEMPERATURE_K

    return parallelism.chips * fsum(part.leakage_W(STATIC_TEMPERATURE_K) for part in chip.components.values())


def _ask_router(router: Router) -> Callable[[Machine], int]:
    def ask(made: Machine) -> int:
        request = int(made.run.counters[state.C_REQUEST])
        row = made.requests.rows[request]
        now = int(made.run.counters[state.C_NOW])
        takes = made.lists.takes[1 if made.requests.given[request] > 0 else 0] != 0
        view = RouterView(made.lists.load.copy(), now, int(row[state.PROMPT]), int(row[state.OUTPUT]), takes)
        chosen = int(router(view, request))
        if not 0 <= chosen < len(view.load) or not takes[chosen]:
            what = f"the router gave replica {chosen} of {len(view.load)}, which does not take this request"
            raise TierformError([Problem(what, key="router")])
        return chosen

    return ask


def _ask_oracle(oracle: StepOracle) -> Callable[[Machine], int]:
    """Ask an oracle that is no table, with the whole step."""

    def ask(made: Machine) -> int:
        features, chunk = made.logs.features, made.logs.chunk
        replica = int(made.lists.marked[made.run.counters[state.C_MARKED] - 1])
        entries = [(int(one[1]), int(one[2])) for one in chunk[: features[7]] if one[1] > 1]
        running = made.replicas.running[replica, : made.replicas.rows[replica, state.N_RUNNING]]
        single = [one for one in running if made.requests.rows[one, state.NEXT] == 1]
        contexts = tuple(int(made.requests.rows[one, state.COMPUTED]) for one in single)
        cost = oracle.cost(StepShape(tuple(entries), contexts, int(features[4])))
        made.logs.cost[:] = 0.0
        made.logs.cost[: 1 + len(cost.joules)] = (cost.seconds, *cost.joules)
        return max(1, round(cost.seconds * 1e9))

    return ask


def _service(made: Machine, trace: Requests, run: FleetRun, kinds: Sequence[_Kind], empty: Service) -> Service:
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
        more={**_pools(made, kinds), **_hosts(made, kinds), **_wear(made, kinds, end_s), **run.figures(made)},
    )


def _energy(made: Machine, kinds: Sequence[_Kind]) -> dict[str, float]:
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


def _hosts(made: Machine, kinds: Sequence[_Kind]) -> dict[str, Figure]:
    """What went to hosts and came from them."""
    found: dict[str, Figure] = {}
    if any(one.host.tokens for one in kinds):
        found["swapped_kv_tokens"] = int(made.run.counters[state.C_SWAPPED])
    if any(one.settings.enable_lora for one in kinds):
        found["adapters_loaded"] = int(made.run.counters[state.C_LOADED])
    return found


def _wear(made: Machine, kinds: Sequence[_Kind], end_s: float) -> dict[str, Figure]:
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


def _pools(made: Machine, kinds: Sequence[_Kind]) -> dict[str, Figure]:
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
