"""The main call of this room: requests, a model on chips, an engine → what the users get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from math import fsum
from pathlib import Path

import numpy as np

from tierform.chip.description import Chip, load_chip
from tierform.errors import Problem, TierformError
from tierform.serving import state
from tierform.serving.capacity import Capacity, capacity, kv_token_B
from tierform.serving.engine import Engine, load_engine
from tierform.serving.fleet import Fleet, FleetRun
from tierform.serving.kernel_oracle import OUTSIDE
from tierform.serving.oracle import StepOracle, StepShape, numbers_of
from tierform.serving.requests import Requests
from tierform.serving.routers import Router, RouterView, number_of
from tierform.serving.run import Machine, Pool, machine
from tierform.serving.service import Service, Steps
from tierform.serving.simulated import SimulatedOracle, grid_for
from tierform.serving.slo import Slo
from tierform.serving.traces import load_trace
from tierform.simulation.runtime import Runtime, load_runtime
from tierform.workload import Model, load_model
from tierform.workload.parallel import Parallelism
from tierform.workload.precision import PrecisionPlan

ALONE = Parallelism()
MOST_REPLICAS = 100_000


def serve(
    model: Model | str,
    chip: Chip | str,
    requests: Requests | str | Path,
    *,
    engine: Engine | str | Path | None = None,
    replicas: int = 1,
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

    `parallelism` is inside a replica.  `runtime` is by default vLLM's on a chip that is a board, else the ideal one.
    `oracle` tells what a step takes, by default tables made from ``simulate``.  `record` keeps every step.  `fleet`
    says what happens to the replicas: prefill apart, failures, autoscaling, heat, fewer bits under load.  Raises
    TierformError with all problems found.
    """
    settings = engine if isinstance(engine, Engine) else load_engine(engine) if engine is not None else Engine()
    trace = requests if isinstance(requests, Requests) else load_trace(requests)
    found = model if isinstance(model, Model) else load_model(model)
    on = chip if isinstance(chip, Chip) else load_chip(chip)
    software = runtime if isinstance(runtime, Runtime) else load_runtime(runtime or _usual(on))
    if settings.generation_config == "vllm":
        software = replace(software, sampling_s=0.0)
    number, ask = number_of(router)
    problems = []
    if isinstance(replicas, bool) or not 1 <= replicas <= MOST_REPLICAS:
        what = f"must be a whole number from 1 to {MOST_REPLICAS:,}"
        problems.append(Problem(what, key="replicas", value=replicas))
    if not len(trace):
        problems.append(Problem("there is no request", key="requests", value=trace.source))
    run = FleetRun(fleet or Fleet())
    problems += run.fleet.problems(replicas, on)
    if problems:
        raise TierformError(problems)
    room: Capacity | None = None
    if settings.num_gpu_blocks is None:
        room = capacity(found, on, settings, parallelism, software, precision)
        settings = replace(settings, num_gpu_blocks=room.blocks)
    asked: StepOracle
    if oracle is not None:
        asked = oracle
    else:
        longest = int(min(settings.max_model_len, max(2, int((trace.prompt + trace.output).max()))))
        budget = settings.max_num_batched_tokens if settings.scheduler != "orca" else longest * settings.max_num_seqs
        asked = SimulatedOracle(
            model=found,
            chip=on,
            runtime=software,
            grid=grid_for(min(budget, 2**14), settings.max_num_seqs, max(longest, 32)),
            parallelism=parallelism,
            precision=precision,
            progress=(lambda share: progress("tables of the oracle", share)) if progress is not None else None,
        )
    pool = Pool(replicas, settings, numbers_of(asked))
    more = [numbers_of(one) for one in run.fleet.levels]
    made = machine(trace, [pool], router=number, record=record, seed=seed, more=more)
    run.fleet.prepare(made, on, lambda: kv_token_B(found, on, parallelism, software, precision))
    idle_W = _idle_W(on, parallelism) if asked.components else 0.0
    window = run.begin(made, on, asked.components, parallelism.chips, idle_W)

    def pause(done: int) -> None:
        if progress is not None:
            progress("requests", done / len(trace))

    asker = _ask_oracle(asked) if pool.packed[0] == OUTSIDE else None
    made.go(_ask_router(ask) if ask is not None else None, asker, pause, window)
    return _service(
        made,
        trace,
        run,
        asked,
        Service(
            model=found.name,
            chip=on.name,
            engine=asdict(settings),
            columns={},
            states=state.STATES,
            replicas={},
            energy_J_by_component={},
            idle_W=idle_W,
            router=router if replicas > 1 else "none",
            slo=slo or Slo(),
            source=trace.source,
            chips=replicas * parallelism.chips,
            capacity=tuple(room.lines()) if room is not None else (),
        ),
    )


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
        made.logs.cost[:] = (cost.seconds, *cost.joules)
        return max(1, round(cost.seconds * 1e9))

    return ask


def _service(made: Machine, trace: Requests, run: FleetRun, oracle: StepOracle, empty: Service) -> Service:
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
    energy = made.replicas.energy.sum(axis=0)
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
        },
        energy_J_by_component={name: float(one) for name, one in zip(oracle.components, energy, strict=True)},
        steps=steps,
        lookup_tokens=int(counters[state.C_LOOKED_UP]),
        hit_tokens=int(counters[state.C_HITS]),
        over_time=run.heat.to_dict() if run.heat is not None else {},
        more=run.figures(made),
    )
