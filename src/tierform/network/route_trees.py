# mypy: disable-error-code="untyped-decorator"
"""The routes of all pairs as trees, one per destination, and the loads of any traffic matrix along them.

Routes to one destination merge on the way and never part again.  What passes a router on its way there is the router's
own traffic and what other routers hand to it, so a tree is gone through once, the handing routers first: one step per
(router, destination) pair, whatever the length of the routes.  The queueing model also asks how much a link gets from
each of its inputs; a step therefore knows which two links, one after the other, its traffic takes.

Compiled (Numba), so imported when used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from tierform.errors import fail
from tierform.network.routing import Routing
from tierform.network.topology import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class RouteTrees:
    """Trees (one per part of the routing and destination router) and their steps, as flat arrays.

    A *feed* is what a link gets from one of its inputs.  Feeds 0 to links - 1 are what each link gets from the nodes at
    its router; feed `links` takes what has arrived; each one behind it is what some link gets from some other.
    """

    goal: IntArray  # (trees,) destination router
    share: FloatArray  # (trees,) share of the traffic that takes the tree's part of the routing
    first: IntArray  # (trees + 1,) first step of each tree
    router: IntArray  # (steps,) where the step starts
    link: IntArray  # (steps,) the link that it takes
    feed: IntArray  # (steps,) by which feed its traffic goes on behind that link
    fed: IntArray  # (feeds,) the link that each feed enters
    target: IntArray  # (links,) where each link ends

    def carry(self, traffic: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(links,) loads of (routers, routers) `traffic`, and (links,) sums of squares of what the inputs feed."""
        # A tree reads one row: what all routers send to its destination.
        to_each = np.ascontiguousarray(traffic.T)
        loads: tuple[FloatArray, FloatArray] = _carry(
            to_each, self.goal, self.share, self.first, self.router, self.link, self.feed, self.fed, self.target
        )
        return loads


def route_trees(routing: Routing) -> RouteTrees:
    """The trees of a routing, written once and kept with it; TierformError if a route goes in circles."""
    if not routing.kept_trees:
        routing.kept_trees.append(_write(routing))
    trees: RouteTrees = routing.kept_trees[0]
    return trees


def _write(routing: Routing) -> RouteTrees:
    topology, parts = routing.topology, range(len(routing.parts))
    routers, links = topology.routers, topology.links
    everyone = np.arange(routers, dtype=np.int32)
    tables = np.concatenate([routing.next_links(everyone, part).T for part in parts]).astype(np.int32, order="C")
    # Two links in turn: the first one's base and the place of the second among those that leave its router.
    leaving = np.bincount(topology.link_source, minlength=routers)
    place = np.empty(links, np.int64)
    place[np.argsort(topology.link_source, kind="stable")] = np.arange(links) - np.repeat(
        np.cumsum(leaving) - leaving, leaving
    )
    follow = leaving[topology.link_target]
    base = np.cumsum(follow) - follow
    pairs = int(follow.sum())
    fed = np.arange(links + 1 + pairs, dtype=np.uint32)
    target = topology.link_target.astype(np.uint32)
    first = np.zeros(len(tables) + 1, np.uint32)
    router, link, feed = (np.empty(int((tables >= 0).sum()), np.uint32) for _ in range(3))
    feeds = _grow(
        tables,
        target,
        base,
        place,
        np.zeros(pairs, np.uint32),
        np.zeros(routers, np.int64),
        first,
        router,
        link,
        feed,
        fed,
    )
    if feeds < 0:
        fail("the routing goes in circles and never reaches some destination", key=routing.name)
    shares = np.repeat([share for _, share in routing.parts], routers)
    goals = np.tile(everyone.astype(np.uint32), len(parts))
    return RouteTrees(goals, shares, first, router, link, feed, fed[:feeds].copy(), target)


@njit(cache=True, error_model="numpy", _nrt=False)
def _grow(
    tables: Any,
    target: Any,
    base: Any,
    place: Any,
    number: Any,
    awaited: Any,
    first: Any,
    router: Any,
    link: Any,
    feed: Any,
    fed: Any,
) -> Any:
    """Write the trees of `tables` (trees, routers: the link to take or -1); the number of feeds, -1 for a circle.

    `number` and `awaited` are zeros: the feed of each pair of links that follow each other, numbered when first met,
    and how many of the routers that hand their traffic to a router have not done so yet.
    """
    links = len(target)
    feeds = links + 1
    at = end = 0
    for tree in range(len(tables)):
        steps = 0
        for here in range(tables.shape[1]):
            if tables[tree, here] >= 0:
                awaited[target[tables[tree, here]]] += 1
                steps += 1
        for here in range(tables.shape[1]):
            if tables[tree, here] >= 0 and awaited[here] == 0:
                router[end] = here
                end += 1
        # The list grows while it is read.
        while at < end:
            taken = tables[tree, router[at]]
            onward = target[taken]
            after = tables[tree, onward]
            awaited[onward] -= 1
            link[at], feed[at] = taken, links
            if after >= 0:
                pair = base[taken] + place[after]
                if number[pair] == 0:
                    number[pair], fed[feeds] = feeds, after
                    feeds += 1
                feed[at] = number[pair]
                if awaited[onward] == 0:
                    router[end] = onward
                    end += 1
            at += 1
        first[tree + 1] = end
        if end - first[tree] < steps:
            return -1
    return feeds


@njit(cache=True, error_model="numpy")
def _carry(
    to_each: Any, goal: Any, share: Any, first: Any, router: Any, link: Any, feed: Any, fed: Any, target: Any
) -> Any:
    flow = np.zeros(len(fed))
    own, passing = np.empty(len(to_each)), np.empty(len(to_each))
    for tree in range(len(goal)):
        part, row = share[tree], goal[tree]
        for here in range(len(to_each)):
            own[here] = passing[here] = part * to_each[row, here]
        for step in range(first[tree], first[tree + 1]):
            here, taken = router[step], link[step]
            amount = passing[here]
            flow[taken] += own[here]
            flow[feed[step]] += amount
            passing[target[taken]] += amount
    load, squares = np.zeros(len(target) + 1), np.zeros(len(target) + 1)
    for number in range(len(fed)):
        load[fed[number]] += flow[number]
        squares[fed[number]] += flow[number] ** 2
    return load[:-1], squares[:-1]
