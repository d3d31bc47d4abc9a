"""The process that runs jobs for the studio: one at a time, each asked for and answered over a pipe.

It is a process of its own so that "Stop" ends a job for certain, and so that a job that takes all memory takes nothing
of the server with it.  What it needs once (libraries, a model's workload, costs) stays warm between jobs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tierform.errors import Problem, TierformError

Content = dict[str, Any]
Tell = Callable[[Content], None]
_PATHS = ("model", "chip", "runtime", "mapping")


def work(pipe: Connection, roots: tuple[str, ...], behind: bool = False) -> None:
    """Answer tasks until the pipe is closed; `behind` others where the system lets a process say so."""
    if behind and hasattr(os, "nice"):
        os.nice(10)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    _warm()
    while True:
        try:
            task = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            KINDS[task["kind"]](task, pipe.send, roots)
            pipe.send({"event": "end"})
        except TierformError as error:
            pipe.send({"event": "problem", "problems": _told(error.problems)})
        except MemoryError:
            pipe.send({"event": "problem", "problems": _told([Problem("the memory does not suffice")])})
        except Exception as error:  # a fault of ours: the page says so, the server goes on
            what = f"the job ended with a fault of the program ({type(error).__name__}: {error})"
            pipe.send({"event": "problem", "problems": _told([Problem(what)])})


def _warm() -> None:
    """Load what every job needs, before one is asked for."""
    import tierform.simulation.elasticity
    import tierform.simulation.simulate
    import tierform.studio.content  # noqa: F401


def _told(problems: Any) -> list[Content]:
    from tierform.studio.content import problem_content

    return [problem_content(problem) for problem in problems]


# -- jobs ----------------------------------------------------------------------------------------------------------
def _simulate(task: Content, tell: Tell, roots: tuple[str, ...]) -> None:
    """A job as it is asked, with the chip varied; the answer is what a moved value changes."""
    from tierform.studio.runs import moved_content

    tell({"event": "figures", "figures": moved_content(_simulated(task, roots))})


def _limits(task: Content, tell: Tell, roots: tuple[str, ...]) -> None:
    """What limits a job: it takes longer than the job itself, so a page asks when nothing moves any more."""
    tell({"event": "limits", "limits": _simulated(task, roots).view()["limits"]})


_last: list[tuple[Content, Any]] = []  # the task that was simulated last, and its result


def _simulated(task: Content, roots: tuple[str, ...]) -> Any:
    """The result of a task's job; that of the last one is at hand."""
    asked = {key: task.get(key) for key in ("job", "vary")}
    if _last and _last[0][0] == asked:
        return _last[0][1]
    result = _job(task, roots).simulate()
    _last[:] = [(asked, result)]
    return result


def _run(task: Content, tell: Tell, roots: tuple[str, ...]) -> None:
    """A job as a whole run, as if its file had been opened."""
    tell({"event": "result", "run": _added(_simulated(task, roots), live=True)})


def _open(task: Content, tell: Tell, roots: tuple[str, ...]) -> None:
    """The content of a result's file that was dropped on a page."""
    from tierform.simulation.result import SCHEMA, Result

    content, name = task.get("content"), str(task.get("name") or "the file")[:200]
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        fix = "Write one: tierform simulate ... --json run.json"
        raise TierformError([Problem("is no result of a simulation", file=name, fix=fix)])
    tell({"event": "result", "run": _added(Result.from_content(content, name), file=name)})


def _added(result: Any, *, file: str = "", live: bool = False) -> Content:
    """A run that a page adds to those that were opened, with an id of its own."""
    from tierform.studio.runs import run_content

    given = "live" if live else "file"
    return {**run_content(result, 0, file=file, live=live), "id": f"{given}-{result.versions['inputs_sha256'][:12]}"}


def _influence(task: Content, tell: Tell, roots: tuple[str, ...]) -> None:
    """What 1 % more of each constant changes, one by one as they are found."""
    from tierform.simulation.elasticity import each_elasticity
    from tierform.simulation.page_view import influence_view

    job = _job(task, roots)
    paths = [one["constant"] for one in _constants(job) if one["kind"] != "chosen"]
    tell({"event": "progress", "done": 0, "total": len(paths), "text": ""})
    for number, found in enumerate(each_elasticity(job, paths), 1):
        tell({"event": "influence", "found": influence_view([found])})
        tell({"event": "progress", "done": number, "total": len(paths), "text": found.path})


def _listed(task: Content, tell: Tell, roots: tuple[str, ...]) -> None:
    """Every constant of the chip that can be changed."""
    tell({"event": "constants", "constants": _constants(_job(task, roots))})


def _written(task: Content, tell: Tell, roots: tuple[str, ...]) -> None:
    """The varied chip as a file's text."""
    import tempfile

    from tierform.chip.description import Chip

    chip = _job(task, roots).chip
    assert isinstance(chip, Chip)
    with tempfile.TemporaryDirectory(prefix="tierform-") as folder:
        file = Path(folder) / "chip.yaml"
        chip.write(file)
        tell({"event": "text", "name": f"{chip.name}-changed.yaml", "text": file.read_text(encoding="utf-8")})


def _traced(task: Content, tell: Tell, roots: tuple[str, ...]) -> None:
    """The job's timeline as a file for Perfetto, deflated: tens of megabytes become two."""
    import base64
    import re
    import tempfile
    import zlib

    result = _job(task, roots).simulate(timeline=True)
    with tempfile.TemporaryDirectory(prefix="tierform-") as folder:
        file = Path(folder) / "trace.json"
        result.trace(file)
        packed = base64.b64encode(zlib.compress(file.read_bytes(), 6)).decode("ascii")
    name = re.sub(r"[^\w.-]+", "-", f"{result.model}-{result.chip}-trace.json")
    tell({"event": "packed", "name": name, "deflated": packed})


