"""What changes while requests are served: replicas fail, start and stop, run hotter and slower, read fewer bits.

A :class:`Control` acts at moments that it chooses; between them the compiled loop runs on its own.  At a moment it sees
the arrays of the run as they are after all events up to then.  Every control is deterministic.

- :class:`Failures`: a replica stops, its requests come again at once (their tokens are kept, their keys and values are
  computed anew), and after a repair it takes requests again.
- :class:`Autoscaling`: one replica more where requests per replica exceed `up`, ready after `start_s`; one less where
  they are below `down`: it takes no more requests and ends those that it has.
- :class:`Shedding`: all replicas read weights at fewer bits where requests per replica exceed `up`, at more where they
  are below `down`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tierform.errors import Problem, TierformError
from tierform.serving import state
from tierform.serving.kernel_move import abandon
from tierform.serving.run import Machine
from tierform.units import parse_quantity, whole_number

SECOND = 10**9


class Control(Protocol):
    """Acts on a run at moments of its own."""

    def begin(self, made: Machine) -> int:
        """Prepare the run; the first moment to act, in nanoseconds (state.LATER: never)."""
        ...

    def act(self, made: Machine, now_ns: int) -> int:
        """Act; the next moment."""
        ...


@dataclass
class Conductor:
    """Lets several controls act, each at its moments; those of one moment in their order."""

    controls: Sequence[Control]
    due: list[int] = field(default_factory=list)

    def begin(self, made: Machine) -> None:
        """Prepare the run for all of them."""
        self.due = [control.begin(made) for control in self.controls]
        made.run.counters[state.C_PAUSE_AT] = min(self.due, default=state.LATER)

    def window(self, made: Machine) -> int:
        """All whose moment has come act; the next moment of any."""
        now = int(made.run.counters[state.C_PAUSE_AT])
        for place, control in enumerate(self.controls):
            if self.due[place] <= now:
                self.due[place] = max(now + 1, control.act(made, now))
        return min(self.due)


def opened(made: Machine, replica: int, takes: bool) -> None:
    """A replica takes requests from now on, or no more."""
    role = int(made.replicas.rows[replica, state.ROLE])
    made.replicas.rows[replica, state.ALIVE] = takes
    made.lists.takes[0, replica] = takes and role != state.DECODES
    made.lists.takes[1, replica] = takes and role == state.DECODES


@dataclass(frozen=True)
class Failure:
    """A replica that stops at a moment, and takes requests again after its repair."""

    replica: int
    at_s: float
    repair_s: float = math.inf


def parse_failures(text: str) -> tuple[Failure, ...]:
    """Failures from ``REPLICA@TIME+REPAIR`` (``0@10s+60s,3@20s``); TierformError with every mistake."""
    found, problems = [], []
    for part in filter(None, (one.strip() for one in text.split(","))):
        replica, at, rest = part.partition("@")
        when, plus, repair = rest.partition("+")
        number = whole_number(replica)
        if not at or number is None:
            problems.append(Problem("not a failure: write REPLICA@TIME+REPAIR, as 0@10s+60s", key="fail", value=part))
            continue
        try:
            at_s = parse_quantity(when, "s", key="fail")
            found.append(Failure(number, at_s, parse_quantity(repair, "s", key="fail") if plus else math.inf))
        except TierformError as error:
            problems += error.problems
    if problems:
        raise TierformError(problems)
    return tuple(found)


@dataclass
class Failures:
    """Replicas that fail."""

    failures: Sequence[Failure]
    _events: list[tuple[int, int, bool]] = field(default_factory=list)  # (when, replica, whether it comes back)
    struck: list[tuple[float, int, int]] = field(default_factory=list)  # (seconds, replica, requests that came again)

    def problems(self, number: int) -> list[Problem]:
        """What cannot be with so many replicas."""
        problems = [
            Problem(f"there are replicas 0 to {number - 1}", key="fail", value=one.replica)
            for one in self.failures
            if one.replica >= number
        ]
        problems += [
            Problem("times must not be negative", key="fail", value=f"{one.replica}@{one.at_s:g}s")
            for one in self.failures
            if not (one.at_s >= 0 and one.repair_s >= 0)
        ]
        return problems

    def begin(self, made: Machine) -> int:
        """Sort what happens by time."""
        problems = self.problems(len(made.replicas.rows))
        if problems:
            raise TierformError(problems)
        for one in self.failures:
            self._events.append((round(one.at_s * SECOND), one.replica, False))
            if one.repair_s < math.inf:
                self._events.append((round((one.at_s + one.repair_s) * SECOND), one.replica, True))
        self._events.sort()
        self._hope(made)
        return self._next()

    def act(self, made: Machine, now_ns: int) -> int:
        """Replicas fail, or come back."""
        while self._events and self._events[0][0] <= now_ns:
            _, replica, back = self._events.pop(0)
            opened(made, replica, back)
            if not back:
                self.struck.append((now_ns / SECOND, replica, int(made.lists.load[replica])))
                abandon(made.run, made.requests, made.replicas, made.blocks, made.lists, replica, now_ns)
        self._hope(made)
        return self._next()

    def _next(self) -> int:
        return self._events[0][0] if self._events else state.LATER

    def _hope(self, made: Machine) -> None:
        """Requests that find no replica wait while one is to come back."""
        made.run.counters[state.C_HOPE] = any(back for _, _, back in self._events)


@dataclass
class Autoscaling:
    """Replicas by load: see the module's text."""

    least: int = 1
    start_s: float = 60.0
    every_s: float = 10.0
    up: float = 64.0
    down: float = 16.0
    on_ns: list[int] = field(default_factory=list)
    _since: dict[int, int] = field(default_factory=dict)
    _starting: dict[int, int] = field(default_factory=dict)
    sizes: list[tuple[float, int]] = field(default_factory=list)  # (seconds, replicas that are on or starting)

    def problems(self, number: int) -> list[Problem]:
        """What cannot be with so many replicas."""
        found = []
        if not 1 <= self.least <= number:
            found.append(Problem(f"must be 1 to {number}, the replicas", key="autoscale least", value=self.least))
        if not 0 <= self.down < self.up:
            what = "must be 0 or more, and less than up"
            found.append(Problem(what, key="autoscale down", value=f"{self.down:g}, up {self.up:g}"))
        if not (self.every_s > 0 and self.start_s >= 0):
            what = "times must be above 0"
            found.append(Problem(what, key="autoscale every, start", value=f"{self.every_s:g} s, {self.start_s:g} s"))
        return found

    def begin(self, made: Machine) -> int:
        """Only the least number of replicas is on."""
        number = len(made.replicas.rows)
        problems = self.problems(number)
        if problems:
            raise TierformError(problems)
        self.on_ns = [0] * number
        for replica in range(number):
            opened(made, replica, replica < self.least)
        self._since = dict.fromkeys(range(self.least), 0)
        self.sizes.append((0.0, self.least))
        return round(self.every_s * SECOND)

    def act(self, made: Machine, now_ns: int) -> int:
        """One replica more, or one less."""
        for replica, ready in list(self._starting.items()):
            if ready <= now_ns:
                del self._starting[replica]
                opened(made, replica, True)
        takes = made.replicas.rows[:, state.ALIVE] == 1
        load = made.lists.load
        on = np.flatnonzero(takes)
        waiting = float(load.sum()) / max(1, len(on) + len(self._starting))
        if waiting > self.up:
            self._more(made, now_ns)
        elif waiting < self.down and len(on) > self.least and not self._starting:
            opened(made, int(on[-1]), False)
        for replica in list(self._since):
            gone = not made.replicas.rows[replica, state.ALIVE] and replica not in self._starting
            if gone and load[replica] == 0:
                self.on_ns[replica] += now_ns - self._since.pop(replica)
        size = len(self._since)
        if size != self.sizes[-1][1]:
            self.sizes.append((now_ns / SECOND, size))
        coming = min(self._starting.values(), default=state.LATER)
        return int(min(coming, now_ns + round(self.every_s * SECOND)))

    def _more(self, made: Machine, now_ns: int) -> None:
        draining = [one for one in self._since if not made.replicas.rows[one, state.ALIVE]]
        draining = [one for one in draining if one not in self._starting]
        if draining:
            opened(made, draining[0], True)  # it is on still
            return
        off = [one for one in range(len(made.replicas.rows)) if one not in self._since]
        if off:
            self._since[off[0]] = now_ns
            self._starting[off[0]] = now_ns + round(self.start_s * SECOND)

    def seconds_on(self, end_s: float) -> list[float]:
        """How long each replica was on, at the end of the run."""
        return [
            on / SECOND + max(0.0, end_s - self._since[one] / SECOND) * (one in self._since)
            if one in self._since
            else on / SECOND
            for one, on in enumerate(self.on_ns)
        ]


