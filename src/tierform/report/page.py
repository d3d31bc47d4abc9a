"""One self-contained HTML page for one result or for several side by side: tables, pictures, evidence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tierform.errors import MissingDependency
from tierform.files import write_text
from tierform.provenance import KINDS, assumptions_first
from tierform.report import numbers, pictures, tables
from tierform.simulation.result import Result


def write(path: Path | str, results: Sequence[Result]) -> None:
    """Write the page; it needs no network to be read.  TierformError when jinja2 or plotly is missing."""
    write_text(path, render(results))


def render(results: Sequence[Result]) -> str:
    """The page as text."""
    try:
        import jinja2
    except ImportError:
        raise MissingDependency("jinja2", "an HTML report", "report") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    several = len(results) > 1
    sections = [_section(result) for result in results]
    shared = [numbers.time_by_stage(results), numbers.energy_by_component(results), numbers.energy_by_operator(results)]
    figures = [pictures.stacked(given) for given in shared]
    evidence = assumptions_first(line for result in results for line in result.assumptions)
    text: str = environment.get_template("page.html.j2").render(
        title=f"{results[0].model} on " + ", ".join(result.chip for result in results),
        comparison=tables.comparison(results) if several else None,
        figures=[_embed(figure, first=index == 0) for index, figure in enumerate(figures)],
        sections=sections,
        evidence=tables.assumptions(evidence, KINDS),
        citations=list({c.key: c for result in results for c in result.citations}.values()),
        version=results[0].versions["tierform"],
    )
    return text


def _section(result: Result) -> dict[str, object]:
    drawn = []
    if result.timeline:
        bars = numbers.timeline(result)
        drawn.append((pictures.timeline(bars), f"{bars.left_out} later bars are left out." if bars.left_out else ""))
    roof = numbers.roofline(result)
    if roof.names:
        drawn.append((pictures.roofline(roof), "Bytes are those moved over the network and to memory."))
    maps = numbers.heat_maps(result)
    if maps:
        drawn.append((pictures.heat_maps(maps), ""))
    cut = numbers.cross_section(result)
    if cut:
        drawn.append((pictures.cross_section(cut), "Layers are drawn with equal height, from the board to the sink."))
    run = numbers.temperature_over_time(result)
    if run:
        drawn.append((pictures.temperature_over_time(run), ""))
    return {
        "name": f"{result.model} on {result.chip}",
        "task": result.task,
        "notes": result.notes,
        "tables": [*tables.all_tables(result), tables.operators(result, 20)],
        "figures": [(_embed(figure), caption) for figure, caption in drawn],
    }


def _embed(figure: Any, *, first: bool = False) -> str:
    """The figure as HTML; the first one carries the drawing library for all."""
    text: str = figure.to_html(
        full_html=False, include_plotlyjs=first, config={"displaylogo": False, "responsive": True}
    )
    return text
