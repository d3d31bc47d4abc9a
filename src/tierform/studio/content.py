"""What the pages show: runs with their tables, as plain data (schema ``tierform.pages/1``).

A run is a result's file (``simulate --json``, ``Result.save``), which has the view in it.  Nothing is computed here: a
page shows what a result says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tierform import __version__
from tierform.errors import Problem, TierformError
from tierform.files import read_json
from tierform.report import tables
from tierform.simulation.result import SCHEMA as RESULT
from tierform.simulation.result import Result

SCHEMA = "tierform.pages/1"
COMPARISON = "tierform.comparison/1"
LEDGER = "tierform.ledger/1"
MOST_FILES = 200
OPERATORS = 40
Content = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Opened:
    """What was read of the files given: runs, the ledger, names of files that are something else, and what is wrong."""

    runs: tuple[Content, ...] = ()
    ledger: tuple[Content, ...] = ()
    others: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    folder: str = ""


def run_content(result: Result, number: int, *, file: str = "", live: bool = False) -> Content:
    """A run as the pages take it."""
    content = result.content()
    shown = [*tables.all_tables(result), tables.operators(result, OPERATORS)]
    return {
        "id": str(number),
        "name": f"{result.model} on {result.chip}",
        "file": file,
        "live": live,
        "result": {key: value for key, value in content.items() if key not in _UNUSED},
        "tables": [{"title": one.title, "head": one.head, "rows": one.rows} for one in shown],
    }


def quick_content(result: Result) -> Content:
    """A run as a what-if shows it, without what takes longest: limits, operators and tables."""
    return {
        "id": "now",
        "name": f"{result.model} on {result.chip}",
        "file": "",
        "live": True,
        "result": {
            **{key: value for key, value in result.to_dict().items() if key not in _UNUSED},
            "view": result.quick_view(),
        },
        "tables": [],
    }


# Figures of a result that no page reads: the view has them by tile and by link, and by operator.
_UNUSED = ("operators", "link_bytes", "energy_J_by_tile", "limits")


def pages(opened: Opened, *, exported: bool) -> Content:
    """Everything that the pages are given."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "exported": exported,
        "folder": opened.folder,
        "runs": _named(opened.runs),
        "others": list(opened.others),
        "problems": [problem_content(problem) for problem in opened.problems],
        "ledger": list(opened.ledger),
        "first": "" if not opened.runs else "compare" if exported and len(opened.runs) > 1 else "chip",
    }


def _named(runs: Sequence[Content]) -> list[Content]:
    """The runs, those of one name told apart by their files or numbers."""
    names = [run["name"] for run in runs]
    return [
        run if names.count(run["name"]) == 1 else {**run, "name": f"{run['name']} ({run['file'] or run['id']})"}
        for run in runs
    ]


def problem_content(problem: Problem) -> Content:
    """A problem as the pages show it: the same record that the command line prints."""
    given = asdict(problem)
    message = given.pop("what")
    value = given.pop("value")
    return {"message": message, "value": None if value is None else str(value), "near": given.pop("nearest"), **given}


def opened_results(results: Sequence[Result]) -> Opened:
    """Results in memory, as if they had been opened."""
    return Opened(tuple(run_content(result, number) for number, result in enumerate(results)))


def open_paths(paths: Sequence[Path]) -> Opened:
    """What stands in files and folders.  A file that is named must be one of ours; in a folder others are listed."""
    runs: list[Content] = []
    ledger: list[Content] = []
    others: list[str] = []
    problems: list[Problem] = []
    folders = [path for path in paths if path.is_dir()]
    for path in paths:
        for file in _files(path) if path.is_dir() else [path]:
            named = str(file.relative_to(path)) if path.is_dir() else file.name
            try:
                content = read_json(file).content
                if _engines(content):
                    ledger += _engines(content)
                    continue
                results = _results(content, file)
            except TierformError as error:
                if path.is_dir() and not _says_result(file):
                    others.append(named)
                else:
                    problems += error.problems
                continue
            runs += [run_content(one, len(runs) + k, file=named) for k, one in enumerate(results)]
    told = ", ".join(map(str, folders))
    return Opened(tuple(runs), tuple(ledger), tuple(others), tuple(problems), told)


def _results(content: object, file: Path) -> list[Result]:
    """The results of a file: one, or those of a comparison.  TierformError for anything else."""
    if isinstance(content, dict) and content.get("schema") == COMPARISON and isinstance(content.get("results"), list):
        return [Result.from_content(one, str(file)) for one in content["results"] if isinstance(one, dict)]
    return [Result.load(file)]


def _engines(content: object) -> list[Content]:
    """The engines of a ledger, as ``tierform validate --json FILE`` writes them; empty for any other file."""
    engines = content if isinstance(content, list) else []
    ours = all(isinstance(one, dict) and one.get("schema") == LEDGER for one in engines)
    return [_slim(one) for one in engines if "points" in one] if ours else []


def _slim(engine: Content) -> Content:
    """The points of an engine as columns: most of them share their source and their evidence."""
    points = engine["points"]
    sources = list(dict.fromkeys((point["source"], point["evidence"]) for point in points))
    columns = ("case", "quantity", "unit", "reference", "ours", "relative_error", "fitted")
    return {
        "engine": engine["engine"],
        "passed": engine["passed"],
        "remarks": engine["remarks"],
        "sources": sources,
        "source": [sources.index((point["source"], point["evidence"])) for point in points],
        "passed_points": [point["passed"] for point in points],
        "tolerance": [_tolerance(point.get("tolerance")) for point in points],
        **{name: [point[name] for point in points] for name in columns},
    }


def _tolerance(given: Content | None) -> str:
    from tierform.validation.ledger import Tolerance

    return "" if given is None else str(Tolerance(float(given["relative"]), float(given["absolute"])))


def _files(folder: Path) -> list[Path]:
    """JSON files of a folder, not of folders in it; links that lead out of it are left alone."""
    inside = folder.resolve()
    found = [path for path in sorted(folder.glob("*.json")) if path.is_file() and path.resolve().is_relative_to(inside)]
    return found[:MOST_FILES]


def _says_result(file: Path) -> bool:
    """Whether a file that could not be read begins as a result of ours."""
    try:
        with file.open("rb") as opened:
            start = opened.read(200).decode("utf-8", "replace")
    except OSError:
        return False
    return RESULT in start or COMPARISON in start
