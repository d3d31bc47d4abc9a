"""``tierform validate [ENGINE]``: a line for each engine when it is ready, what fails, a table of all at the end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import isinf
from pathlib import Path

import click

from tierform.cli.output import InputPath, console, json_option, print_table, progress
from tierform.errors import MissingDependency, fail, missing
from tierform.files import write_json
from tierform.validation import ENGINES, EngineLedger


@dataclass(frozen=True)
class _Outcome:
    """An engine's ledger, or why there is none."""

    engine: str
    ledger: EngineLedger | None
    seconds: float
    skipped: str = ""


@click.command("validate")
@click.argument("engine", required=False)
@click.option(
    "--data",
    type=InputPath(),
    help="Your own reference data: a folder of the same layout; of models also a file of benchmarks/device.py.",
)
@click.option("--all", "every", is_flag=True, help="Print every point, not only those that fail.")
@click.option("--failed", "only_failed", is_flag=True, help="Print only the points that fail.")
@click.option("--strict", is_flag=True, help="An engine that is skipped fails, too.")
@json_option
def command(
    engine: str | None, data: Path | None, every: bool, only_failed: bool, strict: bool, json_file: Path | None
) -> int:
    """Hold ENGINE (or all of them) against reference tools and measured silicon.

    Exit code 0 when every point of every engine that ran passes, 1 when a point fails (or no engine could run, or one
    was skipped under --strict), 2 for a mistake.  An engine whose library is not installed is skipped with a note.
    """
    if data is not None and engine is None:
        fail("--data needs the name of an engine", fix=f"Engines: {', '.join(ENGINES.names())}.")
    measured = data is not None and engine == "models" and data.is_file() and data.suffix == ".json"
    if data is not None and not data.is_dir() and not measured:
        fail("no such folder", key="--data", value=str(data))
    if every and only_failed:
        fail("choose --all or --failed", key="--all")
    outcomes = []
    for name in [engine] if engine else ENGINES.names():
        outcome = _run(name, data, named=engine is not None)
        outcomes.append(outcome)
        console().print(_line(outcome))
        if outcome.ledger is not None and (engine is not None or every or outcome.ledger.failures):
            _show(outcome.ledger, every, whole=engine is not None and not only_failed)
    if len(outcomes) > 1:
        _show_all(outcomes)
    if json_file:
        write_json(json_file, [_content(outcome) for outcome in outcomes])
    ran = [outcome.ledger for outcome in outcomes if outcome.ledger is not None]
    skipped = len(ran) < len(outcomes)
    return 0 if ran and all(ledger.passed for ledger in ran) and not (strict and skipped) else 1


def _run(name: str, data: Path | None, *, named: bool) -> _Outcome:
    begin = time.perf_counter()
    try:
        with progress() as bar:
            bar.add_task(name, total=None)
            ledger: EngineLedger = ENGINES.get(name)(data)
        return _Outcome(name, ledger, time.perf_counter() - begin)
    except (MissingDependency, ImportError) as error:
        told = error if isinstance(error, MissingDependency) else missing(error, f"the engine {name!r}")
        if told is None or named:
            raise told or error from None
        return _Outcome(name, None, time.perf_counter() - begin, " ".join(str(told).split()))


def _line(outcome: _Outcome) -> str:
    if outcome.ledger is None:
        return f"{outcome.engine}: skipped; {outcome.skipped}"
    verdict = "passes at" if outcome.ledger.passed else f"FAILS at {len(outcome.ledger.failures)} of"
    return f"{outcome.engine}: {verdict} {len(outcome.ledger.points):,} points, {outcome.seconds:.1f} s"


def _show_all(outcomes: list[_Outcome]) -> None:
    rows = []
    for outcome in outcomes:
        if outcome.ledger is None:
            rows.append([outcome.engine, "skipped", *[""] * 6])
            continue
        item = outcome.ledger.overall()
        evidence = ", ".join(dict.fromkeys(point.evidence for point in outcome.ledger.points))
        verdict = "pass" if outcome.ledger.passed else "FAIL"
        errors = (_percent(value) for value in (item.median, item.percentile_90, item.worst))
        rows.append([outcome.engine, verdict, str(item.points), str(item.failed), *errors, evidence])
    head = ["engine", "", "points", "failed", "median", "90th pct", "worst", "held against"]
    print_table("All engines (absolute relative errors of the points that have a tolerance)", head, rows)


def _show(ledger: EngineLedger, every: bool, *, whole: bool) -> None:
    points = ledger.points if every else ledger.failures
    rows = [
        [
            point.case,
            f"{point.quantity} ({point.unit})" if point.unit else point.quantity,
            f"{point.reference:.6g}",
            f"{point.ours:.6g}",
            _percent(point.relative_error, signed=True),
            str(point.tolerance or "-"),
            {True: "pass", False: "FAIL", None: "info"}[point.passed],
            "fitted" if point.fitted else "",
        ]
        for point in points
    ]
    head = ["case", "quantity", "reference", "ours", "error", "tolerance", "", ""]
    if rows:
        print_table(f"{ledger.engine}: {'every point' if every else 'points that fail'}", head, rows, left=2)
    if not whole:
        return
    rows = [
        [
            item.quantity,
            "held out" if item.held_out else "fitted",
            f"{item.points}",
            f"{item.failed}",
            *(_percent(value) for value in (item.median, item.percentile_90, item.bias, item.worst)),
        ]
        for item in ledger.summaries()
    ]
    head = ["quantity", "points", "count", "failed", "median", "90th pct", "bias", "worst"]
    print_table(f"{ledger.engine}: absolute errors (bias: median signed error)", head, rows, left=2)
    for source, evidence in dict.fromkeys((point.source, point.evidence) for point in ledger.points):
        console().print(f"source: {source} ({evidence})")
    for remark in ledger.remarks:
        console().print(f"- {remark}")
    if not every:
        console().print("--all prints every point")


def _content(outcome: _Outcome) -> dict[str, object]:
    if outcome.ledger is None:
        return {"schema": "tierform.ledger/1", "engine": outcome.engine, "passed": None, "skipped": outcome.skipped}
    return outcome.ledger.to_dict()


def _percent(value: float, *, signed: bool = False) -> str:
    if isinf(value):
        return "-"  # relative to nothing: such a point is held by its absolute tolerance
    return f"{value * 100:+.2f}%" if signed else f"{value * 100:.2f}%"
