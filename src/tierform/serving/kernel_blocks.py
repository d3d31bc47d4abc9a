"""KV blocks in compiled code: taken from the least recently used, found again by content, given back tail first.

Free blocks are a doubly linked list whose end is block 0 (vLLM's null block, which nobody gets).  A free block keeps
its content until it is taken.  The content of a full block has a key: equal keys mean equal tokens and equal tokens
before them.  A table with open addressing leads from a key to the first block that holds it; further blocks of the same
content are linked behind it.
"""

from __future__ import annotations

from numba import njit

from tierform.serving.state import (
    BLOCKS,
    C_KEY_SHIFT,
    CACHED,
    CELLS,
    C_PIECES_FREE,
    C_PIECES_LEFT,
    CHUNK_FIRST,
    CHUNK_LAST,
    FREE,
    INSERTIONS,
    NONE,
    RELEASES,
)

LAST = -2  # the first of several blocks of one content has LAST - (the last of them) where others have the one before
GROUP_BITS = 5  # keys of neighbours in a prompt lie side by side in the table


@njit(cache=True, nogil=True, inline="always")
def _slot(key, mask):  # type: ignore[no-untyped-def]
    group = key >> GROUP_BITS
    mixed = group * 0x9E3779B97F4A7C1
    mixed ^= mixed >> 29
    return ((mixed << GROUP_BITS) + (key & 31)) & mask


@njit(cache=True, nogil=True)
def find(table_key, table_block, key):  # type: ignore[no-untyped-def]
    """The first block with this content, or NONE."""
    mask = len(table_key) - 1
    slot = _slot(key, mask)
    while table_block[slot] != NONE:
        if table_key[slot] == key:
            return table_block[slot]
        slot = (slot + 1) & mask
    return NONE


@njit(cache=True, nogil=True)
def remember(blocks, replica, block, key):  # type: ignore[no-untyped-def]
    """Note that a block holds this content."""
    table_key, table_block = blocks.table_key[replica], blocks.table_block[replica]
    mask = len(table_key) - 1
    slot = _slot(key, mask)
    blocks.key[replica, block] = key
    blocks.twin_after[replica, block] = NONE
    while table_block[slot] != NONE:
        if table_key[slot] == key:
            head = table_block[slot]
            last = LAST - blocks.twin_before[replica, head]
            blocks.twin_after[replica, last] = block
            blocks.twin_before[replica, block] = last
            blocks.twin_before[replica, head] = LAST - block
            return
        slot = (slot + 1) & mask
    blocks.twin_before[replica, block] = LAST - block
    table_key[slot] = key
    table_block[slot] = block


@njit(cache=True, nogil=True)
def forget(blocks, replica, block):  # type: ignore[no-untyped-def]
    """A block's content goes."""
    key = blocks.key[replica, block]
    blocks.key[replica, block] = NONE
    before, after = blocks.twin_before[replica, block], blocks.twin_after[replica, block]
    if before >= 0:
        blocks.twin_after[replica, before] = after
        if after != NONE:
            blocks.twin_before[replica, after] = before
        else:
            head = find(blocks.table_key[replica], blocks.table_block[replica], key)
            blocks.twin_before[replica, head] = LAST - before
        return
    table_key, table_block = blocks.table_key[replica], blocks.table_block[replica]
    mask = len(table_key) - 1
    slot = _slot(key, mask)
    while table_key[slot] != key or table_block[slot] == NONE:
        slot = (slot + 1) & mask
    if after != NONE:
        table_block[slot] = after
        blocks.twin_before[replica, after] = before
        return
    # Those behind move up where they would not be found otherwise.
    hole = slot
    table_block[hole] = NONE
    look = (hole + 1) & mask
    while table_block[look] != NONE:
        home = _slot(table_key[look], mask)
        if ((look - home) & mask) >= ((look - hole) & mask):
            table_key[hole] = table_key[look]
            table_block[hole] = table_block[look]
            table_block[look] = NONE
            hole = look
        look = (look + 1) & mask


