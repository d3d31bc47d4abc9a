"""The main call of this room: requests, a model on chips, an engine → what the users get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from math import fsum
from pathlib import Path

import numpy as np

from tierform.chip.description import Chip, load_chip
from tierform.errors import Problem, TierformError
from tierform.serving import state
from tierform.serving.capacity import capacity, kv_token_B
from tierform.serving.engine import Engine, load_engine
from tierform.serving.fleet import Fleet, FleetRun
from tierform.serving.grid import grid_for
from tierform.serving.host import adapter_B, adapters_of, host_link
from tierform.serving.kernel_oracle import OUTSIDE
from tierform.serving.oracle import PackedOracle, StepOracle, StepShape, numbers_of
from tierform.serving.outcome import ReplicaKind, outcome
from tierform.serving.requests import Requests
from tierform.serving.routers import Router, RouterView, number_of
from tierform.serving.run import Machine, machine
from tierform.serving.service import Service
from tierform.serving.simulated import SimulatedOracle
from tierform.serving.slo import Slo
from tierform.serving.traces import load_trace
from tierform.serving.wear import wear_rate
from tierform.simulation.runtime import Runtime, load_runtime
from tierform.workload import Model, load_model
from tierform.workload.parallel import Parallelism
from tierform.workload.precision import PrecisionPlan

ALONE = Parallelism()
MOST_REPLICAS = 100_000


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
    if not found.generative:
        what = "does not generate text one token after another: there is nothing to serve step by step"
        fix = "Serve a decoder (`tierform list models`); a batch of an encoder is for `tierform simulate`."
        problems.append(Problem(what, key="model", value=found.name, fix=fix))
    if (trace.adapter >= 0).any() and not settings.enable_lora:
        what = "requests ask for adapters, and the engine knows none"
        problems.append(Problem(what, key="enable_lora", value=False, fix="Set it to true."))
    if parallelism.pipeline > 1 and not all(len(one.can.boards) == 1 == len(one.components) for one in chips):
        what = "pipelines inside a replica are for boards; a chip of several components is none"
        problems.append(Problem(what, key="pipeline", value=parallelism.pipeline, fix="Use tensor."))
    if parallelism.pipeline > 1 and settings.speculative_config is not None and settings.speculative_config.model:
        what = "a draft model beside a pipeline is not there"
        problems.append(Problem(what, key="pipeline", value=parallelism.pipeline, fix="Use method: ngram, or tensor."))
    if problems:
        raise TierformError(problems)
    if parallelism.pipeline > 1:  # each stage has a step in flight, and the next is planned when the oldest is done
        settings = replace(settings, async_scheduling=False)
    if found.positions == "learned":
        settings = replace(settings, max_model_len=min(settings.max_model_len, found.max_positions))
    longest = int(min(settings.max_model_len, max(2, int((trace.prompt + trace.output).max()))))

    drafts = settings.speculative_config
    draft = load_model(drafts.model) if drafts is not None and drafts.model is not None else None
    verified = 1 + drafts.num_speculative_tokens if drafts is not None else 0

    def tables(
        on: Chip, own: Engine, software: Runtime, plan: PrecisionPlan | None, of: Model = found
    ) -> SimulatedOracle:
        budget = own.max_num_batched_tokens if own.scheduler != "orca" else longest * own.max_num_seqs
        return SimulatedOracle(
            model=of,
            chip=on,
            runtime=software,
            grid=grid_for(min(budget, 2**14), own.max_num_seqs, max(longest, 32)),
            parallelism=parallelism,
            precision=plan,
            adapters=adapters_of(own) if of is found else None,
            verified=verified,
            progress=(lambda share: progress(_tables(on, chips), share)) if progress is not None else None,
        )

    def kind(on: Chip, count: int) -> ReplicaKind:
        software = runtime if isinstance(runtime, Runtime) else load_runtime(runtime or _usual(on))
        if settings.generation_config == "vllm":
            software = replace(software, sampling_s=0.0)
        own, room = settings, None
        if own.num_gpu_blocks is None:
            size_B = adapter_B(found, on, own, parallelism, software, precision)
            room = capacity(found, on, own, parallelism, software, precision, size_B, draft)
            own = replace(own, num_gpu_blocks=room.blocks)
        asked = oracle
        if asked is None:
            asked = tables(on, own, software, plans[0] if plans else precision)
        drafting = _drafting(tables(on, own, software, precision, draft), asked) if draft is not None else None
        host = host_link(found, on, own, parallelism, software, precision)
        wear = wear_rate(found, on, parallelism, software, precision) if oracle is None else None
        return ReplicaKind(
            chip=on,
            replicas=count,
            settings=own,
            software=software,
            oracle=asked,
            room=room,
            host=host,
            wear=wear,
            draft=drafting,
            stages=parallelism.pipeline,
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
    return outcome(
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


def _drafting(drafting: SimulatedOracle, asked: StepOracle) -> StepOracle:
    """What the draft model takes, without the host's time of a step and with its most likely tokens."""
    quiet = replace(drafting, runtime=replace(drafting.runtime, step_s=0.0, sampling_s=0.0))
    if not isinstance(asked, PackedOracle) or len(asked.components) not in (0, len(quiet.components)):
        what = "the oracle of the steps tells other components than the draft model's"
        raise TierformError([Problem(what, key="speculative_config", fix="Use method: ngram, or no oracle.")])
    return quiet


def _tables(on: Chip, chips: Sequence[Chip]) -> str:
    return "tables of the oracle" if len(chips) == 1 else f"tables of {on.name}"


def _capacity_lines(kinds: Sequence[ReplicaKind]) -> list[tuple[str, str]]:
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
