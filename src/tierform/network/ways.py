"""The way of a transfer over the links: all of its cost that depends on the wiring alone, remembered for equal wirings.

Chips that differ in clock, width, energies or router stages have the same routes; a search over such chips finds them
once.  Remembered are dimension-ordered routes on complete grids, which the wiring decides.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from tierform.network.routing import Routing
from tierform.network.topology import FloatArray

MOST_B = 64 << 20


@dataclass(frozen=True, slots=True)
class Way:
    """Of a transfer between groups of nodes.

    `share` (links,) of each byte on each link, and `mean_share` that of the routes to one destination (of a multicast:
    the tree has fewer).  `local` of the bytes stay where they are (`mean_local` of those routes); `port` is the largest
    share that one node sends or takes.  `far` holds the longest way on each axis of a grid, else the hops of the
    longest route.
    """

    share: FloatArray
    mean_share: FloatArray
    local: float
    mean_local: float
    port: float
    far: tuple[int, ...]


_known: OrderedDict[tuple[object, ...], Way] = OrderedDict()
_held_B = 0


def remembered(routing: Routing, groups: tuple[object, ...], find: Callable[[], Way]) -> Way:
    """The way between groups of nodes, told apart by `groups` (for example the bytes of their numbers)."""
    global _held_B
    if routing.topology.grid is None or not routing.is_product_form or routing.via or routing.by_node:
        return find()
    key = (routing.topology.wiring, routing.parts, groups)
    found = _known.get(key)
    if found is not None:
        _known.move_to_end(key)
        return found
    found = _known[key] = find()
    found.share.setflags(write=False)
    _held_B += found.share.nbytes + found.mean_share.nbytes
    while _held_B > MOST_B:
        _, oldest = _known.popitem(last=False)
        _held_B -= oldest.share.nbytes + oldest.mean_share.nbytes
    return found
