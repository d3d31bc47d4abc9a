"""One study on the workers of a Ray cluster: this process leases points and writes results, the workers evaluate.

Workers need no file of the study: the space goes to each of them once, points and outcomes in batches, so that what a
point costs beside its evaluation stays small.  Each worker has two batches, one at work and one that waits.  A worker
that is lost gives its points back, and another one takes its place.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tierform.errors import fail
from tierform.exploration.draining import never
from tierform.exploration.evaluator import Evaluator, Outcome
from tierform.exploration.evaluators import evaluator_of
from tierform.exploration.space import Space, Values

if TYPE_CHECKING:
    from tierform.exploration.study import Study

LOCAL = "ray"  # a cluster on this machine, or the one that this process is in
# A batch takes about so long, and is never larger than this.
BATCH_S, LARGEST_BATCH = 0.5, 256
MOST_LOST = 8


class _Worker:
    """What runs in a worker's process."""

    def __init__(self, space: Space, evaluator: Evaluator | None) -> None:
        self._evaluator = evaluator or evaluator_of(space)

    def join(self) -> None:
        """Answered once the worker is there."""

    def evaluate(self, points: list[Values]) -> tuple[list[Outcome], float]:
        """The outcomes of points, and the seconds that they took."""
        begin = time.perf_counter()
        return self._evaluator(points), time.perf_counter() - begin


def parse_workers(text: str) -> tuple[int, str]:
    """Number of workers (0: as many as the cluster has processors) and the cluster's address, empty without one.

    ``4`` are processes here; ``ray`` and ``ray:4`` a cluster on this machine, ``ray://host:10001`` one elsewhere.
    """
    if text.isdigit() and int(text) > 0:
        return int(text), ""
    head, _, number = text.partition(":")
    if head == LOCAL and text.startswith("ray://") and len(number) > len("//"):
        return 0, text
    if head == LOCAL and (text == LOCAL or (number.isdigit() and int(number) > 0)):
        return int(number or 0), LOCAL
    return fail(
        "not a number of workers or a cluster",
        key="workers",
        value=text,
        fix="Write 4, ray, ray:4 or ray://host:port.",
    )


def run_on_ray(
    study: Study,
    number: int,
    address: str,
    evaluator: Evaluator | None = None,
    progress: Callable[[Study], None] | None = None,
    stop: Callable[[], bool] = never,
) -> None:
    """Work on a study until it has nothing more to do, with `number` workers (0: one a processor) of a cluster."""
    try:
        ray: Any = import_module("ray")
    except ImportError:
        fail("Ray is not installed", key="workers", value=address, fix="pip install 'tierform[cluster]'")
    began = not ray.is_initialized()
    if began:
        where: dict[str, Any] = {"num_cpus": number or None} if address == LOCAL else {"address": address}
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **where)
    try:
        count = number or max(1, int(ray.cluster_resources().get("CPU", 1)))
        _Loop(study, ray, count, evaluator, progress, stop).run()
    finally:
        if began:
            ray.shutdown()


class _Loop:
    """Leased batches and the workers that have them."""

    def __init__(
        self,
        study: Study,
        ray: Any,
        count: int,
        evaluator: Evaluator | None,
        progress: Callable[[Study], None] | None,
        stop: Callable[[], bool],
    ) -> None:
        self._study, self._ray, self._progress, self._stop = study, ray, progress, stop
        space, given = ray.put(study.space), ray.put(evaluator)
        kind = ray.remote(num_cpus=1)(_Worker)
        self._make: Callable[[], Any] = lambda: kind.remote(space, given)
        self._workers: list[Any] = []
        self._joining: dict[Any, Any] = {}
        for _ in range(count):
            self._start()
        self._busy: dict[Any, tuple[Any, list[tuple[int, Values]]]] = {}
        self._batch, self._lost = 1, 0

    def run(self) -> None:
        try:
            while self._goes_on():
                if not self._busy and not self._joining:
                    continue
                done, _ = self._ray.wait([*self._busy, *self._joining], num_returns=1, timeout=1.0)
                for reference in done:
                    if reference in self._joining:
                        self._workers.append(self._joining.pop(reference))
                    else:
                        self._take(reference)
        finally:
            self._study.base.give_back([index for _, leased in self._busy.values() for index, _ in leased])

    def _goes_on(self) -> bool:
        """Hand out points, unless the end was asked for: then those that are out are waited for."""
        if self._stop():
            return bool(self._busy)
        return self._hand_out() or bool(self._busy) or self._study.more()

    def _start(self) -> None:
        """A new worker, which is given points once it answers: starting takes seconds."""
        worker = self._make()
        self._joining[worker.join.remote()] = worker

    def _hand_out(self) -> bool:
        """Give every worker that has less than two batches another; whether any was given."""
        given = False
        for round_of in (1, 2):
            for worker in self._workers:
                if sum(at is worker for at, _ in self._busy.values()) >= round_of:
                    continue
                leased = self._study.base.lease(self._share())
                if not leased:
                    return given
                self._busy[worker.evaluate.remote([point for _, point in leased])] = worker, leased
                given = True
        return given

    def _share(self) -> int:
        """A batch, or less where few points wait: every worker is to have some."""
        waiting = self._study.base.counts()[0]
        return max(1, min(self._batch, -(-waiting // max(len(self._workers), 1))))

    def _take(self, reference: Any) -> None:
        worker, leased = self._busy.pop(reference)
        try:
            outcomes, seconds = self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            self._study.base.give_back([index for index, _ in leased])
            if worker in self._workers:
                self._lost += 1
                if self._lost > MOST_LOST:
                    fail("workers of the cluster are lost again and again", key="workers", value=self._lost)
                self._workers.remove(worker)
                self._start()
            return
        except BaseException:
            self._study.base.give_back([index for index, _ in leased])
            raise
        told = zip(leased, outcomes, strict=True)
        self._study.base.give([(index, out, self._study.objectives(out)) for (index, _), out in told])
        each = max(seconds, 1e-6) / len(leased)
        self._batch = max(1, min(LARGEST_BATCH, round(BATCH_S / each), 4 * self._batch))
        if self._progress is not None:
            self._progress(self._study)
