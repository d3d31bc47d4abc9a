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
    print_table(f"{ledger.engine}: {'points that fail' if only_failed else 'every point'}", head, rows, left=2)
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
        console().print(f"source: {source} ({evidence})", highlight=False, markup=False)
    for remark in ledger.remarks:
        console().print(f"- {remark}", highlight=False, markup=False)
    verdict = "passes" if ledger.passed else f"FAILS at {len(ledger.failures)} points"
    console().print(f"{ledger.engine} {verdict} ({len(ledger.points)} points)", highlight=False)


def _percent(value: float, *, signed: bool = False) -> str:
    return f"{value * 100:+.2f}%" if signed else f"{value * 100:.2f}%"