@dataclass(frozen=True)
class Level:
    """A precision of the weights: its name, its oracle's number in the run, and the perplexity that it has."""

    name: str
    perplexity: float


@dataclass
class Shedding:
    """Weights at fewer bits under load.

    `levels` are the run's oracles from the finest to the coarsest; oracle 0 is the first.  The tokens that were given
    out at each are counted, so the perplexity over the run is that of the mean log-likelihood.
    """

    levels: Sequence[Level]
    up: float
    down: float
    every_s: float = 1.0
    tokens: list[int] = field(default_factory=list)
    path: list[tuple[float, int]] = field(default_factory=list)
    _seen: int = 0

    def begin(self, made: Machine) -> int:
        """Begin with the finest."""
        if len(self.levels) != len(made.run.oracle_at) or not self.down < self.up or self.every_s <= 0:
            raise TierformError([Problem("needs an oracle for each level, down below up, a time above 0", key="shed")])
        self.tokens = [0] * len(self.levels)
        self.path.append((0.0, 0))
        return round(self.every_s * SECOND)

    def act(self, made: Machine, now_ns: int) -> int:
        """A level coarser, or finer."""
        self.count(made)
        level = self.path[-1][1]
        load = float(made.lists.load.sum()) / max(1, int((made.replicas.rows[:, state.ALIVE] == 1).sum()))
        other = level
        if load > self.up:
            other = min(level + 1, len(self.levels) - 1)
        elif load < self.down:
            other = max(level - 1, 0)
        if other != level:
            made.replicas.rows[:, state.ORACLE] = other
            self.path.append((now_ns / SECOND, other))
        return now_ns + round(self.every_s * SECOND)

    def count(self, made: Machine) -> None:
        """Tokens since the last time were given out at the present level."""
        given = int(made.replicas.rows[:, state.TOKENS_DONE].sum())
        self.tokens[self.path[-1][1]] += given - self._seen
        self._seen = given

    @property
    def perplexity(self) -> float:
        """Over all tokens that were given out."""
        total = sum(self.tokens)
        logs = [math.log(level.perplexity) for level in self.levels]
        mean = math.fsum(n * log for n, log in zip(self.tokens, logs, strict=True)) / total if total else math.nan
        return math.exp(mean)
