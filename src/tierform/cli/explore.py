"""``tierform explore SPACE.yaml``, ``show STUDY.db`` and ``network JOB.yaml``: many designs, and the best of them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from tierform.cli.explore_sensitivity import tell_sensitivity
from tierform.cli.output import OutputFile, OutputFolder, console, json_option, one_thread, print_table, progress
from tierform.errors import fail
from tierform.units import format_quantity

if TYPE_CHECKING:
    from tierform.exploration.space import Space
    from tierform.exploration.study import Study

MOST_ROWS = 12
INTERRUPTED = 130  # the exit code of what Ctrl-C ended


@click.command("explore")
@click.argument("what", nargs=-1, required=True, metavar="SPACE.yaml | show STUDY.db | network JOB.yaml")
@click.option("--study", type=OutputFile(), help="The file that keeps the study [SPACE.db beside the working folder].")
@click.option("--budget", type=int, default=200, show_default=True, help="Points to evaluate, all runs together.")
@click.option(
    "--strategy",
    default="auto",
    show_default=True,
    help="auto, exhaustive, sobol, surrogate, local, nsga2, nsga3, tpe.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same points.")
@click.option("--workers", default="1", show_default=True, help="Processes here, or ray, ray:4, ray://host:port.")
@click.option(
    "--dry-run", is_flag=True, help="Tell the size of the space, the feasible share of a sample and the time."
)
@click.option("--winners", type=OutputFolder(), help="Write the front as chip, mapping and job files here.")
@click.option("--report", type=OutputFile(), help="Write the studio's page of it as one file that opens offline.")
@click.option(
    "--ways",
    default="",
    help="network: places, routes, places and routes, links, places and links, links and pillars, places and links "
    "and pillars; a comma between them [all].",
)
@click.option("--pillars", type=int, help="network: vertical links of a stack, each between two tiers [as it has].")
@click.option("--ports", type=int, help="network: most ports of a tile, its own among them [7].")
@click.option(
    "--with-mapping", is_flag=True, help="network: search the mapping as well; ways then are the two with places."
)
@click.option(
    "--sensitivity",
    type=float,
    help="Say which assumed constant, within this factor of its value, would make another point the winner.",
)
@click.option("--verify", type=int, default=0, help="Simulate so many winners at cycle fidelity (minutes each).")
@json_option
def command(
    what: tuple[str, ...],
    study: Path | None,
    budget: int,
    strategy: str,
    seed: int,
    workers: str,
    dry_run: bool,
    winners: Path | None,
    report: Path | None,
    ways: str,
    pillars: int | None,
    ports: int | None,
    with_mapping: bool,
    sensitivity: float | None,
    verify: int,
    json_file: Path | None,
) -> None:
    """Search the space of a file for the best designs within its limits; an interrupted study goes on.

    Everything is kept in one file, which several processes may work on at once: start the same command again.
    `network JOB.yaml` searches places of weights, links and routes for one job's traffic, and its mapping if asked.
    """
    one_thread()
    from tierform.cli.explore_watched import Watched
    from tierform.exploration.draining import draining
    from tierform.exploration.study import explore, open_study

    if what[0] == "network":
        if len(what) != 2:
            fail("one job is needed", key="network", fix="tierform explore network JOB.yaml")
        from tierform.cli.explore_mapping import search_both
        from tierform.cli.explore_network import search_network

        for key, given in (("--report", report), ("--sensitivity", sensitivity)):
            if given is not None:
                fail("is for a study of a space", key=key, fix="Leave it out here.")

        job, checked = Path(what[1]), verify > 0
        if with_mapping and (pillars is not None or ports is not None):
            key = "--ports" if pillars is None else "--pillars"
            fix = "Write the mapping's winners first, and search the network of that job."
            fail("the mapping is searched on the chip as it is", key=key, fix=fix)
        if with_mapping:
            told = search_both(job, ways=ways, seed=seed, winners=winners, verify=checked)
        else:
            told = search_network(
                job, ways=ways, seed=seed, pillars=pillars, ports=ports, winners=winners, verify=checked
            )
        if json_file:
            from tierform.files import write_json

            write_json(json_file, told)
        return
    if ways:
        fail("only the search of a network has ways", key="--ways", value=ways, fix="tierform explore network JOB.yaml")
    for key, number in (("--pillars", pillars), ("--ports", ports)):
        if number is not None:
            fail("only the search of a network has this budget", key=key, value=number, fix="explore network JOB.yaml")
    if with_mapping:
        fail("only the search of a network takes the mapping in", key="--with-mapping", fix="explore network JOB.yaml")
    if what[0] == "show":
        if len(what) != 2:
            fail("one study is needed", key="show", fix="tierform explore show STUDY.db")
        made = open_study(what[1])
    else:
        if len(what) != 1:
            fail("one space file is needed", value=" ".join(what), fix="tierform explore SPACE.yaml")
        from tierform.exploration.space_file import load_space

        space = load_space(what[0])
        if dry_run:
            _dry_run(space, budget)
            return
        path = study or Path(Path(what[0]).stem + ".db")
        begin, wanted = time.perf_counter(), budget if space.size is None else min(budget, space.size)
        with draining() as stop, progress() as bar:
            made = explore(
                what[0], study=path, budget=budget, strategy=strategy, seed=seed, workers=workers,
                progress=Watched(bar, wanted), stop=stop,
            )  # fmt: skip
            stopped = stop() and made.base.counts()[2] < wanted
        console().print(f"{made.space.name}: {time.perf_counter() - begin:.1f} s; kept in {path}")
        if stopped:
            _interrupted(made, wanted, json_file)
    _tell(made)
    if winners:
        from tierform.exploration.winners import write_winners

        written = write_winners(made, winners)
        console().print(f"written: {len(written)} winners to {winners}", soft_wrap=True)
    content = _content(made) if json_file else {}
    if sensitivity is not None:
        content["sensitivity"] = tell_sensitivity(made, sensitivity)
    if verify:
        _verify(made, verify)
    if report:
        from tierform.studio.content import Opened
        from tierform.studio.explored import study_run
        from tierform.studio.export import write_opened

        write_opened(report, Opened(studies=(study_run(made, 0, designs=True),)))
        console().print(f"pages: {report}", soft_wrap=True)
    if json_file:
        from tierform.files import write_json

        write_json(json_file, content)


def _interrupted(study: Study, wanted: int, json_file: Path | None) -> NoReturn:
    """Tell what is there of a study that was ended early, and end."""
    done = study.base.counts()[2]
    console().print(f"interrupted: {done:,} of {wanted:,} points are kept; the same command goes on", soft_wrap=True)
    if done:
        _tell(study)
    if json_file:
        from tierform.files import write_json

        write_json(json_file, _content(study))
    sys.exit(INTERRUPTED)


def _dry_run(space: Space, budget: int) -> None:
    from tierform.exploration.evaluators import evaluator_of
    from tierform.exploration.study import sample

    points, outcomes, seconds = sample(space, evaluator_of(space), min(16, space.size or 16))
    feasible = sum(outcome.violation <= 0 for outcome in outcomes)
    number = budget if space.size is None else min(budget, space.size)
    size = "without end" if space.size is None else f"{space.size:,} points"
    console().print(f"{space.name}: {size} of {len(space.parameters)} parameters")
    for text in space.pruned:
        console().print(f"  splits left out: {text}")
    console().print(f"feasible: {feasible} of {len(points)} sampled")
    for reason in dict.fromkeys(outcome.reason for outcome in outcomes if outcome.reason):
        console().print(f"  {reason.splitlines()[0]}", soft_wrap=True)
    console().print(f"a point takes {seconds * 1e3:.1f} ms; {number:,} take {seconds * number:.1f} s on one core")


def _tell(study: Study) -> None:
    waiting, leased, _ = study.base.counts()
    rows = study.front()
    console().print(f"{study.claim()}; {len(rows)} on the front, hypervolume {study.hypervolume():.4f}")
    if waiting or leased:
        console().print(f"{waiting} points wait, {leased} are being evaluated")
    if not rows:
        worst = sorted(study.base.rows(), key=lambda row: row.outcome.violation)[:3]
        console().print("no point is within the limits; the nearest:")
        for row in worst:
            console().print(f"  {row.number}: {row.outcome.reason}", soft_wrap=True)
        return
    from tierform.exploration.evaluator import FIGURES

    knee = study.knee()
    names = [parameter.name for parameter in study.space.parameters]
    figures = [wanted.figure for wanted in study.space.objectives]
    shown = (
        rows
        if len(rows) <= MOST_ROWS
        else [rows[round(i * (len(rows) - 1) / (MOST_ROWS - 1))] for i in range(MOST_ROWS)]
    )
    if knee is not None and knee.number not in [row.number for row in shown]:
        shown.append(knee)
    body = [
        [
            f"{row.number}{' knee' if knee is not None and row.number == knee.number else ''}",
            *(format_quantity(row.outcome.figures[name], FIGURES[name]) for name in figures),
            *("-" if row.chosen[name] is None else str(row.chosen[name]) for name in names),
        ]
        for row in shown
    ]
    title = "The front" if len(shown) == len(rows) else f"The front ({len(shown)} of {len(rows)}; --json has all)"
    print_table(title, ["point", *figures, *names], body)


def _verify(study: Study, number: int) -> None:
    from tierform.exploration.winners import verify

    knee = study.knee()
    rows = ([knee] if knee is not None else []) + [
        row for row in study.front() if knee is None or row.number != knee.number
    ]
    body = [
        [
            str(one.number),
            format_quantity(one.latency_s, "s"),
            "-" if one.cycle_latency_s is None else format_quantity(one.cycle_latency_s, "s"),
            one.reason if one.disagreement is None else f"{100 * one.disagreement:+.2f} %",
        ]
        for one in verify(study, rows[:number])
    ]
    print_table("Winners by cycle", ["point", "formula", "cycle", "disagreement"], body)


def _content(study: Study) -> dict[str, object]:
    knee = study.knee()
    return {
        "schema": "tierform.study/1",
        "name": study.space.name,
        "claim": study.claim(),
        "hypervolume": study.hypervolume(),
        "knee": None if knee is None else knee.number,
        "front": [
            {"number": row.number, "chosen": row.chosen, "figures": row.outcome.figures} for row in study.front()
        ],
        "points": study.base.counts()[2],
    }
