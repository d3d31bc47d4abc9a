"""A search for the highest load, followed: what every load that was tried gave, and the run at the best one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from tierform.report.service_view import Plain, load_content, load_point
from tierform.serving.find import Load
from tierform.serving.requests import Requests
from tierform.serving.service import Service


class LoadSearch:
    """Wrap what serves requests (:meth:`follow`), search, then take the :meth:`content` of the file."""

    def __init__(self, requests: Requests, within: float) -> None:
        self._requests, self._within = requests, within
        self._points: list[tuple[float, dict[str, Plain]]] = []
        self._best: tuple[float, Service] | None = None

    def follow(
        self, run: Callable[[Requests], Service], told: Callable[[int, float], None] | None = None
    ) -> Callable[[Requests], Service]:
        """The same call, with every load kept; `told` gets how many were tried and the rate of the last one."""

        def followed(some: Requests) -> Service:
            made = run(some)
            offered = len(some) / some.seconds if some.seconds else 0.0
            factor = self._requests.seconds / some.seconds if some.seconds else 1.0
            self._points.append((offered, load_point(made, factor, offered)))
            if float(made.good.mean()) >= self._within and (self._best is None or offered > self._best[0]):
                self._best = (offered, made)
            if told is not None:
                told(len(self._points), offered)
            return made

        return followed

    def content(self, found: Load | None) -> dict[str, Plain]:
        """The content of the file, with what the search found."""
        points = [point for _, point in sorted(self._points, key=lambda one: one[0])]
        best = None if self._best is None else self._best[1]
        return load_content(best, None if found is None else asdict(found), self._within, points)
