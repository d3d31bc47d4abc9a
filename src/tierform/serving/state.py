"""What the compiled scheduler works on: flat arrays of requests, replicas and KV blocks, and names of their columns.

A request is one row of 16 numbers (one cache line), a replica one row, a block one row of each table of the pool.
Times are integer nanoseconds.  Nothing here is an object, so that the loop can stop at any event, hand control back to
Python (to grow a log, to show progress, to ask a router written in Python) and go on where it was.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Small = NDArray[np.int32]
Floats = NDArray[np.float64]

NONE = -1
LATER = np.iinfo(np.int64).max  # no event is this late

# -- a request's columns ----------------------------------------------------------------------------------------------
PROMPT, OUTPUT, COMPUTED, TOKENS, AWAITED, BLOCKS, CACHED, STATE = range(8)
CHUNK_FIRST, CHUNK_LAST, HIT, PREEMPTIONS, REPLICA, NEXT, LEFT, RIGHT = range(8, 16)
REQUEST_COLUMNS = 16

# What a request is: not here yet, in a queue, in a batch, out of one again, done, refused.
COMING, WAITING, RUNNING, PREEMPTED, FINISHED = range(5)
REFUSED_EMPTY, REFUSED_LENGTH, REFUSED_BLOCKS, REFUSED_REPLICAS = range(5, 9)
STATES = (
    "not served",
    "waiting",
    "running",
    "preempted",
    "finished",
    "refused: the prompt is empty",
    "refused: prompt and output exceed max_model_len",
    "refused: more KV blocks are needed than the cache has",
    "refused: no replica is left",
)

# -- a replica's columns ----------------------------------------------------------------------------------------------
N_RUNNING, N_WAITING, HEAD, TAIL, FREE, IN_FLIGHT, FIRST_SLOT, CHIP_FREE = range(8)
RELEASES, INSERTIONS, BLOCKED_RELEASES, BLOCKED_INSERTIONS, EVENT_AT, POOL, PLANNED, STEPS = range(8, 16)
# Steps that are computed ahead; when the host has launched the first step, and can plan the next.
AHEAD, HOST_FREE = 16, 17
ALIVE, LOAD_TOKENS, BUSY_NS, PEAK_RUNNING, PEAK_BLOCKS, TOKENS_DONE = range(18, 24)
GROUPS_FREE, ROLE, ORACLE, LINK_FREE = range(24, 28)
# Tokens whose keys and values wait in the host; those that cross with the next step; adapters that come with it.
HOST_TOKENS, CROSSING, LOADING, ADAPTER_CLOCK = range(28, 32)
PIECES_AHEAD = 32  # pieces of block lists that are set aside for the steps ahead
REPLICA_COLUMNS = 33
BOTH, PREFILLS, DECODES = range(3)  # what a replica does
MOST_AHEAD = 64  # steps that a replica computes ahead

# -- an engine's numbers, in the order of their columns ---------------------------------------------------------------
(
    E_BLOCKS,
    E_BLOCK_SIZE,
    E_SEQUENCES,
    E_BUDGET,
    E_LENGTH,
    E_CACHING,
    E_CHUNKED,
    E_THRESHOLD,
    E_WHOLE,
    E_ASYNC,
    E_POLICY,
    E_SCHEDULER,
    E_WATERMARK,
    E_FIRST_NS,
    E_LORAS,
    E_DRAFTS,
    E_LOOKAHEAD,
    E_ACCEPTANCE,
    E_HOST_TOKENS,
    E_HOST_TOKEN_PS,
    E_LORA_NS,
    E_DRAFT_ORACLE,
    E_STAGES,
    E_DEPTH,
) = range(24)
ENGINE_COLUMNS = 24
SURE = 1 << 53  # E_ACCEPTANCE of drafts that are always accepted
FCFS, PRIORITY, SHORTEST = range(3)
VLLM, SARATHI, ORCA = range(3)

# -- a recorded step's columns ----------------------------------------------------------------------------------------
(
    L_REPLICA,
    L_START,
    L_DURATION,
    L_TOKENS,
    L_SINGLES,
    L_CONTEXTS,
    L_FREE,
    L_RUNNING,
    L_WAITING,
    L_ENTRIES,
    L_PREEMPTED,
    L_PLANNED,
) = range(12)
LOG_COLUMNS = 12

# Why the loop came back.
DONE, GROW_LOG, GROW_PIECES, ASK_ROUTER, ASK_ORACLE, PAUSE, WINDOW = range(7)
# Who chooses replicas.
ROUND_ROBIN, LEAST_LOADED, TWO_CHOICES, PREFIX_AWARE, OUTSIDE_ROUTER, ADAPTER_AWARE = range(6)
CLOSED = -2  # a router's answer: no replica takes requests now

CELLS = 32  # blocks of a request's list that stand together


class Requests_(NamedTuple):
    """Requests: rows, times, and the keys of the blocks that others may share."""

    rows: Small  # (n, 16)
    arrival: Ints
    order: Ints  # rank in the queue under a priority policy: smaller first
    scheduled: Ints
    first: Ints
    last: Ints
    energy: Floats  # J
    shared: Small  # (n,) blocks whose content other requests may have, too
    given: Small  # (n,) tokens whose KV comes with it from another replica; below 0: so many wait in the host
    adapter: Small  # (n,) the adapter that it asks for, or NONE
    drafts: Small  # (n,) drafted tokens that its next step verifies; (1,) where nothing is drafted
    checked: Small  # (n, steps in flight) drafts that are verified in them; (1, 1) where nothing is drafted
    flying: Small  # (n,) steps in flight of a pipeline that give it a token; (1,) where there is none
    follow: Ints  # (n,) the request that comes once this one is done, or NONE
    think: Ints  # (n,) ns between the two, of the later one
    key_at: Ints  # (n,) where the keys of a request's groups of blocks begin
    keys: Ints  # a number that stands for the content of each group and all before it


class Replicas_(NamedTuple):
    """Replicas: rows, batches, the sampled requests of steps in flight, energy."""

    rows: Ints  # (r, 33)
    running: Small  # (r, max_num_seqs)
    sampled: Small  # (r, steps in flight, max_num_seqs)
    n_sampled: Small  # (r, steps in flight)
    until: Ints  # (r, steps in flight) when each ends
    stage_free: Ints  # (r, stages) when each stage of its pipeline is free
    share: Floats  # (r,) joules a token of all steps so far
    stretch: Floats  # (r,) a step's time over that of the oracle (a chip that is too hot runs slower)
    energy: Floats  # (r, components) J
    ahead: Ints  # (r, MOST_AHEAD) times of the steps that are computed ahead; (r, 1) where none are
    ahead_J: Floats  # (r, MOST_AHEAD, components) and their joules
    adapters: Small  # (r, max_loras, 3): an adapter in memory or NONE, requests of the batch that use it, when last


# -- a block's columns ------------------------------------------------------------------------------------------------
# The free blocks before and after it; its users; where its content stands ((row of a group << width) + place in the
# row); blocks of the same content; and, of the row of its number, blocks in the group, and the stack of free rows.
B_AFTER, B_BEFORE, B_USES, B_PLACE, B_TWIN_AFTER, B_TWIN_BEFORE, B_GROUP_COUNT, B_GROUP_FREE = range(8)
BLOCK_COLUMNS = 8


class Blocks_(NamedTuple):
    """KV blocks of each replica, when their content is remembered; block 0 is the end of the list of free ones."""

    node: Small  # (r, blocks, 8)
    heads: Small  # (r, blocks << width) the first block of each content
    group_key: Ints  # (r, blocks)
    table: Small  # (r, capacity) rows by key, open addressing


class Lists_(NamedTuple):
    """The blocks of requests, in pieces of 32, and the heap of replicas by their next event."""

    cells: Small  # (pieces, 32)
    piece_after: Small
    piece_before: Small
    heap: Ints  # (r,) replicas
    place: Ints  # (r,) where a replica stands in the heap
    marked: Ints  # (r,) replicas that plan a step now
    load: Ints  # (r,) requests that wait or run
    takes: Small  # (2, r) whether a replica takes new requests now, and such that were prefilled elsewhere
    coming: Ints  # requests that come by themselves, in order of arrival
    later: Ints  # (n,) a heap of requests that come at a moment known only now
    later_at: Ints  # (n,) when


class Logs_(NamedTuple):
    """Recorded steps, entries of prefills, preemptions, and the scratch of the step being planned."""

    steps: Ints  # (steps, 12)
    joules: Floats  # (steps, components)
    entries: Ints  # (entries, 3): request, new, computed
    preempted: Small
    chunk: Small  # (sequences, 4): request, new, computed, how many of the new ones are drafts
    out: Small  # (sequences,) preempted in this step
    features: Ints  # (8,) of the step being planned
    cost: Floats  # (1 + components,) its seconds and joules
    part: Floats  # (4,) scratch
    draft_features: Ints  # (8,) of a pass of the draft model
    draft_cost: Floats  # (1 + components,) its seconds and joules
    found: Small  # blocks of the head of a queue that hold its content


class Run_(NamedTuple):
    """Numbers of the loop: one row of counters, see C_... below."""

    counters: Ints
    engines: Ints  # (pools, 24)
    host_J: Floats  # (pools, 2) joules of a token's keys and values, and of an adapter, that cross to or from the host
    oracle: Floats
    oracle_at: Ints  # (oracles,) where an oracle's numbers begin


(
    C_NEXT_ARRIVAL,
    C_NOW,
    C_STEPS_LOGGED,
    C_ENTRIES_LOGGED,
    C_PREEMPTED_LOGGED,
    C_PIECES_FREE,
    C_HEAP,
    C_RECORD,
    C_ROUTER,
    C_ROUTED,
    C_ROUND,
    C_RANDOM,
    C_FINISHED,
    C_REFUSED,
    C_PAUSE_AFTER,
    C_STEPS,
    C_PREEMPTIONS,
    C_MARKED,
    C_PHASE,
    C_LOOKED_UP,
    C_HITS,
    C_PIECES_LEFT,
    C_MOST_PIECES,
    C_REPLICA,
    C_OUT,
    C_END,
    C_KEY_SHIFT,
    C_WIDTH,
    C_LATER,
    C_PAUSE_AT,
    C_REQUEST,
    C_MOVE_NS,
    C_MOVE_TOKEN_PS,
    C_HOPE,
    C_MOVES,
    C_SWAPPED,
    C_LOADED,
    C_DRAFTED,
    C_ACCEPTED,
    C_SEED,
) = range(40)
COUNTERS = 40
