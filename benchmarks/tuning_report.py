"""What ``benchmarks/tuning.py compare`` wrote, as tables and as a picture.

``python benchmarks/tuning_report.py FILE.json... [--svg OUT.svg]`` prints the errors at the end, the seconds of a step
by phase, and how often HpT's rule found each of its conditions met in full training, for several window lengths,
beside what chance alone gives: the same window means and weight changes in a random order.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from tierform.files import write_text
from tierform.tuning.rule import slowing

METHODS = {"full": "#1f5fa8", "hybrid": "#c2410c", "lora": "#2e8b57"}
NAMES = {"full": "full throughout", "hybrid": "hybrid", "lora": "LoRA from the start"}
Run = dict[str, Any]


def runs_of(content: dict[str, Any], method: str) -> list[Run]:
    """A method's finished runs, by seed."""
    found = [seed[method] for _, seed in sorted(content["seeds"].items()) if method in seed]
    return [run for run in found if run["cpu_s"] >= content["settings"]["budget"]]


def errors(content: dict[str, Any]) -> None:
    """Errors at the end, steps, switches, seconds of a step by phase."""
    first = next(run for seed in content["seeds"].values() for run in seed.values())
    settings = content["settings"]
    print(
        f"\n{first['title']}: {first['unit']} after {settings['budget']:g} s of CPU time, "
        f"window {settings['window']}, rates {settings['rate']:g} (full) and {settings['low_rate']:g} (low-rank)"
    )
    for method, name in NAMES.items():
        own = runs_of(content, method)
        if own:
            last = [run["points"][-1][2] for run in own]
            spread = stdev(last) if len(last) > 1 else 0.0
            each = ", ".join(f"{one:.3f}" for one in last)
            print(
                f"  {name:20s} {mean(last):.3f} +- {spread:.3f} ({each}); steps {[run['steps'] for run in own]}, "
                f"switch {[run['switch'] for run in own]}"
            )
    print("  yardsticks: " + ", ".join(f"{key} {value:.3f}" for key, value in first["yardsticks"].items()))
    for phase in ("full", "trial", "low"):
        found = [
            run["by_phase"][phase] for method in NAMES for run in runs_of(content, method) if phase in run["by_phase"]
        ]
        if found:
            steps, seconds = (sum(one[index] for one in found) for index in (0, 1))
            print(f"  a step in phase {phase}: {1e3 * seconds / steps:.1f} ms over {steps:.0f} steps")
    for run in runs_of(content, "hybrid"):
        for one in run["decisions"]:
            if one["action"] != "wait":
                numbers = {k: round(v, 4) for k, v in one["numbers"].items() if isinstance(v, float)}
                print(f"  seed {run['seed']} step {one['step']}: {one['action']}, {one['reason']} {numbers}")


def met(series: Sequence[float], threshold: float) -> float:
    """Share of successive triples that meet the rule's conditions."""
    return mean(slowing(*series[i : i + 3], threshold)[0] for i in range(len(series) - 2))


def chance(series: Sequence[float], threshold: float, rounds: int = 300) -> float:
    """The same for random orders of the series."""
    rng = np.random.default_rng(0)
    return mean(met(rng.permutation(series).tolist(), threshold) for _ in range(rounds))


def rule(content: dict[str, Any]) -> None:
    """How often each condition held, by window length."""
    own = runs_of(content, "full")
    sizes = sorted((size for size in own[0].get("shadows", {})), key=int)
    print(
        "  window   loss met (chance)   weights met (chance)   both (product of chances)   fluctuation loss, weights "
        "  first trial"
    )
    for size in sizes:
        rows = []
        for run in own:
            told = run["shadows"][size]
            losses = [one["mean_loss"] for one in told]
            changes = [one["weight_change"] for one in told if one["weight_change"] is not None]
            if len(changes) < 3:
                continue
            both = [one["loss_test"] and one["weight_test"] for one in told[3:]]
            turns = [float(np.std(np.diff(np.log(one)))) / 2**0.5 for one in (losses, changes)]
            begins = next((one["step"] for one in told if one["action"] == "trial"), None)
            rows.append(
                (
                    met(losses, 0.1),
                    chance(losses, 0.1),
                    met(changes, 0.01),
                    chance(changes, 0.01),
                    mean(both),
                    *turns,
                    begins,
                )
            )
        if rows:
            a, b, c, d, e, f, g = (mean(row[i] for row in rows) for i in range(7))
            print(
                f"  {size:>6s}   {a:6.2f} ({b:.2f})       {c:6.2f} ({d:.2f})          {e:6.3f} ({b * d:.3f})  "
                f"{f:19.2f} {g:8.2f}           {[row[7] for row in rows]}"
            )