@njit(cache=True, nogil=True, inline="always")
def _append(counters, rows, lists, request, block):  # type: ignore[no-untyped-def]
    held = rows[request, BLOCKS]
    if held % CELLS == 0:
        piece = counters[C_PIECES_FREE]
        counters[C_PIECES_FREE] = lists.piece_after[piece]
        counters[C_PIECES_LEFT] -= 1
        last = rows[request, CHUNK_LAST]
        lists.piece_before[piece] = last
        lists.piece_after[piece] = NONE
        if last == NONE:
            rows[request, CHUNK_FIRST] = piece
        else:
            lists.piece_after[last] = piece
        rows[request, CHUNK_LAST] = piece
    lists.cells[rows[request, CHUNK_LAST], held % CELLS] = block
    rows[request, BLOCKS] = held + 1


@njit(cache=True, nogil=True)
def touch(counters, rows, lists, blocks, replica_row, replica, request, block):  # type: ignore[no-untyped-def]
    """The request uses a block that holds what it needs."""
    if blocks.uses[replica, block] == 0:
        before, after = blocks.before[replica, block], blocks.after[replica, block]
        blocks.after[replica, before] = after
        blocks.before[replica, after] = before
        replica_row[FREE] -= 1
    blocks.uses[replica, block] += 1
    _append(counters, rows, lists, request, block)


@njit(cache=True, nogil=True)
def take(counters, rows, lists, blocks, replica_row, replica, request, number):  # type: ignore[no-untyped-def]
    """The request gets the `number` blocks that were used least recently; their content goes."""
    after = blocks.after[replica]
    for _ in range(number):
        block = after[0]
        following = after[block]
        after[0] = following
        blocks.before[replica, following] = 0
        if blocks.key[replica, block] != NONE:
            forget(blocks, replica, block)
        blocks.uses[replica, block] = 1
        _append(counters, rows, lists, request, block)
    replica_row[FREE] -= number


@njit(cache=True, nogil=True, inline="always")
def key_of(counters, requests, request, index):  # type: ignore[no-untyped-def]
    """The key of a request's block: one that others may have (0 and up), or one of its own (below NONE)."""
    if index < requests.shared[request]:
        group = index >> counters[C_KEY_SHIFT]
        return (requests.keys[requests.key_at[request] + group] << 5) | (index - (group << counters[C_KEY_SHIFT]))
    return -2 - ((request << 22) | index)


@njit(cache=True, nogil=True)
def keep(counters, requests, lists, blocks, replica_row, replica, request, full):  # type: ignore[no-untyped-def]
    """Remember the content of the request's first `full` blocks, of which some are remembered already."""
    rows = requests.rows
    first = rows[request, CACHED]
    if full <= first:
        return
    piece = rows[request, CHUNK_LAST]
    at = (rows[request, BLOCKS] - 1) // CELLS
    while at > first // CELLS:
        piece = lists.piece_before[piece]
        at -= 1
    for index in range(first, full):
        if index // CELLS > at:
            piece = lists.piece_after[piece]
            at += 1
        key = key_of(counters, requests, request, index)
        if key >= 0:
            replica_row[INSERTIONS] += 1
        remember(blocks, replica, lists.cells[piece, index % CELLS], key)
    rows[request, CACHED] = full


@njit(cache=True, nogil=True)
def give_back(counters, rows, lists, blocks, replica_row, replica, request, caching):  # type: ignore[no-untyped-def]
    """All blocks of a request are free again, the last of them to be taken first."""
    held = rows[request, BLOCKS]
    replica_row[RELEASES] += 1
    rows[request, BLOCKS] = 0
    rows[request, CACHED] = 0
    if not caching:
        replica_row[FREE] += held
        return
    piece = rows[request, CHUNK_LAST]
    last = blocks.before[replica, 0]
    freed = 0
    for index in range(held - 1, -1, -1):
        block = lists.cells[piece, index % CELLS]
        blocks.uses[replica, block] -= 1
        if blocks.uses[replica, block] == 0:
            blocks.after[replica, last] = block
            blocks.before[replica, block] = last
            last = block
            freed += 1
        if index % CELLS == 0:
            earlier = lists.piece_before[piece]
            lists.piece_after[piece] = counters[C_PIECES_FREE]
            counters[C_PIECES_FREE] = piece
            counters[C_PIECES_LEFT] += 1
            piece = earlier
    blocks.after[replica, last] = 0
    blocks.before[replica, 0] = last
    replica_row[FREE] += freed
    rows[request, CHUNK_FIRST] = NONE
    rows[request, CHUNK_LAST] = NONE
