"""Serving against schedulers and engines that ran: every step of a trace, the times of a real run, measured energy.

Built in are three schedulers on a virtual clock (vLLM 0.19.0's with a small cache and with a prefix cache, vidur's
orca), as far as the first request that was left out; one real run of vLLM on an RTX 4090 with the measured tables of
that card; and steady serving on an H100 (the ML.ENERGY benchmark).  A folder is laid out as the built-in one:

- ``NAME.batches.csv`` and ``NAME.requests.csv``: the steps of a scheduler and its requests.  Columns that are not there
  are not compared.  ``NAME.settings.json`` holds `engine` (keys of an engine file), `oracle` (numbers of a
  FormulaOracle) and, with a prefix cache, `content`: a trace file whose prompts these are.  A trace that has none takes
  the built-in one of its name.
  What prompts say may stand beside it (:mod:`tierform.validation.serving_prompts`).
- ``NAME.meta.json`` and ``NAME.requests.csv``: a real run of vLLM, and the settings that it resolved to; a run of the
  built-in one's data set has its prompts.
- a folder with ``meta.yaml`` and tables: measured layers of the run's card and model.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from tierform.errors import Problem, TierformError, fail
from tierform.files import read_text
from tierform.serving import state
from tierform.serving.engine import Engine
from tierform.serving.oracle import FormulaOracle
from tierform.serving.requests import Content, Requests
from tierform.serving.run import Machine, Pool, machine
from tierform.serving.traces import load_trace
from tierform.validation.ledger import EngineLedger, Point, Tolerance
from tierform.validation.serving_prompts import prompts_of
from tierform.validation.serving_runs import energy_points, run_points

_TABLES = Path(__file__).parent / "tables" / "serving"
_MOST_BYTES = 2**28
Row = dict[str, str]
Key = int | tuple[tuple[int, int, int], ...] | tuple[int, ...]

_REMARKS = (
    "A scheduler's step is equal where its start, duration, tokens, entries, preempted requests, free blocks, running "
    "and waiting requests all are; built in are the steps before the first request that was left out.",
    "The real run chose tokens greedily (its replay asks for temperature 0), so nothing is sorted for top-p.",
    "Its measured tables describe an eager engine and the run a compiled one, and the tables' profile turns its own "
    "skew of contexts off; with the skew that its file holds, the same run comes out 4 % slower.",
    "Its prompts go on from earlier ones in 32 places, which its prefix cache finds; with them nearly every step is "
    "the run's own, and single requests come out as the means do.",
)


def ledger(folder: Path | None = None) -> EngineLedger:
    """Every point computed anew; see the module's text."""
    root = folder or _TABLES
    points: list[Point] = []
    for path in sorted(root.glob("*.batches.csv")):
        points += _trace_points(root, path.name.removesuffix(".batches.csv"))
    for path in sorted(root.glob("*.meta.json")):
        points += run_points(root, path.name.removesuffix(".meta.json"))
    if folder is None:
        points += energy_points()
    if not points:
        fail(
            "no serving reference is in this folder",
            key="--data",
            value=str(root),
            fix="It holds NAME.batches.csv or NAME.meta.json, each with NAME.requests.csv (docs/serving.md).",
        )
    return EngineLedger("serving", points, _REMARKS)


@dataclass(frozen=True)
class TraceSettings:
    """What a scheduler's trace was made with."""

    engine: Engine
    oracle: FormulaOracle
    content: str | None
    source: str


def trace_settings(root: Path, name: str) -> TraceSettings:
    """Settings beside a trace, or the built-in ones of its name."""
    path = root / f"{name}.settings.json"
    if not path.is_file():
        path = _TABLES / path.name
    if not path.is_file():
        fix = '{"engine": {keys of an engine file}, "oracle": {"step_ns": ..., "token_ns": ...}} (docs/serving.md)'
        fail("the settings of this trace are missing", file=str(root / f"{name}.settings.json"), fix=f"Write {fix}.")
    try:
        content = json.loads(read_text(path, _MOST_BYTES))
    except json.JSONDecodeError as error:
        fail(f"is not JSON: {error.msg}", file=str(path), line=error.lineno)
    problems: list[Problem] = []
    parts: dict[str, dict[str, int | float | str | bool | None]] = {}
    for part, kind in (("engine", Engine), ("oracle", FormulaOracle)):
        given = content.get(part) if isinstance(content, dict) else None
        if not isinstance(given, dict):
            problems.append(Problem("an object is needed", str(path), key=part))
            continue
        known = {item.name for item in fields(kind)}
        problems += [Problem("not a known key", str(path), key=f"{part}.{key}") for key in given if key not in known]
        parts[part] = given
    if problems:
        raise TierformError(problems)
    if parts["engine"].get("num_gpu_blocks") is None:
        fail("is missing", file=str(path), key="engine.num_gpu_blocks", fix="Give the blocks that the scheduler had.")
    try:
        engine = Engine(**parts["engine"])  # type: ignore[arg-type]
        oracle = FormulaOracle(**parts["oracle"])  # type: ignore[arg-type]
    except TypeError as error:
        fail(f"a value is missing or of the wrong kind: {error}", file=str(path))
    except TierformError as error:
        raise TierformError(replace(problem, file=str(path)) for problem in error.problems) from None
    return TraceSettings(
        engine=engine,
        oracle=oracle,
        content=content.get("content"),
        source=str(content.get("source", name)),
    )


