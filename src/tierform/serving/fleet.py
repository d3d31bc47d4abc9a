"""How several replicas are run: which of them prefill, how keys and values travel, what happens over time.

Disaggregation: the first `prefill_replicas` compute prompts and give the first token, the others all further ones.  In
between a request's keys and values go over the link of its replica, one request after the other; each chip of a
replica sends its own part.  Limits: the blocks that they leave are free when they begin to travel; a request that is
preempted where it decodes is prefilled there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tierform.chip.description import Chip
from tierform.errors import Problem
from tierform.serving import state
from tierform.serving.controls import SECOND, Autoscaling, Conductor, Control, Failure, Failures, Shedding, opened
from tierform.serving.heat import HeatOverTime
from tierform.serving.oracle import StepOracle
from tierform.serving.run import Machine
from tierform.serving.service import Figure


@dataclass(frozen=True)
class Fleet:
    """What is special about the replicas of a run; see the module's text.

    `formats` of weights, from the finest to the coarsest, make the levels of `shedding` from ``simulate``: the weights
    in memory are the finest, and a step reads as many bits of them as the level has.

    `link_B_per_s` and `link_s` are those of one chip to its neighbours if left out.  `heat_window_s` follows power and
    temperature over windows of that length; above `limit_K` the clock falls.  `levels` are the oracles of a
    :class:`Shedding` after the first.
    """

    prefill_replicas: int = 0
    link_B_per_s: float | None = None
    link_s: float | None = None
    failures: Sequence[Failure] = ()
    autoscaling: Autoscaling | None = None
    shedding: Shedding | None = None
    levels: Sequence[StepOracle] = ()
    formats: Sequence[str] = ()
    heat_window_s: float | None = None
    limit_K: float | None = None
    controls: Sequence[Control] = field(default=())

    def problems(self, replicas: int, chip: Chip) -> list[Problem]:
        """What cannot be."""
        found = []
        if self.prefill_replicas and not 1 <= self.prefill_replicas < replicas:
            what = f"must leave a replica that decodes: 1 to {replicas - 1}" if replicas > 1 else "needs two replicas"
            found.append(Problem(what, key="prefill_replicas", value=self.prefill_replicas))
        if self.prefill_replicas and self.autoscaling is not None:
            found.append(Problem("does not go with replicas that only prefill", key="autoscaling"))
        if self.prefill_replicas and chip.cluster is None and self.link_B_per_s is None:
            found.append(Problem("the chip has no link to others", key="link_B_per_s", fix="Give its bandwidth."))
        if self.link_B_per_s is not None and not self.link_B_per_s > 0:
            found.append(Problem("must be greater than 0", key="link_B_per_s", value=self.link_B_per_s))
        if self.link_s is not None and not self.link_s >= 0:
            found.append(Problem("must not be negative", key="link_s", value=self.link_s))
        if self.limit_K is not None and self.heat_window_s is None:
            found.append(
                Problem("temperatures are not followed", key="limit_K", fix="Give heat_window_s (--heat), too.")
            )
        if self.heat_window_s is not None and not self.heat_window_s > 0:
            found.append(Problem("must be greater than 0", key="heat_window_s", value=self.heat_window_s))
        found += Failures(self.failures).problems(replicas)
        if self.autoscaling is not None:
            found += self.autoscaling.problems(replicas)
        if self.shedding is not None and not (self.shedding.down < self.shedding.up and self.shedding.every_s > 0):
            found.append(Problem("needs down below up, and a time above 0", key="shedding"))
        if self.formats and (self.shedding is None or len(self.shedding.levels) != len(self.formats)):
            found.append(Problem("as many levels of shedding as formats are needed", key="formats"))
        return found

    def prepare(self, made: Machine, chip: Chip, token_B: Callable[[], float]) -> None:
        """Roles of replicas, and what a move of keys and values takes; `token_B` a token's bytes of one chip."""
        if not self.prefill_replicas:
            return
        rows = made.replicas.rows
        rows[:, state.ROLE] = state.DECODES
        rows[: self.prefill_replicas, state.ROLE] = state.PREFILLS
        for replica in range(len(rows)):
            opened(made, replica, True)
        link = chip.cluster
        speed = self.link_B_per_s if self.link_B_per_s is not None else link.bandwidth.value if link else 1.0
        wait = self.link_s if self.link_s is not None else link.latency.value if link else 0.0
        made.run.counters[state.C_MOVE_NS] = round(wait * SECOND)
        made.run.counters[state.C_MOVE_TOKEN_PS] = round(token_B() / speed * 1e12)


@dataclass
class FleetRun:
    """The controls of a run, and what they tell at its end."""

    fleet: Fleet
    heat: HeatOverTime | None = None
    conductor: Conductor = field(default_factory=lambda: Conductor(()))

    def begin(
        self, made: Machine, chip: Chip, components: tuple[str, ...], chips: int, idle_W: float
    ) -> Callable[[Machine], int] | None:
        """What the run calls at the controls' moments; None where nothing ever happens."""
        fleet = self.fleet
        controls: list[Control] = []
        if fleet.failures:
            controls.append(Failures(fleet.failures))
        controls += [one for one in (fleet.autoscaling, fleet.shedding) if one is not None]
        if fleet.heat_window_s is not None:
            self.heat = HeatOverTime(
                chip=chip,
                components=components,
                chips=chips,
                window_s=fleet.heat_window_s,
                limit_K=fleet.limit_K,
                idle_W=idle_W,
            )
            controls.append(self.heat)
        controls += fleet.controls
        if not controls:
            return None
        self.conductor = Conductor(controls)
        self.conductor.begin(made)
        return self.conductor.window

    def on_s(self, made: Machine, end_s: float) -> state.Floats:
        """How long each replica was on."""
        if self.fleet.autoscaling is not None:
            return np.array(self.fleet.autoscaling.seconds_on(end_s))
        return np.full(len(made.replicas.rows), end_s)

    def figures(self, made: Machine) -> dict[str, Figure]:
        """What the controls tell."""
        found: dict[str, Figure] = {}
        if self.fleet.prefill_replicas:
            found["prefill_replicas"] = self.fleet.prefill_replicas
            found["moved_kv_tokens"] = int(made.run.counters[state.C_MOVES])
        struck = [one for part in self.conductor.controls if isinstance(part, Failures) for one in part.struck]
        if struck:
            found["failures"] = [list(one) for one in struck]
        if self.fleet.autoscaling is not None:
            found["replicas_over_time"] = [[when, size] for when, size in self.fleet.autoscaling.sizes]
        shedding = self.fleet.shedding
        if shedding is not None:
            shedding.count(made)
            found["perplexity"] = shedding.perplexity
            names = [level.name for level in shedding.levels]
            found["tokens_by_level"] = dict(zip(names, shedding.tokens, strict=True))
            found["level_over_time"] = [[when, names[level]] for when, level in shedding.path]
        if self.heat is not None and self.heat.time_s:
            over = self.heat.to_dict()
            found["hottest_K"], found["slowest_clock"] = max(over["peak_K"]), min(over["clock"])
        return found
