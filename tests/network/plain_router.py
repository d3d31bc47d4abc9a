"""A slow, plain router network: lists and dictionaries, one object per router, written from the rules alone.

It serves as the reference for the compiled engine: deterministic flows, table routing, iSLIP with one iteration, any
delays, multicast (a packet goes into the branches of its tree one after the other).  Nothing here is shared with the
engine but the topology and the routing table.
"""

from __future__ import annotations

from collections import defaultdict, deque


class Output:
    def __init__(self, slots, vcs, delay, feeds):
        self.slots, self.delay, self.feeds = slots, delay, feeds
        self.owner = [None] * vcs
        self.used = [0] * vcs
        self.grant_pointer = 0
        self.vc_grant_pointer = [0] * vcs
        self.flits = 0


class Input:
    def __init__(self, vcs):
        self.queue = [deque() for _ in range(vcs)]
        self.status = ["idle"] * vcs
        self.ready = [0] * vcs
        self.target = [None] * vcs
        self.vc_accept_pointer = [0] * vcs
        self.accept_pointer = 0
        self.offset = 0
        self.branch, self.sent = [0] * vcs, [0] * vcs
        self.feeder = None


class PlainNetwork:
    def __init__(self, topology, table, router):
        self.t, self.table, self.p = topology, table, router
        self.vcs = router.virtual_channels
        self.inputs = [[] for _ in range(topology.routers)]
        self.outputs = [[] for _ in range(topology.routers)]
        self.link_in, self.link_out, self.node_in, self.node_out = {}, {}, {}, {}
        for link in range(topology.links):
            a, b = int(topology.link_source[link]), int(topology.link_target[link])
            self.link_out[link] = (a, len(self.outputs[a]))
            self.outputs[a].append(Output(router.buffer_flits, self.vcs, int(topology.link_latency_cycles[link]), None))
        for link in sorted(range(topology.links), key=lambda n: self.input_rank(topology, n)):
            b = int(topology.link_target[link])
            self.link_in[link] = (b, len(self.inputs[b]))
            self.inputs[b].append(Input(self.vcs))
        self.sources = []
        for node in range(topology.nodes):
            r = int(topology.node_router[node])
            self.node_out[node] = (r, len(self.outputs[r]))
            self.outputs[r].append(Output(router.buffer_flits, self.vcs, 1, ("node", node)))
            self.node_in[node] = (r, len(self.inputs[r]))
            self.inputs[r].append(Input(self.vcs))
            self.sources.append(Output(router.buffer_flits, self.vcs, 1, ("input", *self.node_in[node])))
            self.inputs[r][-1].feeder = ("source", node)
        for link in range(topology.links):
            a, o = self.link_out[link]
            b, i = self.link_in[link]
            self.outputs[a][o].feeds = ("input", b, i)
            self.inputs[b][i].feeder = ("output", a, o, int(topology.link_latency_cycles[link]))
        self.arriving, self.credits = defaultdict(list), defaultdict(list)
        self.now = 0
        self.delivered = []  # (cycle, node, packet, flit)

    @staticmethod
    def input_rank(topology, link):
        """Inputs of a grid's router: axis by axis, from the higher neighbour first."""
        place = topology.grid.coordinates
        step = place[topology.link_target[link]] - place[topology.link_source[link]]
        axis = int(abs(step).argmax())
        return (axis, int(step[axis]))

    def tree(self, router, goals):
        """Branches (output, tree behind it, node if that is the end) of a multicast: own nodes, then links."""
        homes = {goal: int(self.t.node_router[goal]) for goal in goals}
        branches = [(self.node_out[goal][1], None, goal) for goal in goals if homes[goal] == router]
        for link in sorted({int(self.table[router, home]) for home in homes.values() if home != router}):
            behind = [g for g in goals if homes[g] != router and int(self.table[router, homes[g]]) == link]
            branches.append((self.link_out[link][1], self.tree(int(self.t.link_target[link]), behind), None))
        return branches

    def run(self, queues, release):
        """`queues[node]` holds (flow, destination or list of them, flits) in order; `release[flow]` the first cycle."""
        packets, current = 0, [None] * self.t.nodes
        last_vc = [-1] * self.t.nodes
        waiting = sum(len(q) for q in queues)
        flying = 0
        started, finished = {}, {}
        while waiting or flying:
            now = self.now
            for where, vc in self.credits.pop(now, []):
                where.used[vc] -= 1
                assert where.used[vc] >= 0
            for target, vc, flit in self.arriving.pop(now, []):
                if target[0] == "node":
                    node = target[1]
                    assert flit["goal"] == node
                    self.delivered.append((now, node, flit["packet"], flit["number"]))
                    r, o = self.node_out[node]
                    self.credits[now + 2 + self.p.credit_delay].append((self.outputs[r][o], vc))
                    if flit["tail"]:
                        flying -= 1
                        finished[flit["flow"]] = now
                    continue
                port = self.inputs[target[1]][target[2]]
                port.queue[vc].append(flit)
                if len(port.queue[vc]) == 1 and port.status[vc] == "idle":
                    self.enter(port, vc, now)
            for node in range(self.t.nodes):
                if current[node] is None and queues[node] and release[queues[node][0][0]] <= now:
                    flow, goal, flits = queues[node].popleft()
                    started.setdefault(flow, now)
                    current[node] = [packets, flow, goal, flits, 0, None]
                    packets += 1
                    waiting -= 1
                    flying += len(goal) if isinstance(goal, list) else 1
                if current[node] is None:
                    continue
                packet, flow, goal, flits, sent, vc = current[node]
                source = self.sources[node]
                if vc is None:
                    for step in range(1, self.vcs + 1):
                        tried = (last_vc[node] + step) % self.vcs
                        if source.owner[tried] is None and source.used[tried] < source.slots:
                            vc = tried
                            break
                    if vc is None:
                        continue
                    current[node][5] = last_vc[node] = vc
                    source.owner[vc] = packet
                elif source.used[vc] >= source.slots:
                    continue
                tree = self.tree(int(self.t.node_router[node]), goal) if isinstance(goal, list) else None
                flit = {
                    "packet": packet,
                    "flow": flow,
                    "goal": goal,
                    "number": sent,
                    "head": sent == 0,
                    "tail": sent == flits - 1,
                    "tree": tree,
                }
                source.used[vc] += 1
                self.arriving[now + 2].append((source.feeds, vc, flit))
                current[node][4] += 1
                if flit["tail"]:
                    source.owner[vc] = None
                    current[node] = None
            for router in range(self.t.routers):
                self.step(router, now)
            self.now += 1
            assert self.now < 100000, "deadlock"
        return started, finished

    def enter(self, port, vc, now):
        port.status[vc] = "routing"
        port.ready[vc] = now + self.p.routing_delay - 1

    def step(self, router, now):
        inputs, outputs = self.inputs[router], self.outputs[router]
        slots_in, slots_out = len(inputs) * self.vcs, len(outputs) * self.vcs
        # What stands at the beginning of the step.
        asking = [(i, v) for i, p in enumerate(inputs) for v in range(self.vcs) if p.status[v] == "vc"]
        wanting = [
            (i, v)
            for i, p in enumerate(inputs)
            for v in range(self.vcs)
            if p.status[v] == "active"
            and len(p.queue[v]) > p.sent[v]
            and outputs[p.target[v][0]].used[p.target[v][1]] < outputs[p.target[v][0]].slots
        ]
        # Virtual channels: outputs grant, inputs accept.
        grants = defaultdict(list)
        for o, out in enumerate(outputs):
            for w in range(self.vcs):
                if out.owner[w] is None:
                    asked = [i * self.vcs + v for i, v in asking if inputs[i].route[v] == o]
                    if asked:
                        chosen = min(asked, key=lambda k: (k - out.vc_grant_pointer[w]) % slots_in)
                        grants[chosen].append(o * self.vcs + w)
        taken = []
        for k, offers in grants.items():
            port, v = inputs[k // self.vcs], k % self.vcs
            best = min(offers, key=lambda q: (q - port.vc_accept_pointer[v]) % slots_out)
            outputs[best // self.vcs].vc_grant_pointer[best % self.vcs] = (k + 1) % slots_in
            port.vc_accept_pointer[v] = (best + 1) % slots_out
            taken.append((port, v, best))
        for port, v, best in taken:
            port.status[v] = "active"
            port.target[v] = (best // self.vcs, best % self.vcs)
            outputs[best // self.vcs].owner[best % self.vcs] = (port, v)
        # Routing, for those that entered before or in this cycle.
        for port in inputs:
            for v in range(self.vcs):
                if port.status[v] == "routing" and port.ready[v] <= now:
                    flit = port.queue[v][0]
                    if not hasattr(port, "route"):
                        port.route = [0] * self.vcs
                    if flit["tree"] is not None:
                        port.route[v] = flit["tree"][port.branch[v]][0]
                    else:
                        home = int(self.t.node_router[flit["goal"]])
                        link = -1 if home == router else int(self.table[router, home])
                        port.route[v] = self.node_out[flit["goal"]][1] if link < 0 else self.link_out[link][1]
                    port.status[v] = "vc"
        # Switch.
        asks = {}
        for i, v in wanting:
            o = inputs[i].target[v][0]
            rank = (v - inputs[i].offset) % self.vcs
            if (i, o) not in asks or rank < asks[i, o][0]:
                asks[i, o] = (rank, v)
        granted = {}
        for o, out in enumerate(outputs):
            asked = [i for (i, q) in asks if q == o]
            if asked:
                granted[o] = min(asked, key=lambda i: (i - out.grant_pointer) % len(inputs))
        for i, port in enumerate(inputs):
            offers = [o for o, winner in granted.items() if winner == i]
            if not offers:
                continue
            o = min(offers, key=lambda q: (q - port.accept_pointer) % len(outputs))
            v = asks[i, o][1]
            outputs[o].grant_pointer = (i + 1) % len(inputs)
            port.accept_pointer = (o + 1) % len(outputs)
            port.offset = (v + 1) % self.vcs
            self.send(router, i, v, now)

    def send(self, router, i, v, now):
        port = self.inputs[router][i]
        o, w = port.target[v]
        out = self.outputs[router][o]
        flit = port.queue[v][port.sent[v]]
        tree = flit["tree"]
        stays = tree is not None and port.branch[v] + 1 < len(tree)
        if stays:
            port.sent[v] += 1
        else:
            port.queue[v].popleft()
        if tree is not None:
            _, behind, node = tree[port.branch[v]]
            flit = {**flit, "tree": behind, "goal": node}
        out.used[w] += 1
        assert out.used[w] <= out.slots
        out.flits += 1
        self.arriving[now + self.p.crossbar_delay + out.delay + 1].append((out.feeds, w, flit))
        if stays:
            pass
        elif port.feeder[0] == "source":
            self.credits[now + 2].append((self.sources[port.feeder[1]], v))
        else:
            _, a, b, latency = port.feeder
            self.credits[now + latency + 1 + self.p.credit_delay].append((self.outputs[a][b], v))
        if flit["tail"]:
            out.owner[w] = None
            port.status[v] = "idle"
            port.sent[v] = 0
            port.branch[v] = port.branch[v] + 1 if stays else 0
            if port.queue[v]:
                self.enter(port, v, now + 1)
