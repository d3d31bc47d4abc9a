"""The studio's server: the built pages, what was opened, and jobs.  Starlette and uvicorn, on this machine only."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import webbrowser
from asyncio import to_thread
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tierform.errors import MissingDependency, TierformError, fail
from tierform.studio.content import Opened, pages, problem_content
from tierform.studio.export import _plain, asset
from tierform.studio.guard import App, Guard
from tierform.studio.jobs import JobQueue, StudioJob
from tierform.studio.runs import Content, timeline_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

# The files that are sent, with their types; no other path is looked up anywhere.
FILES = {
    "page.html": "text/html; charset=utf-8",
    "pages.css": "text/css; charset=utf-8",
    "pages.js": "text/javascript; charset=utf-8",
    "more.js": "text/javascript; charset=utf-8",
    "stack.js": "text/javascript; charset=utf-8",
    "series.js": "text/javascript; charset=utf-8",
    "inter.woff2": "font/woff2",
}
KINDS = (
    *("simulate", "limits", "run", "open", "influence", "constants", "chip", "trace", "timeline"),
    *("ledger", "fit", "serve", "design", "design_chip"),
)
GIVEN = ("kind", "job", "vary", "serve", "fit", "point", "chips", "content", "name")  # what a task may bring
# What takes long has a process of its own, so that a move need not wait, and more time.
LONG = ("influence", "limits", "serve", "fit", "trace", "timeline", "ledger")
LONGER = 5.0
EVENTS = "text/event-stream"


def make_app(opened: Opened, paths: Sequence[Path], *, port: int, token: str, limit_s: float = 120.0) -> App:
    """The application; `paths` are the files and folders that it was opened with."""
    try:
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse, Response, StreamingResponse
        from starlette.routing import Route
    except ImportError:
        raise MissingDependency("starlette", "the studio", "studio") from None
    roots = tuple(str((path if path.is_dir() else path.parent).resolve()) for path in paths)
    queues = {"answers": JobQueue(roots, limit_s), "long": JobQueue(roots, LONGER * limit_s, behind=True)}
    content = json.dumps(_plain(pages(opened, exported=False)), separators=(",", ":")).encode()

    @contextlib.asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        for queue in queues.values():
            queue.start()
        try:
            yield
        finally:
            for queue in queues.values():
                await queue.close()

    def found(request: Request) -> tuple[JobQueue, StudioJob] | None:
        name = request.path_params["id"]
        return next(((queue, job) for queue in queues.values() if (job := queue.find(name))), None)

    def refused(status: int, message: str) -> Response:
        return JSONResponse({"problems": [{"message": message}]}, status)

    async def page(_: Request) -> Response:
        return Response(asset("page.html"), media_type=FILES["page.html"])

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            return refused(404, "no such page")
        return Response(asset(name), media_type=FILES[name])

    async def opened_content(_: Request) -> Response:
        return Response(content, media_type="application/json")

    def study_file(name: object) -> Path | None:
        known = {str(number): file for number, file in enumerate(opened.study_files)}
        return known.get(str(name))

    async def study(request: Request) -> Response:
        name = request.path_params["id"]
        file = study_file(name)
        if file is None:
            return refused(404, "no such study")
        from tierform.studio.explored import open_file

        try:
            # The file is read again: a study that another process works on has new points.
            made = await to_thread(open_file, file, int(name), named=file.name)
        except TierformError as error:
            return JSONResponse({"problems": [problem_content(one) for one in error.problems]}, 400)
        return Response(json.dumps(_plain(made), separators=(",", ":")), media_type="application/json")

    async def timeline(request: Request) -> Response:
        name = request.path_params["id"]
        kept = next((timeline_of(run) for run in opened.runs if run["id"] == name), None)
        if kept is None:
            return refused(404, "no such run, or it has no timeline")
        return Response(json.dumps(_plain(kept), separators=(",", ":")), media_type="application/json")

    async def names(_: Request) -> Response:
        from tierform import library
        from tierform.workload.formats import EXAMPLES
        from tierform.workload.precision import PRECISIONS

        shelves = {shelf: list(library.names(shelf)) for shelf in ("models", "chips", "runtimes")}
        return JSONResponse({**shelves, "formats": [*PRECISIONS, *EXAMPLES]})

    async def add(request: Request) -> Response:
        try:
            task: Any = json.loads(await request.body())
        except (ValueError, RecursionError):
            return refused(400, "the body is no JSON")
        if not isinstance(task, dict) or task.get("kind") not in KINDS:
            return refused(400, f"a task needs its kind: {', '.join(KINDS)}")
        asked = {key: task[key] for key in GIVEN if key in task}
        if task["kind"] in ("design", "design_chip"):
            file, point = study_file(task.get("study")), task.get("point")
            if file is None or isinstance(point, bool) or not isinstance(point, int):
                return refused(400, "a design needs a study that is open and the number of its point")
            asked["file"] = str(file)
        queue = queues["long" if task["kind"] in LONG else "answers"]
        job = queue.add(asked)
        if job is None:
            return refused(429, "too many jobs wait already")
        if EVENTS in request.headers.get("accept", ""):
            return following(queue, job, 202)
        return JSONResponse({"id": job.id}, 202)

    def following(queue: JobQueue, job: StudioJob, status: int = 200) -> Response:
        async def told() -> AsyncIterator[str]:
            async for event in queue.events(job):
                kind = event["event"]
                yield f"event: {kind}\ndata: {json.dumps(_plain(event), separators=(',', ':'))}\n\n"

        return StreamingResponse(told(), status, media_type=EVENTS)

    async def events(request: Request) -> Response:
        known = found(request)
        return refused(404, "no such job") if known is None else following(*known)

    async def stop(request: Request) -> Response:
        known = found(request)
        if known is None:
            return refused(404, "no such job")
        known[0].stop(known[1])
        return Response(status_code=204)

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/api/content", opened_content),
            Route("/api/library", names),
            Route("/api/studies/{id}", study),
            Route("/api/runs/{id}/timeline", timeline),
            Route("/api/jobs", add, methods=["POST"]),
            Route("/api/jobs/{id}/events", events),
            Route("/api/jobs/{id}", stop, methods=["DELETE"]),
            Route("/{name}", file),
        ],
        lifespan=life,
    )
    return Guard(app, port=port, token=token)


def listening(port: int) -> socket.socket:
    """A socket on 127.0.0.1; TierformError where the port is taken."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(("127.0.0.1", port))
    except OSError as error:
        opened.close()
        fail(
            f"cannot listen there: {error.strerror}", key="--port", value=port, fix="Leave it out: a free one is taken."
        )
    return opened


def serve(opened: Opened, paths: Sequence[Path], *, port: int = 0, browser: bool = True) -> None:
    """Serve until interrupted; prints the address."""
    try:
        import uvicorn
    except ImportError:
        raise MissingDependency("uvicorn", "the studio", "studio") from None
    asset("page.html")
    socket_ = listening(port)
    port = socket_.getsockname()[1]
    token = secrets.token_urlsafe(32)
    address = f"http://127.0.0.1:{port}/#{token}"
    app = make_app(opened, paths, port=port, token=token)
    print(f"studio: {address}", flush=True)
    print("Only this machine reaches it.  From another one: ssh -L", f"{port}:127.0.0.1:{port} HOST.  Ctrl-C ends it.")
    if browser:
        webbrowser.open(address)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[socket_])


__all__ = ["Content", "make_app", "serve"]
