"""Figures from numbers: thin wrappers over plotly, one for each picture of :mod:`tierform.report.numbers`."""

from __future__ import annotations

from typing import Any

from tierform.errors import MissingDependency
from tierform.report import numbers

# A colour-blind safe palette (Okabe and Ito, 2008), then greys.
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000", "#777777", "#BBBBBB"]
_LAYOUT: dict[str, object] = {
    "template": "plotly_white",
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "margin": {"l": 70, "r": 20, "t": 46, "b": 46},
}


def _graph_objects() -> Any:
    try:
        import plotly.graph_objects as graph_objects
    except ImportError:
        raise MissingDependency("plotly", "an HTML report", "report") from None
    return graph_objects


def stacked(given: numbers.Stacked) -> object:
    """Stacked bars, one for each group."""
    go = _graph_objects()
    figure = go.Figure()
    for index, (part, values) in enumerate(zip(given.parts, given.values, strict=True)):
        figure.add_bar(
            y=list(given.groups), x=list(values), name=part, orientation="h", marker_color=PALETTE[index % len(PALETTE)]
        )
    figure.update_layout(
        **_LAYOUT, title=given.title, barmode="stack", height=120 + 56 * len(given.groups), legend_traceorder="normal"
    )
    figure.update_xaxes(title=given.unit, exponentformat="SI")
    figure.update_yaxes(autorange="reversed")
    return figure


def roofline(given: numbers.Roofline) -> object:
    """Operators by intensity and rate on logarithmic axes, under the roof where one is known."""
    go = _graph_objects()
    figure = go.Figure()
    components = [name.split(":")[0] for name in given.names]
    for index, component in enumerate(dict.fromkeys(components)):
        chosen = [i for i, name in enumerate(components) if name == component]
        figure.add_scatter(
            x=[given.intensity_per_B[i] for i in chosen],
            y=[given.rate_per_s[i] for i in chosen],
            mode="markers",
            text=[given.names[i] for i in chosen],
            name=component,
            marker_color=PALETTE[index % len(PALETTE)],
            hovertemplate="%{text}<br>%{x:.3g} operations per byte<br>%{y:.3s} operations/s<extra></extra>",
        )
    if given.bandwidth_B_per_s and given.intensity_per_B:
        low, high = min(given.intensity_per_B) / 2, max(given.intensity_per_B) * 2
        for precision, peak in given.peak_per_s.items():
            ridge = peak / given.bandwidth_B_per_s
            x = sorted({low, min(max(ridge, low), high), high})
            figure.add_scatter(
                x=x,
                y=[min(peak, v * given.bandwidth_B_per_s) for v in x],
                mode="lines",
                name=f"roof, {precision}",
                line={"width": 1},
            )
    figure.update_xaxes(type="log", title="operations per byte moved", dtick=1)
    figure.update_yaxes(type="log", title="operations/s", exponentformat="SI", dtick=1)
    figure.update_layout(**_LAYOUT, title="Roofline", height=440)
    return figure


def timeline(given: numbers.Timeline) -> object:
    """Bars of work by resource over time, coloured by layer."""
    go = _graph_objects()
    figure = go.Figure(
        go.Bar(
            y=list(given.resource),
            base=[start * 1e3 for start in given.start_s],
            x=[max(length, 0.0) * 1e3 for length in given.length_s],
            orientation="h",
            text=list(given.label),
            textposition="none",
            marker={
                "color": list(given.layer),
                "colorscale": "Viridis",
                "line": {"width": 0},
                "colorbar": {"title": "layer"},
            },
            hovertemplate="%{text}<br>from %{base:.6g} ms for %{x:.4g} ms<extra></extra>",
        )
    )
    figure.update_layout(**_LAYOUT, title="Timeline", barmode="overlay", height=130 + 24 * len(given.resources))
    figure.update_xaxes(title="ms")
    figure.update_yaxes(categoryorder="array", categoryarray=list(reversed(given.resources)), automargin=True)
    return figure


def heat_maps(given: numbers.HeatMaps) -> object:
    """One map for each die, on one colour scale."""
    go = _graph_objects()
    from plotly.subplots import make_subplots

    count = len(given.names)
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = make_subplots(rows=rows, cols=columns, subplot_titles=list(given.names), horizontal_spacing=0.05)
    values = [value for one in given.maps_C for row in one for value in row]
    for index, one in enumerate(given.maps_C):
        figure.add_trace(
            go.Heatmap(
                z=[list(row) for row in one],
                zmin=min(values),
                zmax=max(values),
                colorscale="Inferno",
                showscale=index == 0,
                colorbar={"title": "°C"},
                hovertemplate="%{z:.2f} °C<extra></extra>",
            ),
            row=index // columns + 1,
            col=index % columns + 1,
        )
    figure.update_xaxes(showticklabels=False, constrain="domain")
    figure.update_yaxes(showticklabels=False, scaleanchor="x")
    figure.update_layout(**_LAYOUT, title="Temperature by die", height=120 + 240 * rows)
    return figure


def cross_section(given: numbers.PackageSection) -> object:
    """The cut as a map, layers from the bottom up, not to scale in height."""
    go = _graph_objects()
    steps = len(given.map_C[0])
    places = [(index + 0.5) * given.width_m / steps * 1e3 for index in range(steps)]
    names = [f"{index + 1} {layer}" for index, layer in enumerate(given.layers)]
    figure = go.Figure(
        go.Heatmap(
            z=[list(row) for row in given.map_C],
            x=places,
            y=names,
            colorscale="Inferno",
            colorbar={"title": "°C"},
            hovertemplate="%{y}, %{x:.2f} mm: %{z:.2f} °C<extra></extra>",
        )
    )
    figure.update_xaxes(title="mm")
    figure.update_yaxes(automargin=True)
    figure.update_layout(**_LAYOUT, title="Cross-section through the hottest place", height=150 + 24 * len(names))
    return figure


def temperature_over_time(given: dict[str, list[float]]) -> object:
    """The hottest tile of each die over the task."""
    go = _graph_objects()
    figure = go.Figure()
    for index, (name, values) in enumerate((n, v) for n, v in given.items() if n != "time_s"):
        figure.add_scatter(
            x=[t * 1e3 for t in given["time_s"]],
            y=values,
            name=name,
            mode="lines",
            line_color=PALETTE[index % len(PALETTE)],
        )
    figure.update_xaxes(title="ms")
    figure.update_yaxes(title="°C")
    figure.update_layout(**_LAYOUT, title="Hottest tile of each die over time", height=360)
    return figure
