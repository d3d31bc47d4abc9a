"""Jobs of the studio: a short queue before one worker process; "Stop" and a time limit end the process itself."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from tierform.studio.worker import work

MOST_WAITING = 8
LIMIT_S = 120.0
KEPT = 64  # finished jobs whose answers can still be read
Content = dict[str, Any]


@dataclass(slots=True, eq=False)
class StudioJob:
    """One task, what it has told so far, and whether it is over."""

    task: Content
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    events: list[Content] = field(default_factory=list)
    over: bool = False
    stopped: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, event: Content) -> None:
        """Add an event; whoever reads is woken."""
        self.events.append(event)
        self.over = self.over or event["event"] in ("end", "problem", "stopped")
        self.news.set()


class JobQueue:
    """Runs tasks one after the other in a process that is started anew only where it had to be ended."""

    def __init__(self, roots: tuple[str, ...], limit_s: float = LIMIT_S, *, behind: bool = False) -> None:
        self._roots = roots
        self._limit_s = limit_s
        self._behind = behind  # whether the process gives way to others
        self._jobs: dict[str, StudioJob] = {}
        self._waiting: asyncio.Queue[StudioJob] = asyncio.Queue()
        self._running: StudioJob | None = None
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._runner: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the worker and what feeds it."""
        self._spawn()
        self._runner = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End everything."""
        if self._runner:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner
        self._end()

    def add(self, task: Content) -> StudioJob | None:
        """The job of a task; None where too many wait already."""
        if sum(not job.over for job in self._jobs.values()) > MOST_WAITING:
            return None
        job = StudioJob(task)
        for old in [known for known in self._jobs.values() if known.over][:-KEPT]:
            del self._jobs[old.id]
        self._jobs[job.id] = job
        job.tell({"event": "queued", "id": job.id})
        self._waiting.put_nowait(job)
        return job

    def find(self, name: str) -> StudioJob | None:
        """A job by its id."""
        return self._jobs.get(name)

    def stop(self, job: StudioJob) -> None:
        """Stop a job that waits or runs."""
        if job.over:
            return
        job.stopped = True
        if job is self._running:
            self._end()  # its reader then sees the pipe closed
        else:
            job.tell({"event": "stopped"})

    async def events(self, job: StudioJob) -> AsyncIterator[Content]:
        """What the job tells, from its beginning to its end."""
        told = 0
        while True:
            while told < len(job.events):
                yield job.events[told]
                told += 1
            if job.over:
                return
            job.news.clear()
            await job.news.wait()

    async def _run(self) -> None:
        while True:
            job = await self._waiting.get()
            if job.over:
                continue
            self._running = job
            try:
                await self._one(job)
            finally:
                self._running = None

    async def _one(self, job: StudioJob) -> None:
        if self._process is None or not self._process.is_alive():
            self._spawn()
        pipe = self._pipe
        assert pipe is not None
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limit_s
        try:
            pipe.send(job.task)
            while not job.over:
                ready = await asyncio.to_thread(pipe.poll, 0.5)
                if ready:
                    job.tell(pipe.recv())
                elif loop.time() > end:
                    self._end()
                    job.tell(_problem(f"the job took longer than {self._limit_s:g} s and was stopped"))
        except (EOFError, OSError, ValueError):
            self._end()
            what = (
                {"event": "stopped"}
                if job.stopped
                else _problem("the process of the job ended; its memory may not suffice")
            )
            job.tell(what)

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        given = (theirs, self._roots, self._behind)
        self._process = context.Process(target=work, args=given, daemon=True, name="tierform-studio")
        self._process.start()
        theirs.close()

    def _end(self) -> None:
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if process is not None:
            process.kill()
            process.join(5)
        if pipe is not None:
            pipe.close()


def _problem(message: str) -> Content:
    return {"event": "problem", "problems": [{"message": message}]}
