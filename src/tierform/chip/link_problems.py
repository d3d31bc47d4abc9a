"""What can be wrong with the links of a chip file: keys in the wrong place, tiles that are not there, no way."""

from __future__ import annotations

from collections.abc import Iterable

from tierform.chip.chip_file import VERTICAL_VIA, ChipFile, NetworkFile, ViaFile
from tierform.chip.laws import laws
from tierform.chip.links import (
    first_tiles,
    interposer_pairs,
    is_plain,
    pillars,
    planar_pairs,
    possible_shortcuts,
    vertical_pairs,
)
from tierform.errors import Problem, nearest
from tierform.files import Document, key_steps

_OWN = {"span": "express", "shortcuts": "small-world", "list": "list"}


def link_problems(chip: ChipFile, document: Document) -> list[Problem]:
    """What is wrong with the links and the routing of the network."""
    if chip.network is None:
        return []
    found = _Found(chip, chip.network, document)
    found.routing()
    found.keys()
    if not found.problems:
        found.places()
    if not found.problems and not is_plain(chip.network):
        found.ways()
    return found.problems


class _Found:
    """Problems of one network, with their places in the file."""

    def __init__(self, chip: ChipFile, network: NetworkFile, document: Document) -> None:
        self.chip, self.network, self.document = chip, network, document
        self.dies, self.links = chip.package.dies, network.links
        self.first = first_tiles(self.dies)
        self.problems: list[Problem] = []

    def add(self, what: str, key: str, value: object = None, close: str | None = None, fix: str | None = None) -> None:
        steps = key_steps(key)
        line = next((n for end in range(len(steps), 0, -1) if (n := self.document.line_of(steps[:end]))), None)
        self.problems.append(
            Problem(what, file=self.document.file, line=line, key=key, value=value, nearest=close, fix=fix)
        )

    def routing(self) -> None:
        name = self.network.routing
        if name == "default":
            return
        from tierform.network import ROUTINGS

        known = [*ROUTINGS]
        if name not in known:
            fix = f"Known: {', '.join(known)}."
            self.add("unknown routing", "network.routing", name, nearest(name, known), fix)
        elif (name == "given") != (self.links.routes is not None):
            fix = "Leave 'routing' out where 'links.routes' are given, and 'given' where they are not."
            self.add("'given' and 'links.routes' belong together", "network.routing", name, None, fix)

    def keys(self) -> None:
        for key, kind in _OWN.items():
            given = getattr(self.links, key) is not None
            if given and kind != self.links.kind:
                fix = f"Take it away, or write kind: {kind}."
                self.add(f"only {kind} links have this key", f"network.links.{key}", None, None, fix)
            elif not given and kind == self.links.kind:
                self.add("this key is missing", f"network.links.{key}")
        for key in ("exponent", "seed"):
            if key in self.links.model_fields_set and self.links.kind != "small-world":
                self.add("only small-world links have this key", f"network.links.{key}")
        if self.links.classes is not None and self.links.routes is None:
            self.add("classes belong to routes", "network.links.classes", fix="Give 'links.routes', or take it away.")
        if self.network.interposer is not None and self.network.interposer.via is not None:
            self.add("only vertical links have vias", "network.interposer.via", fix="Take it away.")
        if self.network.vertical is not None and self.network.vertical.driver is not None:
            self.add("only interposer links have drivers", "network.vertical.driver", fix="Take it away.")
        if self.network.vertical is not None and self.network.vertical.via is not None:
            self.via(self.network.vertical.via)
        for key in ("vertical", "interposer"):
            spec = getattr(self.network, key)
            if spec is not None and spec.at is not None and "every" in spec.model_fields_set:
                self.add("'at' names the links that 'every' would choose", f"network.{key}.every", spec.every)

    def via(self, via: ViaFile) -> None:
        """Vias that would touch."""
        known = laws().tsv.given.get(self.network.parameters.get("vertical", VERTICAL_VIA))
        if known is None:  # told as a choice that the library does not have
            return
        diameter, liner, pitch = via.diameter or known.diameter, via.liner or known.liner, via.pitch or known.pitch
        least = diameter.value + 2 * liner.value
        if pitch.value < least:
            shown = f"{pitch.value * 1e6:.4g} um"
            self.add(
                "vias of this pitch touch", "network.vertical.via.pitch", shown, fix=f"At least {least * 1e6:.4g} um."
            )

    def places(self) -> None:
        links, vertical, interposer = self.links, self.network.vertical, self.network.interposer
        if links.kind == "small-world" and links.shortcuts is not None:
            most = min((possible_shortcuts(die.grid) for die in self.dies), default=0)
            if links.shortcuts > most:
                self.add(f"at most {most} shortcuts fit on each die", "network.links.shortcuts", links.shortcuts)
        if links.kind == "express" and links.span is not None:
            most = max(max(die.grid) for die in self.dies) - 1
            if links.span > most:
                self.add(f"no row or column has more than {most + 1} tiles", "network.links.span", links.span)
        if links.list is not None:
            self.pairs(links.list, "network.links.list", one_die=True)
        if vertical is not None and vertical.at is not None and self.chip.package.kind == "3d":
            self.pillars(vertical.at)
        if interposer is not None and interposer.at is not None and self.chip.package.kind == "2.5d":
            self.pairs(interposer.at, "network.interposer.at", one_die=False)

    def pillars(self, at: tuple[tuple[int, ...], ...]) -> None:
        (columns, rows), tiers, before = self.dies[0].grid, len(self.dies), len(self.problems)
        for index, place in enumerate(at):
            if place[0] >= columns or place[1] >= rows:
                what = f"tiers have {columns} columns and {rows} rows"
                self.add(what, f"network.vertical.at.{index}", list(place))
            elif len(place) == 3 and place[2] >= tiers - 1:
                what = f"the last tier below another one is {tiers - 2}, the first is 0"
                self.add(what, f"network.vertical.at.{index}", list(place))
        if len(self.problems) > before:
            return
        found = pillars((columns, rows, tiers), at, 1)
        lone = sorted(set(range(tiers - 1)) - {tier for _, _, tier in found})
        if len(set(found)) < len(found):
            self.add("each place once", "network.vertical.at")
        elif lone:
            names = self.dies[lone[0]].name, self.dies[lone[0] + 1].name
            self.add(f"no vertical link joins {names[0]!r} and {names[1]!r}", "network.vertical.at")

    def die_of(self, tile: int) -> int:
        return next(index for index in range(len(self.dies)) if tile < self.first[index + 1])

    def pairs(self, pairs: Iterable[tuple[int, int]], key: str, *, one_die: bool) -> None:
        seen: set[tuple[int, int]] = set()
        for index, (a, b) in enumerate(pairs):
            at = f"{key}.{index}"
            ends = (min(a, b), max(a, b))
            if ends[1] >= self.first[-1]:
                self.add(f"tiles are numbered 0 to {self.first[-1] - 1}", at, [a, b])
            elif a == b:
                self.add("a link joins two tiles", at, [a, b])
            elif ends in seen:
                self.add("these tiles are joined already; each link goes both ways", at, [a, b])
            elif (self.die_of(a) == self.die_of(b)) != one_die:
                fix = (
                    "Links between dies are 'vertical.at' or 'interposer.at'." if one_die else "Write it in links.list."
                )
                self.add(f"these tiles are {'not on one die' if one_die else 'on one die'}", at, [a, b], None, fix)
            seen.add(ends)

    def ways(self) -> None:
        """Whether every tile is reached, and whether given routes take links that there are and arrive."""
        pairs = planar_pairs(self.dies, self.links)
        if self.chip.package.kind == "3d":
            pairs += vertical_pairs(self.dies, self.network)
        if self.chip.package.kind == "2.5d":
            pairs += interposer_pairs(self.dies, self.network)
        count = self.first[-1]
        joined: list[set[int]] = [set() for _ in range(count)]
        for a, b in pairs:
            joined[a].add(b)
            joined[b].add(a)
        reached, wave = {0}, [0]
        while wave:
            wave = [tile for tile in {other for here in wave for other in joined[here]} if tile not in reached]
            reached |= set(wave)
        if len(reached) < count:
            lost = min(set(range(count)) - reached)
            self.add(f"no link leads to tile {lost}", f"network.links.{'list' if self.links.list else 'kind'}")
        elif self.links.routes is not None:
            self.routes(self.links.routes, joined)
            if self.links.classes is not None:
                self.classes(self.links.classes)

    def classes(self, classes: tuple[tuple[int, ...], ...]) -> None:
        count, key = self.first[-1], "network.links.classes"
        if len(classes) != count or any(len(row) != count for row in classes):
            self.add(f"a row for each of {count} tiles is needed, with the class to each", key)
            return
        for here, row in enumerate(classes):
            for goal, kind in enumerate(row):
                if kind >= self.network.virtual_channels:
                    most = self.network.virtual_channels - 1
                    fix = f"At most {most}, or raise 'network.virtual_channels'."
                    self.add("no virtual channel is left for this class", f"{key}.{here}.{goal}", kind, None, fix)
                    return

    def routes(self, routes: tuple[tuple[int, ...], ...], joined: list[set[int]]) -> None:
        count, key = self.first[-1], "network.links.routes"
        if len(routes) != count or any(len(row) != count for row in routes):
            self.add(f"a row for each of {count} tiles is needed, with the next tile to each", key)
            return
        for here, row in enumerate(routes):
            for goal, step in enumerate(row):
                if step != here and step not in joined[here]:
                    self.add(f"no link leads from tile {here} to the next tile", f"{key}.{here}.{goal}", step)
                    return
                if (step == here) != (goal == here):
                    self.add("only a tile's own column names itself", f"{key}.{here}.{goal}", step)
                    return
        for goal in range(count):
            arrives = {goal}
            for here in range(count):
                way = [here]
                while way[-1] not in arrives and len(way) <= count:
                    way.append(routes[way[-1]][goal])
                if way[-1] not in arrives:
                    self.add(f"this way to tile {goal} goes round in a circle", f"{key}.{here}.{goal}")
                    return
                arrives.update(way)
