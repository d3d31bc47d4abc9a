"""A training run's loss over its steps, the phases marked, as an SVG picture drawn from the log's numbers."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 900, 420, 70, 40, 20, 50
COLOURS = {"full": "#1f5fa8", "trial": "#c27c0e", "low": "#2e8b57"}


def loss_picture(points: Sequence[Sequence[Any]], decisions: Iterable[Mapping[str, Any]]) -> str:
    """An SVG of (step, loss, phase) points, on a logarithmic axis when all losses are positive."""
    losses = [float(point[1]) for point in points]
    log = bool(losses) and min(losses) > 0
    heights = [math.log10(one) if log else one for one in losses]
    low, high = (min(heights), max(heights)) if heights else (0.0, 1.0)
    span = (high - low) or 1.0
    last = max((float(point[0]) for point in points), default=1.0)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(height: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (height - low) / span

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for tick in range(5):
        height = low + span * tick / 4
        label = f"{10**height if log else height:.3g}"
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(height):.1f}" y2="{y(height):.1f}" stroke="#ddd"/>'
        )
        parts.append(f'<text x="{LEFT - 6}" y="{y(height) + 4:.1f}" text-anchor="end">{label}</text>')
        step = last * tick / 4
        parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{step:.0f}</text>')
    for index, (phase, colour) in enumerate(COLOURS.items()):
        line = [f"{x(float(p[0])):.1f},{y(h):.1f}" for p, h in zip(points, heights, strict=True) if p[2] == phase]
        if line:
            parts.append(f'<polyline points="{" ".join(line)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
            parts.append(f'<text x="{LEFT + 90 * index}" y="{TOP - 16}" fill="{colour}">{phase}</text>')
    for decision in decisions:
        if decision["action"] in ("trial", "switch"):
            at = x(float(decision["step"]))
            title = html.escape(f"{decision['action']} at step {decision['step']}: {decision['reason']}")
            parts.append(
                f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#555" '
                f'stroke-dasharray="4 3"><title>{title}</title></line>'
            )
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">step</text>')
    parts.append(
        f'<text x="14" y="{HEIGHT / 2}" transform="rotate(-90 14 {HEIGHT / 2})" text-anchor="middle">loss</text>'
    )
    return "\n".join([*parts, "</svg>", ""])
