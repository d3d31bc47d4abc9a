"""What the pages show: runs with their tables, as plain data (schema ``tierform.pages/1``).

A run is a result's file (``simulate --json``, ``Result.save``), which has the view in it.  Nothing is computed here: a
page shows what a result says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tierform import __version__
from tierform.errors import Problem, TierformError, fail
from tierform.files import read_json
from tierform.report.service_view import LOAD_SCHEMA
from tierform.serving.service import SCHEMA as SERVICE
from tierform.simulation.result import SCHEMA as RESULT
from tierform.simulation.result import Result
from tierform.studio.runs import Content, run_content, without_timeline

SCHEMA = "tierform.pages/1"
COMPARISON = "tierform.comparison/1"
LEDGER = "tierform.ledger/1"
STUDIES = (".db", ".sqlite")  # how files of studies end
MOST_FILES = 200


@dataclass(frozen=True, slots=True)
class Opened:
    """What was read: runs, services, studies, the ledger, names of other files, and what is wrong.

    `study_files` are the paths of the studies, in their order: a study that goes on is read again.
    """

    runs: tuple[Content, ...] = ()
    ledger: tuple[Content, ...] = ()
    services: tuple[Content, ...] = ()
    studies: tuple[Content, ...] = ()
    study_files: tuple[Path, ...] = ()
    others: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    folder: str = ""


def pages(opened: Opened, *, exported: bool) -> Content:
    """Everything that the pages are given; a studio sends the timelines of its runs when their page asks for them."""
    runs = opened.runs if exported else [without_timeline(run) for run in opened.runs]
    return {
        "schema": SCHEMA,
        "version": __version__,
        "exported": exported,
        "folder": opened.folder,
        "runs": _named(runs),
        "others": list(opened.others),
        "problems": [problem_content(problem) for problem in opened.problems],
        "ledger": list(opened.ledger),
        "services": _named(opened.services),
        "studies": _named(opened.studies),
        "first": _first(opened, exported),
    }


def _first(opened: Opened, exported: bool) -> str:
    """The page that is shown first."""
    if opened.runs:
        return "compare" if exported and len(opened.runs) > 1 else "chip"
    return "serving" if opened.services else "exploration" if opened.studies else "ledger" if opened.ledger else ""


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
    found: dict[str, list[Content]] = {name: [] for name in ("runs", "ledger", "services", "studies")}
    others: list[str] = []
    problems: list[Problem] = []
    files: list[Path] = []
    for path in paths:
        for file in _files(path) if path.is_dir() else [path]:
            named = str(file.relative_to(path)) if path.is_dir() else file.name
            try:
                if file.suffix in STUDIES:
                    from tierform.studio.explored import open_file

                    found["studies"].append(open_file(file, len(files), named=named))
                    files.append(file)
                    continue
                _read(file, named, found)
            except TierformError as error:
                if path.is_dir() and not _says_ours(file):
                    others.append(named)
                else:
                    problems += error.problems
    told = ", ".join(map(str, (path for path in paths if path.is_dir())))
    return Opened(
        runs=tuple(found["runs"]),
        ledger=tuple(found["ledger"]),
        services=tuple(found["services"]),
        studies=tuple(found["studies"]),
        study_files=tuple(files),
        others=tuple(others),
        problems=tuple(problems),
        folder=told,
    )


def _read(file: Path, named: str, found: dict[str, list[Content]]) -> None:
    """Add what a JSON file has; TierformError where it is none of ours."""
    content = read_json(file).content
    if engines := _engines(content):
        found["ledger"] += engines
    elif services := service_runs(content, len(found["services"]), file=named):
        found["services"] += services
    else:
        known = len(found["runs"])
        found["runs"] += [run_content(one, known + k, file=named) for k, one in enumerate(_results(content, file))]


def service_runs(content: object, first: int = 0, *, file: str = "") -> list[Content]:
    """The serving runs of what `tierform serve --json FILE` wrote: one, the best of a search, or every candidate."""
    if not isinstance(content, dict):
        return []
    if content.get("schema") == SERVICE:
        made = [{"service": content, "view": content.get("view")}]
    elif content.get("schema") == LOAD_SCHEMA:
        made = [{"service": content.get("service"), "view": content.get("view"), "search": content}]
    elif isinstance(content.get("found"), list):
        ours = [one for one in content["found"] if isinstance(one, dict) and one.get("schema") == SERVICE]
        made = [{"service": one, "view": one.get("view"), "by": content.get("by")} for one in ours]
    else:
        return []
    for one in made:
        _check_service(one["service"], file)
    return [_service(one, first + k, file) for k, one in enumerate(made)]


# What a page reads of a serving run, and what it must be.
_SERVICE_KEYS = {
    "model": str,
    "chip": str,
    "chips": int,
    "replicas": int,
    "requests": int,
    "counts": dict,
    "engine": dict,
}
_SERVICE_KEYS |= {"ttft_s": dict, "tpot_s": dict, "e2e_s": dict, "queue_s": dict, "notes": list, "slo": str}


def _check_service(service: object, file: str) -> None:
    if service is None:
        return
    known = service if isinstance(service, dict) else {}
    wrong = [key for key, kind in _SERVICE_KEYS.items() if not isinstance(known.get(key), kind)]
    if wrong:
        what = f"this file of a serving run lacks {', '.join(wrong[:3])}"
        fail(what, file=file, fix="Write it again: tierform serve ... --json FILE")


def _service(made: Content, number: int, file: str) -> Content:
    service = made["service"]
    search = made.get("search")
    name = (
        "no load keeps the SLO" if service is None else f"{service['model']} on {service['chips']} × {service['chip']}"
    )
    return {
        "id": str(number),
        "name": name,
        "file": file,
        "service": None if service is None else {key: one for key, one in service.items() if key != "view"},
        "view": made["view"],
        "search": None if search is None else {key: search[key] for key in ("within", "best", "tried")},
        "by": made.get("by"),
    }


def _results(content: object, file: Path) -> list[Result]:
    """The results of a file: one, or those of a comparison.  TierformError for anything else."""
    if isinstance(content, dict) and content.get("schema") == COMPARISON and isinstance(content.get("results"), list):
        return [Result.from_content(one, str(file)) for one in content["results"] if isinstance(one, dict)]
    return [Result.load(file)]


def _engines(content: object) -> list[Content]:
    """The engines of a ledger, as ``tierform validate --json FILE`` writes them; empty for any other file."""
    engines = content if isinstance(content, list) else []
    ours = all(isinstance(one, dict) and one.get("schema") == LEDGER for one in engines)
    return [engine_content(one) for one in engines if "points" in one] if ours else []


def engine_content(engine: Content) -> Content:
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
    """JSON files and studies of a folder, not of folders in it; links that lead out of it are left alone."""
    inside = folder.resolve()
    named = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", *STUDIES)]
    return [path for path in named if path.is_file() and path.resolve().is_relative_to(inside)][:MOST_FILES]


def _says_ours(file: Path) -> bool:
    """Whether a file that could not be read begins as a result of ours, or is a study."""
    if file.suffix in STUDIES:
        from tierform.studio.explored import is_study

        return is_study(file)
    try:
        with file.open("rb") as opened:
            start = opened.read(200).decode("utf-8", "replace")
    except OSError:
        return False
    return any(schema in start for schema in (RESULT, COMPARISON, SERVICE, LOAD_SCHEMA))
