"""``tierform reproduce STUDY``: a published result, re-derived, with the published figures beside it."""

from __future__ import annotations

from pathlib import Path

import click

from tierform.cli.output import OutputFolder, console, json_option, print_table, progress
from tierform.errors import fail
from tierform.files import make_folder, write_json
from tierform.studies import ABOUT, STUDIES, StudyOptions, StudyResult

MOST_SHOWN = 40


@click.command("reproduce")
@click.argument("study", required=False)
@click.option("--quick", is_flag=True, help="A small version of the same: fewer points, shorter training.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the study; may be repeated.")
@click.option(
    "--out",
    type=OutputFolder(),
    metavar="FOLDER",
    help="Write STUDY.html, with the figures, and STUDY.json into this folder.",
)
@json_option
def command(
    study: str | None, quick: bool, seed: int, settings: tuple[str, ...], out: Path | None, json_file: Path | None
) -> int:
    """Re-derive a published result; without STUDY, list them.  Exit 1 when a claim that the study tests fails."""
    if study is None:
        print_table("", ["", ""], [[name, ABOUT.get(name, "")] for name in STUDIES.names()])
        return 0
    chosen: dict[str, str] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not (key and equals):
            fail("a setting is KEY=VALUE", key="--set", value=text)
        chosen[key] = value
    run = STUDIES.get(study)
    if out:
        make_folder(out)
    with progress() as bar:
        task = bar.add_task(study, total=None)
        result: StudyResult = run(StudyOptions(quick, seed, chosen, lambda text: bar.update(task, description=text)))
    console().print(f"{result.title}\n", style="bold", highlight=False, markup=False)
    for table in result.tables:
        print_table(table.title, table.head, [[_cell(value, table.digits) for value in row] for row in table.rows])
        if table.note:
            console().print(f"{table.note}\n", highlight=False, markup=False)
    for check in result.checks:
        mark = "holds" if check.holds else "FAILS"
        console().print(f"{mark}: {check.what} ({check.figures})", highlight=False, markup=False)
    for remark in result.remarks:
        console().print(f"- {remark}", highlight=False, markup=False)
    if result.assumptions:
        shown = result.assumptions
        if len(shown) > MOST_SHOWN:  # what is assumed of whole chips, not each constant
            shown = tuple(one for one in shown if not one.value)
        rows = [[one.subject, one.value, one.kind, one.source or one.note] for one in shown]
        print_table("What was assumed", ["subject", "value", "kind", "source"], rows)
        if len(shown) < len(result.assumptions):
            rest = len(result.assumptions) - len(shown)
            console().print(f"and {rest} single constants: --out and --json list them\n", highlight=False)
    for source in result.sources:
        console().print(f"source: {source}", highlight=False, markup=False)
    if json_file:
        write_json(json_file, result.to_dict())
    if out:
        from tierform.report.study_page import write

        write_json(out / f"{study}.json", result.to_dict())
        write(out / f"{study}.html", result)
        console().print(f"written: {out / study}.html and .json", highlight=False, markup=False)
    return 0 if result.holds else 1


def _cell(value: object, digits: int) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
