# mypy: disable-error-code="untyped-decorator, no-any-return"
"""The routes of all pairs as trees, one per destination, and the loads of any traffic matrix along them.

Routes to one destination merge on the way and never part again.  What passes a router on its way there is the router's
own traffic and what other routers hand to it, so a tree is gone through once, the handing routers first: one step per
(router, destination) pair, whatever the length of the routes.  The queueing model also asks how much a link gets from
each of its inputs; a step therefore knows which two links, one after the other, its traffic takes.

Compiled (Numba), so imported when used.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    came: IntArray  # (feeds,) the link over which it comes; `links` where it comes from nodes
    target: IntArray  # (links + 1,) where each link ends; the last stands for no link
    split: FloatArray  # (steps, 2) where several links lead on: shares of what passes, to the link and to the feed
    by_node: bool
    table: IntArray  # (trees, routers) the first link to take, -1 at the destination
    ways: IntArray | None  # (destinations, routers) how many links lead on, where several may

    def carry(self, traffic: FloatArray) -> FloatArray:
        """(feeds,) what each feed carries of (routers, routers) `traffic`.

        Where routes depend on the goal's place at its router, `traffic` is (routers, places, routers).
        """
        # A tree reads one row: what all routers send to its destination.
        to_each = np.ascontiguousarray(traffic.reshape(len(traffic), -1).T)
        goal = np.arange(len(self.goal), dtype=np.uint32) if self.by_node else self.goal
        share = np.ones(len(goal)) if self.by_node else self.share
        steps = (self.first, self.router, self.link, self.feed, self.fed, self.target)
        flow: FloatArray
        if len(self.split):
            flow = _carry_split(to_each, goal, share, *steps, self.split)
        else:
            flow = _carry(to_each, goal, share, *steps)
        return flow

    def entering(self, sent: FloatArray, entry: IntArray, each: FloatArray) -> tuple[FloatArray, ...]:
        """(links,) what nodes send over a link first, the sum of squares of it by node, and its sum times `each`.

        `sent` is (nodes, routers) traffic (or places and routers in turn), `each` (nodes,) a figure of every node.
        """
        found: tuple[FloatArray, ...]
        share = np.ones(len(self.goal)) if self.by_node else self.share
        goal = np.arange(len(self.goal), dtype=np.uint32) if self.by_node else self.goal
        ways = self.ways if self.ways is not None else np.zeros((0, 0), np.int32)
        found = _entering(np.ascontiguousarray(sent), entry, each, goal, share, self.table, ways, len(self.target) - 1)
        return found


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
    came = np.full(links + 1 + pairs, links, np.uint32)
    target = topology.link_target.astype(np.uint32)
    shares = np.repeat([share for _, share in routing.parts], routers)
    goals = np.tile(everyone.astype(np.uint32), len(parts))
    ways = routing.ways(everyone)
    if ways is not None:
        begin, router, link, feed, entered, over, split = _grow_split(
            tables, np.ascontiguousarray(ways.T), target, base, place
        )
        ends = np.append(target, routers).astype(np.uint32)
        return RouteTrees(
            goal=goals,
            share=shares,
            first=begin,
            router=router,
            link=link,
            feed=feed,
            fed=entered,
            came=over,
            target=ends,
            split=split,
            by_node=False,
            table=tables,
            ways=np.ascontiguousarray(ways.T, np.int32),
        )
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
        came,
    )
    if feeds < 0:
        fail("the routing goes in circles and never reaches some destination", key=routing.name)
    ends = np.append(target, routers).astype(np.uint32)
    fed, came = fed[:feeds].copy(), came[:feeds].copy()
    return RouteTrees(
        goal=goals,
        share=shares,
        first=first,
        router=router,
        link=link,
        feed=feed,
        fed=fed,
        came=came,
        target=ends,
        split=np.zeros((0, 2)),
        by_node=routing.by_node,
        table=tables,
        ways=None,
    )


@njit(cache=True, error_model="numpy", _nrt=False)
def _grow(
    tables: IntArray,
    target: IntArray,
    base: IntArray,
    place: IntArray,
    number: IntArray,
    awaited: IntArray,
    first: IntArray,
    router: IntArray,
    link: IntArray,
    feed: IntArray,
    fed: IntArray,
    came: IntArray,
) -> int:
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
                    number[pair], fed[feeds], came[feeds] = feeds, after, taken
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
    to_each: FloatArray,
    goal: IntArray,
    share: FloatArray,
    first: IntArray,
    router: IntArray,
    link: IntArray,
    feed: IntArray,
    fed: IntArray,
    target: IntArray,
) -> FloatArray:
    flow = np.zeros(len(fed))
    own, passing = np.empty(to_each.shape[1]), np.empty(to_each.shape[1])
    for tree in range(len(goal)):
        part, row = share[tree], goal[tree]
        for here in range(to_each.shape[1]):
            own[here] = passing[here] = part * to_each[row, here]
        for step in range(first[tree], first[tree + 1]):
            here, taken = router[step], link[step]
            amount = passing[here]
            flow[taken] += own[here]
            flow[feed[step]] += amount
            passing[target[taken]] += amount
    return flow


@njit(cache=True, error_model="numpy")
def _entering(
    sent: FloatArray,
    entry: IntArray,
    each: FloatArray,
    goal: IntArray,
    share: FloatArray,
    table: IntArray,
    ways: IntArray,
    links: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    flow, squares, weighted = np.zeros(links), np.zeros(links), np.zeros(links)
    own = np.zeros(links)
    for node in range(len(sent)):
        here = entry[node]
        for tree in range(len(goal)):
            link = table[tree, here]
            amount = share[tree] * sent[node, goal[tree]]
            if link < 0 or amount == 0:
                continue
            number = ways[tree, here] if len(ways) else 1
            for choice in range(number):
                own[link + choice] += amount / number
        for tree in range(len(goal)):
            link = table[tree, here]
            for one in range(link, link + (ways[tree, here] if len(ways) else 1)):
                if one >= 0 and own[one] > 0:
                    flow[one] += own[one]
                    squares[one] += own[one] ** 2
                    weighted[one] += own[one] * each[node]
                    own[one] = 0.0
    return flow, squares, weighted


def _grow_split(
    tables: IntArray, ways: IntArray, target: IntArray, base: IntArray, place: IntArray
) -> tuple[IntArray, IntArray, IntArray, IntArray, IntArray, IntArray, FloatArray]:
    """The trees where several links in a row lead on: a step for each link and each link after it.

    The first step of a link also takes the router's own traffic; the others have no link of their own.
    """
    links = len(target)
    fed: list[int] = list(range(links + 1))
    came: list[int] = [links] * (links + 1)
    number: dict[int, int] = {}
    rows: list[tuple[int, int, int, float, float]] = []
    first = [0]
    for table, way in zip(tables, ways, strict=True):
        awaited = np.zeros(tables.shape[1], np.int64)
        for start in np.flatnonzero(way).tolist():
            np.add.at(awaited, target[table[start] + np.arange(way[start])], 1)
        ready: list[int] = np.flatnonzero((awaited == 0) & (way > 0)).tolist()
        while ready:
            here = ready.pop()
            for taken in range(int(table[here]), int(table[here] + way[here])):
                onward = int(target[taken])
                awaited[onward] -= 1
                if awaited[onward] == 0 and way[onward]:
                    ready.append(onward)
                part = 1.0 / float(way[here])
                for later in range(int(way[onward])):
                    pair = int(base[taken] + place[table[onward] + later])
                    if pair not in number:
                        number[pair] = len(fed)
                        fed.append(int(table[onward] + later))
                        came.append(taken)
                    rows.append(
                        (
                            here,
                            links if later else taken,
                            number[pair],
                            0.0 if later else part,
                            part / float(way[onward]),
                        )
                    )
                if way[onward] == 0:
                    rows.append((here, taken, links, part, part))
        first.append(len(rows))
    columns = list(zip(*rows, strict=True)) or [(), (), (), (), ()]
    router, link, feed = (np.array(column, np.uint32) for column in columns[:3])
    split = np.array([columns[3], columns[4]]).T.reshape(-1, 2)
    entered, over = np.array(fed, np.uint32), np.array(came, np.uint32)
    return np.array(first, np.uint32), router, link, feed, entered, over, np.ascontiguousarray(split)


@njit(cache=True, error_model="numpy")
def _carry_split(
    to_each: FloatArray,
    goal: IntArray,
    share: FloatArray,
    first: IntArray,
    router: IntArray,
    link: IntArray,
    feed: IntArray,
    fed: IntArray,
    target: IntArray,
    split: FloatArray,
) -> FloatArray:
    flow = np.zeros(len(fed))
    own, passing = np.empty(to_each.shape[1] + 1), np.empty(to_each.shape[1] + 1)
    for tree in range(len(goal)):
        part, row = share[tree], goal[tree]
        for here in range(to_each.shape[1]):
            own[here] = passing[here] = part * to_each[row, here]
        for step in range(first[tree], first[tree + 1]):
            here, taken = router[step], link[step]
            flow[taken] += own[here] * split[step, 0]
            flow[feed[step]] += passing[here] * split[step, 1]
            passing[target[taken]] += passing[here] * split[step, 0]
    return flow
