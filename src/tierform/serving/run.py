"""A run of the compiled loop: arrays are made, grown where they must, and read at the end.

Nothing is computed here but sizes: the scheduler is :mod:`tierform.serving.kernel_schedule`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.serving import state
from tierform.serving.engine import Engine
from tierform.serving.kernel_loop import advance
from tierform.serving.kernel_oracle import FEATURES, SCRATCH
from tierform.serving.requests import Requests
from tierform.serving.state import (
    ASK_ORACLE,
    ASK_ROUTER,
    BLOCK_COLUMNS,
    CELLS,
    COUNTERS,
    DONE,
    GROW_LOG,
    GROW_PIECES,
    LATER,
    LOG_COLUMNS,
    NONE,
    REPLICA_COLUMNS,
    REQUEST_COLUMNS,
    WINDOW,
    Blocks_,
    Ints,
    Lists_,
    Logs_,
    Replicas_,
    Requests_,
    Run_,
    Small,
)

Number = TypeVar("Number", bound=np.generic)
STEPS_BETWEEN_PAUSES = 200_000
MOST_HEADS = 2**26  # places for blocks by content, of all replicas together


@dataclass(frozen=True)
class HostLink:
    """What crosses between a replica and its host: room there in tokens, and times and joules of what moves."""

    tokens: int = 0
    token_ps: int = 0
    token_J: float = 0.0
    adapter_ns: int = 0
    adapter_J: float = 0.0


NO_HOST = HostLink()
HOST = "host link"  # the component whose energy that is


@dataclass(frozen=True)
class Pool:
    """Replicas of one kind: how many, their engine, the numbers of their oracle, and their link to the host.

    `draft`: the numbers of the oracle of a draft model.  `stages` of a pipeline have a step each in flight.
    """

    replicas: int
    engine: Engine
    packed: NDArray[np.float64]
    host: HostLink = NO_HOST
    draft: NDArray[np.float64] | None = None
    stages: int = 1

    def numbers(self) -> Ints:
        """The engine's settings with those of the host, as the compiled scheduler reads them."""
        host = self.host
        depth = 2 if self.engine.async_scheduling else self.stages
        numbers = [host.tokens, host.token_ps, host.adapter_ns, NONE, self.stages, depth]
        return np.concatenate([self.engine.numbers(), numbers]).astype(np.int64)


@dataclass
class Machine:
    """The arrays of a run; `answer` is asked where a router or an oracle is written in Python."""

    run: Run_
    requests: Requests_
    replicas: Replicas_
    blocks: Blocks_
    lists: Lists_
    logs: Logs_

    def go(
        self,
        ask_router: Callable[[Machine], int] | None = None,
        ask_oracle: Callable[[Machine], int] | None = None,
        pause: Callable[[int], None] | None = None,
        window: Callable[[Machine], int] | None = None,
    ) -> None:
        """Run to the end; `window` is called at the moment of counter C_PAUSE_AT, and says the next such moment."""
        answer = -1
        before = -1
        while True:
            reason = advance(self.run, self.requests, self.replicas, self.blocks, self.lists, self.logs, answer)
            answer = -1
            if reason == DONE:
                return
            if reason == GROW_LOG:
                self._grow_log()
            elif reason == GROW_PIECES:
                self._grow_pieces()
            elif reason == WINDOW:
                assert window is not None
                self.run.counters[state.C_PAUSE_AT] = window(self)
            elif reason == ASK_ROUTER:
                assert ask_router is not None
                answer = ask_router(self)
            elif reason == ASK_ORACLE:
                assert ask_oracle is not None
                answer = ask_oracle(self)
            else:
                given = int(self.replicas.rows[:, state.TOKENS_DONE].sum() + self.run.counters[state.C_FINISHED])
                if given == before:
                    fail(
                        f"no request gets on: {STEPS_BETWEEN_PAUSES:,} steps gave no token, all preempt each other",
                        key="scheduler_reserve_full_isl",
                        fix="Set it to true, or give the engine more blocks.",
                    )
                before = given
                if pause is not None:
                    pause(int(self.run.counters[state.C_FINISHED]))

    def _grow_log(self) -> None:
        logs, sequences = self.logs, len(self.logs.chunk)
        self.logs = logs._replace(
            steps=_longer(logs.steps, 2 * len(logs.steps)),
            joules=_longer(logs.joules, 2 * len(logs.steps)),
            entries=_longer(logs.entries, 2 * len(logs.entries) + sequences),
            preempted=_longer(logs.preempted, 2 * len(logs.preempted) + sequences),
        )

    def _grow_pieces(self) -> None:
        """More pieces of block lists: twice as many, all new ones free."""
        lists, counters = self.lists, self.run.counters
        before = len(lists.cells)
        most = int(self.replicas.running.shape[1]) * int(counters[state.C_MOST_PIECES])
        after = 2 * before + min(most, 4096) + 64
        following = _longer(lists.piece_after, after)
        following[before:] = np.arange(before + 1, after + 1)
        following[after - 1] = counters[state.C_PIECES_FREE]
        counters[state.C_PIECES_FREE] = before
        counters[state.C_PIECES_LEFT] += after - before
        self.lists = lists._replace(
            cells=_longer(lists.cells, after),
            piece_after=following,
            piece_before=_longer(lists.piece_before, after),
        )

    @property
    def finished(self) -> NDArray[np.bool_]:
        """Which requests were served whole."""
        done: NDArray[np.bool_] = self.requests.rows[:, state.STATE] == state.FINISHED
        return done