def picture(contents: list[dict[str, Any]]) -> str:
    """Error against CPU time, a panel per case: a line per seed, a dot for the error on all test samples at the end."""
    wide, high, left, top = 360, 300, 60, 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide * len(contents)}" height="{high}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for index, content in enumerate(contents):
        runs = [run for method in METHODS for run in runs_of(content, method)]
        values = [point[2] for run in runs for point in run["points"]]
        yard = {k: v for k, v in runs[0]["yardsticks"].items() if v <= max(values)}
        low, up = min([*values, *yard.values()]), max(values)
        low, up = low - 0.05 * (up - low), up + 0.05 * (up - low)
        last = content["settings"]["budget"]
        x0, x1, y0, y1 = wide * index + left, wide * (index + 1) - 14, top, high - 40

        def x(at: float, x0: float = x0, x1: float = x1, last: float = last) -> float:
            return x0 + (x1 - x0) * min(at / last, 1.0)

        def y(value: float, y0: float = y0, y1: float = y1, low: float = low, up: float = up) -> float:
            return y1 - (y1 - y0) * (value - low) / (up - low)

        parts.append(f'<text x="{x0}" y="16" font-weight="bold">{runs[0]["title"]}</text>')
        for tick in range(5):
            value, at = low + (up - low) * tick / 4, last * tick / 4
            parts.append(f'<line x1="{x0}" x2="{x1}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#e5e5e5"/>')
            parts.append(f'<text x="{x0 - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
            parts.append(f'<text x="{x(at):.1f}" y="{y1 + 15}" text-anchor="middle">{at:g}</text>')
        parts.append(f'<text x="{(x0 + x1) / 2}" y="{high - 8}" text-anchor="middle">s of CPU time</text>')
        middle = (y0 + y1) / 2
        parts.append(
            f'<text x="{x0 - 44}" y="{middle}" transform="rotate(-90 {x0 - 44} {middle})" '
            f'text-anchor="middle">{runs[0]["unit"]}</text>'
        )
        for name, value in yard.items():
            parts.append(
                f'<line x1="{x0}" x2="{x1}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#777" '
                f'stroke-dasharray="5 4"/><text x="{x1 - 2}" y="{y(value) - 4:.1f}" text-anchor="end" '
                f'fill="#555">{name}</text>'
            )
        for place, (method, colour) in enumerate(METHODS.items()):
            parts.append(f'<text x="{x0 + 92 * place}" y="34" fill="{colour}">{NAMES[method]}</text>')
            for run in runs_of(content, method):
                line = " ".join(f"{x(used):.1f},{y(error):.1f}" for used, _, error in run["points"][:-1])
                parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
                used, _, error = run["points"][-1]
                parts.append(f'<circle cx="{x(used):.1f}" cy="{y(error):.1f}" r="3" fill="{colour}"/>')
                if run["switch"] and method == "hybrid":
                    at = _when(run)
                    parts.append(
                        f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{y1 - 10}" y2="{y1}" '
                        f'stroke="{colour}" stroke-width="2"/>'
                    )
    return "\n".join([*parts, "</svg>", ""])


def _when(run: Run) -> float:
    """CPU seconds at the switch, between the tests before and after it by steps."""
    marks = [(0.0, 0), *((used, step) for used, step, _ in run["points"])]
    for (a, first), (b, second) in pairwise(marks):
        if first <= run["switch"] <= second:
            return float(a + (b - a) * (run["switch"] - first) / (second - first))
    return float(marks[-1][0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--svg")
    args = parser.parse_args()
    found = [json.loads(Path(name).read_text()) for name in args.files]
    for one in found:
        errors(one)
        rule(one)
    if args.svg:
        write_text(args.svg, picture(found))