def rows_of(path: Path) -> list[Row]:
    """The rows of a CSV file by column."""
    if not path.is_file():
        fail("no such file", file=str(path))
    rows = list(csv.DictReader(read_text(path, _MOST_BYTES).splitlines()))
    if not rows:
        fail("no row is in this file", file=str(path))
    return rows


def _numbers(path: Path, rows: list[Row], column: str, unit: float = 1.0) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A column in whole numbers; a bad line is refused with its number."""
    found = []
    for line, row in enumerate(rows, 2):
        try:
            text = row[column]
            found.append(int(text) if text.lstrip("-").isdigit() and unit == 1.0 else round(float(text) * unit))
        except KeyError:
            fail("this column is missing", file=str(path), line=1, key=column, value=", ".join(row))
        except (ValueError, OverflowError, TypeError, AttributeError):
            fail("a number is needed", file=str(path), line=line, key=column, value=row[column])
    return np.array(found, np.int64)


def _requests(root: Path, name: str, settings: TraceSettings) -> Requests:
    path = root / f"{name}.requests.csv"
    rows = rows_of(path)
    content: Content | None = prompts_of(root, name, rows, path)
    if settings.content is not None:
        places = [root / settings.content, _TABLES / settings.content]
        found = next((one for one in places if one.is_file()), None)
        if found is None:
            fail("the prompts of this trace are missing", file=str(places[0]), key="content")
        content = load_trace(found).first(len(rows)).content
    return Requests(
        arrival_ns=_numbers(path, rows, "arrival_ns")
        if "arrival_ns" in rows[0]
        else _numbers(path, rows, "arrival_s", 1e9),
        prompt=_numbers(path, rows, "prompt"),
        output=_numbers(path, rows, "output"),
        priority=_numbers(path, rows, "priority") if "priority" in rows[0] else np.empty(0, np.int64),
        content=content,
    )


def _trace_points(root: Path, name: str) -> Iterator[Point]:
    """How many of the steps are equal, and the first that is not."""
    settings = trace_settings(root, name)
    requests = _requests(root, name, settings)
    made = machine(requests, [Pool(1, settings.engine, settings.oracle.packed())], record=True)
    made.go()
    path = root / f"{name}.batches.csv"
    wanted = rows_of(path)
    found = list(_steps(made, {column: _READ[column] for column in wanted[0] if column in _READ}))
    if found and not found[0]:
        fail("no column of a step is in this file", file=str(path), line=1, fix=f"Known: {', '.join(_READ)}.")
    equal, first = 0, ""
    for place, row in enumerate(wanted):
        ours = found[place] if place < len(found) else {}
        try:
            unequal = [column for column in ours if ours[column] != _value(column, row[column])]
        except (ValueError, TypeError, AttributeError) as error:
            fail(f"this step cannot be read: {error}", file=str(path), line=place + 2)
        equal += bool(ours) and not unequal
        if not first and (unequal or not ours):
            first = f"the first unequal step is {place}: {', '.join(unequal) or 'there is none'}"

    def point(quantity: str, reference: int, ours: int, note: str = "") -> Point:
        return Point(
            case=name,
            quantity=quantity,
            unit="",
            reference=reference,
            ours=ours,
            tolerance=Tolerance(),
            source=settings.source,
            evidence="simulator",
            note=note,
        )

    yield point("equal steps", len(wanted), equal, first)
    columns = {"first_token_ns": made.requests.first, "last_token_ns": made.requests.last}
    rows = rows_of(root / f"{name}.requests.csv")
    if "last_token_ns" in rows[0]:
        same = sum(
            all(int(columns[key][place]) == int(row[key]) for key in columns)
            for place, row in enumerate(rows)
            if int(row["last_token_ns"]) >= 0
        )
        yield point("requests with equal times", len(rows), same)


def _value(column: str, text: str) -> Key:
    if column == "prefill_entries":
        parts = [one.replace("@", ":").split(":") for one in text.split()]
        return tuple((int(one), int(float(new)), int(float(past))) for one, new, past in parts)
    if column == "preempted":
        return tuple(int(one) for one in text.split())
    return int(float(text))


_READ: dict[str, int] = {
    "start_ns": state.L_START,
    "duration_ns": state.L_DURATION,
    "tokens": state.L_TOKENS,
    "single_token_entries": state.L_SINGLES,
    "sum_context_single": state.L_CONTEXTS,
    "prefill_entries": state.L_ENTRIES,
    "preempted": state.L_PREEMPTED,
    "free_blocks": state.L_FREE,
    "running": state.L_RUNNING,
    "waiting": state.L_WAITING,
}
_LISTS: dict[str, Callable[[Machine, int, int], Key]] = {
    "prefill_entries": lambda made, low, high: tuple(
        (int(one), int(new), int(past)) for one, new, past in made.logs.entries[low:high]
    ),
    "preempted": lambda made, low, high: tuple(int(one) for one in made.logs.preempted[low:high]),
}


def _steps(made: Machine, columns: dict[str, int]) -> Iterator[dict[str, Key]]:
    """Our steps, in the columns of a trace."""
    before = dict.fromkeys(_LISTS, 0)
    for row in made.logs.steps[: made.run.counters[state.C_STEPS_LOGGED]]:
        found: dict[str, Key] = {}
        for column, place in columns.items():
            number = int(row[place])
            if column in _LISTS:
                found[column] = _LISTS[column](made, before[column], number)
                before[column] = number
            else:
                found[column] = number
        yield found


__all__ = ["TraceSettings", "ledger", "rows_of", "trace_settings"]