def _longer(array: NDArray[Number], length: int) -> NDArray[Number]:
    made = np.zeros((length, *array.shape[1:]), array.dtype)
    made[: len(array)] = array
    return made


def machine(
    requests: Requests,
    pools: Sequence[Pool],
    *,
    router: int = 0,
    record: bool = False,
    seed: int = 0,
    more: Sequence[NDArray[np.float64]] = (),
) -> Machine:
    """The arrays of a run before its first event; `more` are numbers of oracles that replicas may change to."""
    engines = np.stack([pool.numbers() for pool in pools])
    pool_of = np.repeat(np.arange(len(pools)), [pool.replicas for pool in pools])
    number = len(pool_of)
    components = max(int(pool.packed[1]) for pool in pools)
    components += components > 0 and any(pool.host != NO_HOST for pool in pools)
    caching = any(pool.engine.enable_prefix_caching for pool in pools)
    sequences = max(pool.engine.max_num_seqs for pool in pools)
    counters = np.zeros(COUNTERS, np.int64)
    counters[state.C_RECORD], counters[state.C_ROUTER], counters[state.C_RANDOM] = record, router, seed
    counters[state.C_PAUSE_AFTER], counters[state.C_PAUSE_AT] = STEPS_BETWEEN_PAUSES, LATER
    counters[state.C_SEED] = seed
    oracles = [*(pool.packed for pool in pools), *more]
    for engine, pool in zip(engines, pools, strict=True):
        if pool.draft is not None:
            engine[state.E_DRAFT_ORACLE] = len(oracles)
            oracles.append(pool.draft)
    starts = np.cumsum([0, *(len(packed) for packed in oracles)])[:-1]
    host_J = np.array([[pool.host.token_J, pool.host.adapter_J] for pool in pools])
    run = Run_(counters, engines, host_J, np.concatenate(oracles).astype(np.float64), starts)
    rows = _request_rows(requests)
    size = pools[0].engine.block_size
    longest = int((requests.prompt + requests.output).max()) if len(requests) else 1
    counters[state.C_MOST_PIECES] = -(-longest // (size * CELLS)) + 1
    made = _requests(requests, rows, pools[0].engine, counters, engines)
    blocks = _blocks(number, int(engines[:, state.E_BLOCKS].max()) if caching else 0, counters)
    return Machine(
        run=run,
        requests=made,
        replicas=_replicas(pool_of, engines, sequences, components, max(pool.engine.max_loras for pool in pools)),
        blocks=blocks,
        lists=_lists(number, counters, np.flatnonzero(requests.after < 0), len(requests)),
        logs=_logs(record, sequences, components, longest // size + 2),
    )


def _request_rows(requests: Requests) -> Small:
    rows = np.zeros((len(requests), REQUEST_COLUMNS), np.int32)
    rows[:, state.PROMPT], rows[:, state.OUTPUT] = requests.prompt, requests.output
    for column in (state.CHUNK_FIRST, state.CHUNK_LAST, state.HIT, state.REPLICA, state.NEXT, state.LEFT, state.RIGHT):
        rows[:, column] = NONE
    return rows


def _requests(requests: Requests, rows: Small, engine: Engine, counters: Ints, engines: Ints) -> Requests_:
    number = len(requests)
    drafting = bool((engines[:, state.E_DRAFTS] > 0).any())
    depth, stages = int(engines[:, state.E_DEPTH].max()), int(engines[:, state.E_STAGES].max())
    shortest = engine.scheduling_policy == "sjf"
    keys = (
        requests.block_keys(engine.block_size)
        if engine.enable_prefix_caching
        else Requests.block_keys(_nothing(number), 16)
    )
    counters[state.C_KEY_SHIFT] = keys.shift
    follow = np.full(number, NONE, np.int64)
    later = np.flatnonzero(requests.after >= 0)
    follow[requests.after[later]] = later
    return Requests_(
        rows=rows,
        arrival=np.where(requests.after < 0, requests.arrival_ns, LATER),
        order=np.ascontiguousarray(requests.prompt if shortest else requests.priority),
        scheduled=np.full(number, NONE, np.int64),
        first=np.full(number, NONE, np.int64),
        last=np.full(number, NONE, np.int64),
        energy=np.zeros(number),
        given=np.zeros(number, np.int32),
        adapter=requests.adapter.astype(np.int32),
        drafts=np.zeros(number if drafting else 1, np.int32),
        checked=np.zeros((number, depth) if drafting else (1, 1), np.int32),
        flying=np.zeros(number if stages > 1 else 1, np.int32),
        follow=follow,
        think=requests.think_ns,
        shared=keys.shared,
        key_at=keys.at,
        keys=keys.keys,
    )


def _nothing(number: int) -> Requests:
    zeros = np.zeros(number, np.int64)
    return Requests(zeros, zeros, zeros)


def _replicas(pool_of: Ints, engines: Ints, sequences: int, components: int, loras: int) -> Replicas_:
    number = len(pool_of)
    rows, depth = np.zeros((number, REPLICA_COLUMNS), np.int64), int(engines[:, state.E_DEPTH].max())
    rows[:, state.HEAD] = rows[:, state.TAIL] = NONE
    rows[:, state.BLOCKED_RELEASES] = NONE
    rows[:, state.EVENT_AT] = LATER
    rows[:, state.POOL] = rows[:, state.ORACLE] = pool_of
    rows[:, state.ALIVE] = 1
    rows[:, state.GROUPS_FREE] = engines[:, state.E_BLOCKS].max()
    null = np.where(engines[:, state.E_SCHEDULER] == state.VLLM, 1, 0)
    rows[:, state.FREE] = (engines[:, state.E_BLOCKS] - null)[pool_of]
    return Replicas_(
        rows=rows,
        running=np.zeros((number, sequences), np.int32),
        sampled=np.zeros((number, depth, sequences), np.int32),
        n_sampled=np.zeros((number, depth), np.int32),
        until=np.zeros((number, depth), np.int64),
        stage_free=np.zeros((number, int(engines[:, state.E_STAGES].max())), np.int64),
        share=np.zeros(number),
        stretch=np.ones(number),
        energy=np.zeros((number, components)),
        ahead=np.zeros((number, state.MOST_AHEAD), np.int64),
        ahead_J=np.zeros((number, state.MOST_AHEAD, components)),
        adapters=np.tile(np.array([NONE, 0, 0], np.int32), (number, loras, 1)),
    )


def _blocks(number: int, blocks: int, counters: Ints) -> Blocks_:
    """All blocks free, in the order of their numbers."""
    capacity = 1 << max(1, (2 * blocks - 1).bit_length()) if blocks else 1
    width = max(blocks, 1)
    bits = int(counters[state.C_KEY_SHIFT])
    while bits and number * (width << bits) > MOST_HEADS:
        bits -= 1
    counters[state.C_WIDTH] = bits
    node = np.full((number, width, BLOCK_COLUMNS), NONE, np.int32)
    node[:, :, state.B_AFTER] = np.arange(1, width + 1) % width
    node[:, :, state.B_BEFORE] = np.arange(-1, width - 1) % width
    node[:, :, state.B_GROUP_FREE] = np.arange(width)
    node[:, :, state.B_USES] = node[:, :, state.B_GROUP_COUNT] = 0
    return Blocks_(
        node=node,
        heads=np.full((number, width << bits), NONE, np.int32),
        group_key=np.zeros((number, width), np.int64),
        table=np.full((number, capacity), NONE, np.int32),
    )


def _lists(number: int, counters: Ints, coming: Ints, requests: int) -> Lists_:
    pieces = 64
    following = np.arange(1, pieces + 1, dtype=np.int32)
    following[-1] = NONE
    counters[state.C_PIECES_FREE], counters[state.C_PIECES_LEFT] = 0, pieces
    return Lists_(
        cells=np.zeros((pieces, CELLS), np.int32),
        piece_after=following,
        piece_before=np.full(pieces, NONE, np.int32),
        heap=np.arange(number, dtype=np.int64),
        place=np.arange(number, dtype=np.int64),
        marked=np.zeros(number, np.int64),
        load=np.zeros(number, np.int64),
        takes=np.array([[1], [0]], np.int32).repeat(number, axis=1),
        coming=coming,
        later=np.zeros(requests + 1, np.int64),
        later_at=np.zeros(requests + 1, np.int64),
    )


def _logs(record: bool, sequences: int, components: int, most_blocks: int) -> Logs_:
    steps = 4096 if record else 1
    return Logs_(
        steps=np.zeros((steps, LOG_COLUMNS), np.int64),
        joules=np.zeros((steps, components)),
        entries=np.zeros((steps + sequences, 3), np.int64),
        preempted=np.zeros(steps + sequences, np.int32),
        chunk=np.zeros((sequences, 4), np.int32),
        out=np.zeros(sequences, np.int32),
        features=np.zeros(FEATURES, np.int64),
        cost=np.zeros(1 + components),
        part=np.zeros(SCRATCH),
        draft_features=np.zeros(FEATURES, np.int64),
        draft_cost=np.zeros(1 + components),
        found=np.zeros(most_blocks, np.int32),
    )
