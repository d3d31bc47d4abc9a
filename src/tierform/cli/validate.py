"""``tierform validate [ENGINE]``: the ledger, point by point."""

from __future__ import annotations

from pathlib import Path

import click

from tierform.cli.output import console, json_option, print_table
from tierform.errors import fail
from tierform.files import write_json
from tierform.validation import ENGINES, Ledger


@click.command("validate")
@click.argument("engine", required=False)
@click.option("--data", type=click.Path(path_type=Path), help="Your own reference data, a folder of the same layout.")
@click.option("--failed", "only_failed", is_flag=True, help="Print only the points that fail.")
@json_option
def command(engine: str | None, data: Path | None, only_failed: bool, json_file: Path | None) -> int:
    """Hold ENGINE (or all of them) against reference tools and measured silicon; exit 1 when a point fails."""
    if data is not None and engine is None:
        fail("--data needs the name of an engine", fix=f"Engines: {', '.join(ENGINES.names())}.")
    if data is not None and not data.is_dir():
        fail("no such folder", key="--data", value=str(data))
    ledgers = [ENGINES.get(name)(data) for name in ([engine] if engine else ENGINES.names())]
    for ledger in ledgers:
        _show(ledger, only_failed)
    if json_file:
        write_json(json_file, [ledger.to_dict() for ledger in ledgers])
    return 0 if all(ledger.passed for ledger in ledgers) else 1


def _show(ledger: Ledger, only_failed: bool) -> None:
    points = ledger.failures if only_failed else ledger.points
    rows = [
        [
            point.case,
            point.quantity,
            f"{point.reference:.6g}",
            f"{point.ours:.6g}",
            point.unit,
            f"{point.relative_error * 100:+.2f} %",
            str(point.tolerance or "-"),
            "fitted" if point.fitted else "held out",
            f"{point.source} ({point.evidence})",
            {True: "pass", False: "FAIL", None: "info"}[point.passed],
        ]
        for point in points
    ]
    head = ["case", "quantity", "reference", "ours", "unit", "error", "tolerance", "point", "source", ""]
    print_table(f"{ledger.engine}: every point", head, rows)
    rows = [
        [
            item.quantity,
            "held out" if item.held_out else "fitted",
            str(item.points),
            str(item.failed),
            *(f"{value * 100:.2f} %" for value in (item.median, item.percentile_90, item.bias, item.worst)),
        ]
        for item in ledger.summaries()
    ]
    head = ["quantity", "points are", "points", "failed", "median |error|", "90th percentile", "bias", "worst"]
    print_table(f"{ledger.engine}: errors", head, rows)
    for remark in ledger.remarks:
        console().print(f"- {remark}", highlight=False, markup=False)
    verdict = "passes" if ledger.passed else f"FAILS at {len(ledger.failures)} points"
    console().print(f"{ledger.engine} {verdict} ({len(ledger.points)} points)", highlight=False)
