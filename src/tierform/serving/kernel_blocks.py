"""KV blocks in compiled code: taken from the least recently used, found again by content, given back tail first.

Free blocks are a doubly linked list whose end is block 0 (vLLM's null block, which nobody gets).  A free block keeps
its content until it is taken.  Full blocks of equal content (equal tokens, and equal tokens before them) are found
through groups: `1 << width` neighbours of one prompt have one entry in a table with open addressing, and a place each
in its row.  Further blocks of the same content are linked behind the first.
"""

from __future__ import annotations

from numba import njit

from tierform.serving.state import (
    B_AFTER,
    B_BEFORE,
    B_GROUP_COUNT,
    B_GROUP_FREE,
    B_PLACE,
    B_TWIN_AFTER,
    B_TWIN_BEFORE,
    B_USES,
    BLOCKS,
    C_KEY_SHIFT,
    C_PIECES_FREE,
    C_PIECES_LEFT,
    C_WIDTH,
    CACHED,
    CELLS,
    CHUNK_FIRST,
    CHUNK_LAST,
    FREE,
    GROUPS_FREE,
    INSERTIONS,
    NONE,
    RELEASES,
)

LAST = -2  # the first of several blocks of one content has LAST - (the last of them) where others have the one before


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _home(key, mask):  # type: ignore[no-untyped-def]
    mixed = key * 0x9E3779B97F4A7C1
    return (mixed ^ ((mixed >> 31) & 0x1FFFFFFFF)) & mask


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def find_group(blocks, replica, key):  # type: ignore[no-untyped-def]
    """The row of a group, or NONE."""
    mask = blocks.table.shape[1] - 1
    slot = _home(key, mask)
    while True:
        row = blocks.table[replica, slot]
        if row == NONE or blocks.group_key[replica, row] == key:
            return row
        slot = (slot + 1) & mask


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _make_group(blocks, replica_row, replica, key):  # type: ignore[no-untyped-def]
    """A row for a new group."""
    replica_row[GROUPS_FREE] -= 1
    row = blocks.node[replica, replica_row[GROUPS_FREE], B_GROUP_FREE]
    blocks.group_key[replica, row] = key
    blocks.node[replica, row, B_GROUP_COUNT] = 0
    mask = blocks.table.shape[1] - 1
    slot = _home(key, mask)
    while blocks.table[replica, slot] != NONE:
        slot = (slot + 1) & mask
    blocks.table[replica, slot] = row
    return row


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _drop_group(blocks, replica_row, replica, row):  # type: ignore[no-untyped-def]
    """An empty group goes; entries behind it move up where they would not be found otherwise."""
    mask = blocks.table.shape[1] - 1
    hole = _home(blocks.group_key[replica, row], mask)
    while blocks.table[replica, hole] != row:
        hole = (hole + 1) & mask
    blocks.table[replica, hole] = NONE
    look = (hole + 1) & mask
    while blocks.table[replica, look] != NONE:
        home = _home(blocks.group_key[replica, blocks.table[replica, look]], mask)
        if ((look - home) & mask) >= ((look - hole) & mask):
            blocks.table[replica, hole] = blocks.table[replica, look]
            blocks.table[replica, look] = NONE
            hole = look
        look = (look + 1) & mask
    blocks.node[replica, replica_row[GROUPS_FREE], B_GROUP_FREE] = row
    replica_row[GROUPS_FREE] += 1


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _remember(blocks, replica, row, place, block):  # type: ignore[no-untyped-def]
    """Note that a block holds what stands at this place of a group."""
    head = blocks.heads[replica, place]
    blocks.node[replica, block, B_PLACE] = place
    blocks.node[replica, block, B_TWIN_AFTER] = NONE
    if head == NONE:
        blocks.heads[replica, place] = block
        blocks.node[replica, row, B_GROUP_COUNT] += 1
        blocks.node[replica, block, B_TWIN_BEFORE] = LAST - block
        return
    last = LAST - blocks.node[replica, head, B_TWIN_BEFORE]
    blocks.node[replica, last, B_TWIN_AFTER] = block
    blocks.node[replica, block, B_TWIN_BEFORE] = last
    blocks.node[replica, head, B_TWIN_BEFORE] = LAST - block


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _forget(blocks, replica_row, replica, block, width):  # type: ignore[no-untyped-def]
    """A block's content goes."""
    place = blocks.node[replica, block, B_PLACE]
    blocks.node[replica, block, B_PLACE] = NONE
    before, after = blocks.node[replica, block, B_TWIN_BEFORE], blocks.node[replica, block, B_TWIN_AFTER]
    if before >= 0:
        blocks.node[replica, before, B_TWIN_AFTER] = after
        if after != NONE:
            blocks.node[replica, after, B_TWIN_BEFORE] = before
        else:
            head = blocks.heads[replica, place]
            blocks.node[replica, head, B_TWIN_BEFORE] = LAST - before
        return
    blocks.heads[replica, place] = after
    if after != NONE:
        blocks.node[replica, after, B_TWIN_BEFORE] = before
        return
    row = place >> width
    blocks.node[replica, row, B_GROUP_COUNT] -= 1
    if blocks.node[replica, row, B_GROUP_COUNT] == 0:
        _drop_group(blocks, replica_row, replica, row)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
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


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def touch(counters, rows, lists, blocks, replica_row, replica, request, found, number):  # type: ignore[no-untyped-def]
    """The request uses the `number` blocks that were found to hold what it needs."""
    for index in range(number):
        block = found[index]
        if blocks.node[replica, block, B_USES] == 0:
            before, after = blocks.node[replica, block, B_BEFORE], blocks.node[replica, block, B_AFTER]
            blocks.node[replica, before, B_AFTER] = after
            blocks.node[replica, after, B_BEFORE] = before
            replica_row[FREE] -= 1
        blocks.node[replica, block, B_USES] += 1
        _append(counters, rows, lists, request, block)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def take(counters, rows, lists, blocks, replica_row, replica, request, number):  # type: ignore[no-untyped-def]
    """The request gets the `number` blocks that were used least recently; their content goes."""
    width = counters[C_WIDTH]
    block = blocks.node[replica, 0, B_AFTER]
    for _ in range(number):
        if blocks.node[replica, block, B_PLACE] != NONE:
            _forget(blocks, replica_row, replica, block, width)
        blocks.node[replica, block, B_USES] = 1
        _append(counters, rows, lists, request, block)
        block = blocks.node[replica, block, B_AFTER]
    blocks.node[replica, 0, B_AFTER] = block
    blocks.node[replica, block, B_BEFORE] = 0
    replica_row[FREE] -= number


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def group_of(counters, requests, request, index):  # type: ignore[no-untyped-def]
    """The key of the group of a request's block: one that others may have (0 and up), or its own (below NONE)."""
    width = counters[C_WIDTH]
    if index < requests.shared[request]:
        shift = counters[C_KEY_SHIFT]
        group = index >> shift
        inside = (index - (group << shift)) >> width
        return (requests.keys[requests.key_at[request] + group] << (shift - width)) | inside
    return -2 - ((request << 22) | (index >> width))


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def keep(counters, requests, lists, blocks, replica_row, replica, request, full):  # type: ignore[no-untyped-def]
    """Remember the content of the request's first `full` blocks, of which some are remembered already.

    What no other request can have is remembered only once the request is preempted (`keep_own`): nobody else finds it.
    """
    rows = requests.rows
    first = rows[request, CACHED]
    if full <= first:
        return
    rows[request, CACHED] = full
    shared = requests.shared[request]
    if first < shared:
        _note(counters, requests, lists, blocks, replica_row, replica, request, first, min(full, shared))
        replica_row[INSERTIONS] += 1


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def keep_own(counters, requests, lists, blocks, replica_row, replica, request):  # type: ignore[no-untyped-def]
    """Remember the request's own blocks: it is preempted, and may find them again."""
    first, full = requests.shared[request], requests.rows[request, CACHED]
    if first < full:
        _note(counters, requests, lists, blocks, replica_row, replica, request, first, full)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _note(counters, requests, lists, blocks, replica_row, replica, request, first, full):  # type: ignore[no-untyped-def]
    """Remember the content of the request's blocks from `first` on, up to `full`; all are shared, or none is."""
    rows, width = requests.rows, counters[C_WIDTH]
    piece = rows[request, CHUNK_LAST]
    at = (rows[request, BLOCKS] - 1) // CELLS
    while at > first // CELLS:
        piece = lists.piece_before[piece]
        at -= 1
    row = NONE
    for index in range(first, full):
        if index // CELLS > at:
            piece = lists.piece_after[piece]
            at += 1
        inside = index & ((1 << width) - 1)
        block = lists.cells[piece, index % CELLS]
        if blocks.node[replica, block, B_PLACE] != NONE:  # since it was preempted before
            row = NONE
            continue
        if row == NONE or inside == 0:
            key = group_of(counters, requests, request, index)
            row = find_group(blocks, replica, key)
            if row == NONE:
                row = _make_group(blocks, replica_row, replica, key)
        _remember(blocks, replica, row, (row << width) | inside, block)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def look_up(counters, requests, blocks, replica, request, most, found):  # type: ignore[no-untyped-def]
    """Of the request's first `most` blocks: how many the replica holds, and how many of these nobody uses.

    `found` gets the blocks.
    """
    width, shared = counters[C_WIDTH], requests.shared[request]
    unused = 0
    row = NONE
    for index in range(most):
        inside = index & ((1 << width) - 1)
        if inside == 0 or index == shared:
            row = find_group(blocks, replica, group_of(counters, requests, request, index))
            if row == NONE:
                return index, unused
        block = blocks.heads[replica, (row << width) | inside]
        if block == NONE:
            return index, unused
        found[index] = block
        unused += blocks.node[replica, block, B_USES] == 0
    return most, unused


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
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
    last = blocks.node[replica, 0, B_BEFORE]
    freed = 0
    for index in range(held - 1, -1, -1):
        block = lists.cells[piece, index % CELLS]
        blocks.node[replica, block, B_USES] -= 1
        if blocks.node[replica, block, B_USES] == 0:
            blocks.node[replica, last, B_AFTER] = block
            blocks.node[replica, block, B_BEFORE] = last
            last = block
            freed += 1
        if index % CELLS == 0:
            earlier = lists.piece_before[piece]
            lists.piece_after[piece] = counters[C_PIECES_FREE]
            counters[C_PIECES_FREE] = piece
            counters[C_PIECES_LEFT] += 1
            piece = earlier
    blocks.node[replica, last, B_AFTER] = 0
    blocks.node[replica, 0, B_BEFORE] = last
    replica_row[FREE] += freed
    rows[request, CHUNK_FIRST] = NONE
    rows[request, CHUNK_LAST] = NONE
