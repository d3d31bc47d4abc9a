"""The load on each link, drawn on the network itself: one figure per tier, as SVG text.

The numbers are those given; :func:`load_map` returns what is drawn (positions, loads) without drawing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from tierform.network.topology import LINK_KINDS, FloatArray, Topology


def load_map(topology: Topology, link_load: Sequence[float] | FloatArray) -> list[dict[str, Any]]:
    """One entry per link: ends (x, y, tier) in metres, kind, load in flits per cycle."""
    heights, tier = np.unique(topology.position_m[:, 2], return_inverse=True)
    rows = []
    for link in range(topology.links):
        a, b = int(topology.link_source[link]), int(topology.link_target[link])
        rows.append(
            {
                "from": [*topology.position_m[a, :2].tolist(), int(tier[a])],
                "to": [*topology.position_m[b, :2].tolist(), int(tier[b])],
                "kind": LINK_KINDS[int(topology.link_kind[link])],
                "load": float(link_load[link]),
            }
        )
    assert len(heights) >= 1
    return rows


def load_map_svg(topology: Topology, link_load: Sequence[float] | FloatArray, title: str = "Load of the links") -> str:
    """The map as SVG: dark links are busy; the two directions lie side by side; vertical links are rings."""
    rows = load_map(topology, link_load)
    position = topology.position_m[:, :2]
    low = position.min(axis=0)
    span = max(float((position.max(axis=0) - low).max()), 1e-12)
    scale = 420.0 / span
    tiers = int(np.unique(topology.position_m[:, 2]).size)
    peak = max([row["load"] for row in rows], default=0.0) or 1.0
    width, height = 480 * tiers + 40, 560

    def place(end: list[float]) -> tuple[float, float]:
        return 50 + 480 * end[2] + (end[0] - low[0]) * scale, 60 + (end[1] - low[1]) * scale

    shapes = []
    for row in rows:
        (x1, y1), (x2, y2) = place(row["from"]), place(row["to"])
        share = row["load"] / peak
        colour = f"rgb({int(225 - 190 * share)},{int(225 - 200 * share)},{int(235 - 130 * share)})"
        label = f"<title>{row['kind']}: {row['load']:.4g} flits/cycle</title>"
        if row["from"][2] != row["to"][2]:
            radius = 9 if row["to"][2] > row["from"][2] else 13
            shapes.append(
                f'<circle cx="{x1:.1f}" cy="{y1:.1f}" r="{radius}" fill="none" stroke="{colour}" stroke-width="3">'
                f"{label}</circle>"
            )
            continue
        length = float(np.hypot(x2 - x1, y2 - y1)) or 1.0
        aside_x, aside_y = 3 * (y2 - y1) / length, -3 * (x2 - x1) / length
        shapes.append(
            f'<line x1="{x1 + aside_x:.1f}" y1="{y1 + aside_y:.1f}" x2="{x2 + aside_x:.1f}" y2="{y2 + aside_y:.1f}" '
            f'stroke="{colour}" stroke-width="4">{label}</line>'
        )
    _, tier = np.unique(topology.position_m[:, 2], return_inverse=True)
    for router in range(topology.routers):
        x, y = place([*position[router].tolist(), int(tier[router])])
        shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#333"><title>router {router}</title></circle>')
    head = f'<text x="20" y="28" font-size="18">{escape(title)}: darkest {peak:.4g} flits/cycle</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">'
        f'<rect width="100%" height="100%" fill="white"/>{head}{"".join(shapes)}</svg>\n'
    )