def _timeline(task: Content, tell: Tell, roots: tuple[str, ...]) -> None:
    """The job once more with each step recorded: what its resources do over time, or None where nothing is recorded."""
    tell({"event": "timeline", "timeline": _job(task, roots).simulate(timeline=True).view()["timeline"]})


def _fit(task: Content, tell: Tell, roots: tuple[str, ...]) -> None:
    """Every way to do a task on a number of chips, and how the chips may share it."""
    from tierform.studio.fitted import fit_asked

    asked = task.get("fit", {})
    if not isinstance(asked, dict):
        raise TierformError([Problem("keys with values are needed here", key="fit")])
    fit_asked(_job(task, roots), {"chips": task.get("chips", 1), **asked}, tell)


def _ledger(task: Content, tell: Tell, roots: tuple[str, ...]) -> None:
    """Every engine held against its references, one after the other; one whose library is missing is told."""
    from tierform.errors import MissingDependency
    from tierform.studio.content import engine_content
    from tierform.validation import ENGINES

    names = list(ENGINES.names())
    for number, name in enumerate(names):
        tell({"event": "progress", "done": number, "total": len(names), "text": name})
        try:
            held = ENGINES.get(name)(None)
        except (MissingDependency, ImportError) as error:
            tell({"event": "skipped", "engine": name, "why": " ".join(str(error).split())})
            continue
        tell({"event": "engine", "engine": engine_content(held.to_dict())})


def _serve(task: Content, tell: Tell, roots: tuple[str, ...]) -> None:
    """Requests over time, as the Serving page asks for them."""
    from tierform.studio.served import serve_asked

    asked = task.get("serve")
    if not isinstance(asked, dict):
        raise TierformError([Problem("what to serve is needed here", key="serve")])
    problems = [problem for key in ("model", "chip") if (problem := _outside(key, asked.get(key), roots))]
    if problems:
        raise TierformError(problems)
    serve_asked(asked, tell)


def _design(task: Content, tell: Tell, roots: tuple[str, ...]) -> None:
    """A design of a study as a whole run; the server names the study's file."""
    from tierform.studio.explored import design

    tell({"event": "result", "run": design(Path(task["file"]), int(task["point"]))})


def _design_chip(task: Content, tell: Tell, roots: tuple[str, ...]) -> None:
    """The chip of a design as a file's text."""
    from tierform.studio.explored import design_text

    number = int(task["point"])
    tell({"event": "text", "name": f"{number}-chip.yaml", "text": design_text(Path(task["file"]), number)})


KINDS: dict[str, Callable[[Content, Tell, tuple[str, ...]], None]] = {
    "simulate": _simulate,
    "limits": _limits,
    "run": _run,
    "open": _open,
    "influence": _influence,
    "constants": _listed,
    "chip": _written,
    "trace": _traced,
    "timeline": _timeline,
    "ledger": _ledger,
    "fit": _fit,
    "serve": _serve,
    "design": _design,
    "design_chip": _design_chip,
}


def _constants(job: Any) -> list[Content]:
    from tierform.simulation.elasticity import varied_constants

    found = [
        {
            "constant": path,
            "value": constant.value,
            "unit": constant.unit,
            "kind": constant.kind,
            "source": constant.source,
            "note": constant.note,
        }
        for path, constant in varied_constants(job.chip, heat=job.thermal != "none").items()
    ]
    for name, part in job.chip.origin.parts.items():
        for key in type(part.parameters).model_fields:
            value = getattr(part.parameters, key)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                path = f"components.{name}.{key}"
                one = {"constant": path, "value": value, "unit": "", "kind": "chosen", "source": "", "note": ""}
                found.append({**one, **_law(key)})
    return found


def _law(key: str) -> Content:
    """Within which sizes the law of a part holds that follows this key, and what follows."""
    from tierform.chip.laws import laws

    if key == "adc_bits":
        law = laws().adc
        what = "Energy and area of the converters follow a law that was fitted to these bits"
        return {"low": law.least_bits, "high": law.most_bits, "law": what, "source": law.energy_bit.source}
    if key == "dac_bits":
        what = "Energy and area of the drivers go with 2^bits - 1 unit elements; above, nobody builds them so"
        return {"low": 1, "high": laws().dac.most_bits, "law": what}
    return {}


def _job(task: Content, roots: tuple[str, ...]) -> Any:
    """The job of a task, read as its file would be; TierformError with everything that is wrong."""
    from tierform.chip.description import Chip
    from tierform.files import Document
    from tierform.simulation.job_file import job_of

    asked = task.get("job")
    if not isinstance(asked, dict):
        raise TierformError([Problem("a job is needed here", key="job")])
    problems = [problem for key in _PATHS if (problem := _outside(key, asked.get(key), roots))]
    if problems:
        raise TierformError(problems)
    job = job_of(Document(asked, "")).loaded()
    changes = task.get("vary") or {}
    if not isinstance(changes, dict):
        raise TierformError([Problem("paths with values are needed here", key="vary")])
    if changes:
        assert isinstance(job.chip, Chip)
        job = replace(job, chip=job.chip.vary({str(path): value for path, value in changes.items()}))
    return job


def _outside(key: str, value: object, roots: tuple[str, ...]) -> Problem | None:
    """A name of the library is always allowed, a path only below what was opened at the start."""
    if not isinstance(value, str) or not (
        "/" in value or "\\" in value or Path(value).suffix in (".yaml", ".yml", ".json")
    ):
        return None
    real = Path(value).resolve()
    if any(real.is_relative_to(root) for root in roots):
        return None
    return Problem("lies outside of what the studio was opened with", key=key, value=value, fix="Open its folder.")
