"""One self-contained HTML page for a study: published beside reproduced, figures, checks, assumptions, sources.

What a picture shows is decided by the study (:class:`tierform.studies.study.Picture`); :func:`series` gives its
numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tierform
from tierform.errors import MissingDependency
from tierform.files import write_text
from tierform.studies.study import Cell, Picture, StudyResult, Table


def write(path: Path | str, result: StudyResult) -> None:
    """Write the page; it needs no network to be read.  TierformError when jinja2 or plotly is missing."""
    write_text(path, render(result))


def render(result: StudyResult) -> str:
    """The page as text."""
    try:
        import jinja2
    except ImportError:
        raise MissingDependency("jinja2", "an HTML report", "report") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    figures: dict[str, list[str]] = {}
    for index, picture in enumerate(result.pictures):
        drawn = _draw(picture, result.table(picture.table))
        figures.setdefault(picture.table, []).append(
            drawn.to_html(full_html=False, include_plotlyjs=index == 0, config={"displaylogo": False})
        )
    text: str = environment.get_template("study.html.j2").render(
        title=result.title,
        tables=[
            (table, [[_text(cell, table.digits) for cell in row] for row in table.rows], figures.get(table.title, []))
            for table in result.tables
        ],
        checks=result.checks,
        remarks=result.remarks,
        assumptions=result.assumptions,
        sources=result.sources,
        version=tierform.__version__,
    )
    return text


def series(picture: Picture, table: Table) -> dict[str, tuple[list[Cell], list[float | None]]]:
    """The lines or bars of a picture by name: x and y values; what is no number in the table is None."""
    rows = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    found: dict[str, tuple[list[Cell], list[float | None]]] = {}
    for column in picture.y:
        for row in rows:
            name = f"{row[picture.by]}" if picture.by else column
            if picture.by and len(picture.y) > 1:
                name = f"{name}, {column}"
            xs, ys = found.setdefault(name, ([], []))
            value = row[column]
            xs.append(row[picture.x])
            ys.append(float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None)
    return found


def _draw(picture: Picture, table: Table) -> Any:
    from tierform.report.pictures import LAYOUT, PALETTE, graph_objects

    go = graph_objects()
    figure = go.Figure()
    if picture.kind == "tornado":
        return _tornado(figure, picture, table)
    lines = series(picture, table)
    for index, (name, (xs, ys)) in enumerate(lines.items()):
        color = PALETTE[index % len(PALETTE)]
        if picture.kind == "bar":
            figure.add_bar(x=[str(x) for x in xs], y=ys, name=name, marker_color=color)
        else:
            figure.add_scatter(x=xs, y=ys, name=name, mode="lines+markers", line_color=color)
    places = list(dict.fromkeys(str(x) if picture.kind == "bar" else x for xs, _ in lines.values() for x in xs))
    longest = max((len(str(place)) for place in places), default=0)
    height = 420 + (7 * longest if len(places) > 8 else 0)  # room for slanted labels
    for name, value in picture.marks:
        figure.add_scatter(
            x=places, y=[value] * len(places), name=name, mode="lines", line={"dash": "dot"}, line_color="#000000"
        )
    figure.update_layout(**LAYOUT, title=picture.title or table.title, height=height, barmode="group", showlegend=True)
    figure.update_xaxes(title=picture.x)
    figure.update_yaxes(title=picture.unit, type="log" if picture.log else "linear")
    return figure


def _tornado(figure: Any, picture: Picture, table: Table) -> Any:
    """Horizontal bars from what is to what either end of an assumption makes of it, the longest on top."""
    from tierform.report.pictures import LAYOUT, PALETTE

    lines = series(picture, table)
    first, last, now = (lines[column] for column in picture.y)
    names = [_text(name) for name in first[0]]
    begin = now[1][0] if now[1] else None
    for index, (column, (_, values)) in enumerate(zip(picture.y[:2], (first, last), strict=True)):
        lengths = [None if v is None or begin is None else v - begin for v in values]
        figure.add_bar(
            y=names,
            x=lengths,
            base=begin,
            orientation="h",
            name=column,
            marker_color=PALETTE[index],
            customdata=values,
            hovertemplate="%{y}: %{customdata:.4g}",
        )
    ends = [names[0], names[-1]] if names else []
    for name, value in (("as shipped", begin), *picture.marks):
        dash = "solid" if name == "as shipped" else "dot"
        figure.add_scatter(
            y=ends, x=[value] * len(ends), name=name, mode="lines+markers", line={"dash": dash}, line_color="#000000"
        )
    figure.update_layout(
        **LAYOUT, title=picture.title or table.title, height=200 + 34 * len(names), barmode="overlay", showlegend=True
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title=picture.unit, type="log" if picture.log else "linear")
    return figure


def _text(cell: Cell, digits: int = 4) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:.{digits}g}" if isinstance(cell, float) else str(cell)
