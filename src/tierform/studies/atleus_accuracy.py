"""The accuracy table of the Atleus study: what noisy crossbars take from a fine-tuned model, with and without noise in
its training.

Published: less than 0.5 points lost against an ideal device with noise-aware LoRA (RoBERTa-base and BERT-large on SQuAD
and SWAG).  Here: a small ViT, pre-trained without labels and fine-tuned by LoRA on tilted digits, on this library's
Atleus with a 2 % error of every cell's range (``short``: one training, two chips; ``long``: three trainings, three
chips each and more steps), or any run of ``tierform accuracy --json FILE``.
Limits: neither the paper's sigma nor its models' figures are known; ``short`` is too short to judge the claim by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tierform.errors import MissingDependency, fail
from tierform.studies.study import Cell, StudyOptions, Table

PUBLISHED_LOSS = 0.5  # points; "less than"
TITLE = "Accuracy under device noise"
HEAD = ("line", "accuracy (%)", "+-", "points lost", "+- points", "published (points)", "runs")
NOISE = "programming-2pct"
SCHEMA = "tierform.accuracy/1"
WITH, WITHOUT = "adapted with noise, noisy device", "adapted without noise, noisy device"


@dataclass(frozen=True, slots=True)
class Run:
    """How long to train, how often, and on how many test images (0: all) to measure."""

    pretraining: int
    steps: int
    seeds: int
    instances: int
    limit: int


RUNS = {"short": Run(300, 100, 1, 2, 500), "long": Run(1000, 250, 3, 3, 0)}


def accuracy(options: StudyOptions, chip: str) -> tuple[Table | None, str]:
    """The table by the setting ``accuracy`` (None where it is left out), and a remark on it."""
    chosen = options.settings.get("accuracy", "none" if options.quick else "short")
    if chosen == "none":
        return None, "Not computed: accuracy under noise (set accuracy=short, long or a file of `tierform accuracy`)."
    if chosen.endswith(".json"):
        found = _read(chosen)
        if found["chip"] != chip:
            fail(f"this run is not of {chip!r}", file=chosen, key="chip", value=found["chip"])
    elif chosen in RUNS:
        try:
            found = _run(options, chip, RUNS[chosen])
        except MissingDependency as missing:
            return None, f"Not computed: accuracy under noise. {missing}"
    else:
        fail(
            "unknown way to find the accuracy",
            key="accuracy",
            value=chosen,
            choices=(*RUNS, "none"),
            fix="short, long, none, or a .json file of `tierform accuracy`.",
        )
    return _table(found), _remark(found)


def lost(table: Table | None, line: str) -> tuple[float, float] | None:
    """Points lost on a line of the table and their half width (infinite of a single run); None without such a line."""
    for row in table.rows if table is not None else ():
        if row[0] == line and isinstance(row[3], float):
            return row[3], float(row[4]) if isinstance(row[4], float) else math.inf
    return None


def _run(options: StudyOptions, chip: str, form: Run) -> dict[str, object]:
    try:
        from tierform.numerics.accuracy import accuracy_table
        from tierform.numerics.adapters import Adapting
        from tierform.numerics.tasks import pretrain
        from tierform.numerics.tilted import tilted_digits
    except ImportError:
        raise MissingDependency("torch", "the accuracy table", "train") from None
    options.say("accuracy: pre-training a small ViT")
    task = tilted_digits()
    model = pretrain(task, steps=form.pretraining, seed=options.seed)
    adapting = Adapting(form.steps, 48, 5e-3, 16, targets=("all",), train_norms=True, resample_every=4)
    table = accuracy_table(
        model,
        task,
        chip,
        noise=NOISE,
        seeds=form.seeds,
        instances=form.instances,
        adapting=adapting,
        limit=form.limit,
        progress=lambda what, done, total: options.say(f"accuracy: {what} ({done}/{total})"),
    )
    return table.to_dict()


def _read(name: str) -> dict[str, object]:
    from tierform.files import read_json

    content: object = read_json(Path(name)).content
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("lines"), list):
        fail("this is not a run of `tierform accuracy`", file=name, key="schema", fix="Write it with --json FILE.")
    return content


def _table(found: dict[str, Any]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for line in found["lines"]:
        points = line["points_lost"]
        many = len(line["runs"]) > 1
        rows.append(
            (
                line["name"],
                100 * line["accuracy"],
                100 * line["half_width"] if many else None,
                None if points is None else float(points),
                line["points_half_width"] if many and points is not None else None,
                f"< {PUBLISHED_LOSS}" if line["name"] == WITH else None,
                len(line["runs"]),
            )
        )
    settings = found["settings"]
    peaks = settings.get("peak_rank", 0)
    held = f" ({peaks} more hold the large weights with noise in training)" if peaks else ""
    note = (
        f"{found['task']}, {found['examples']} {found['unit']}, {found['bits']}, noise {', '.join(found['noise'])}; "
        f"LoRA of rank {settings.get('rank')}{held} on {', '.join(settings.get('targets', ()))}, "
        f"{settings.get('steps')} steps each; 95 % intervals over runs (a training on a chip that none saw); "
        "points against the ideal device."
    )
    return Table(TITLE, HEAD, tuple(rows), note)


def _remark(found: dict[str, Any]) -> str:
    table = _table(found)
    aware, unaware = lost(table, WITH), lost(table, WITHOUT)
    if aware is None or unaware is None:
        return "The accuracy run given has no adapters: the published loss is not checked."
    low, high = aware[0] - aware[1], aware[0] + aware[1]
    kept = "Within" if high < PUBLISHED_LOSS else "Missed:" if low > PUBLISHED_LOSS else "Not decided by these runs:"
    held = " and the large weights in the adapters" if found["settings"].get("peak_rank", 0) else ""
    return (
        f"{kept} the published loss of less than {PUBLISHED_LOSS} points: {aware[0]:.2f} points with noise in "
        f"training{held}, {unaware[0]:.2f} without, on {found['task']} (the paper's are SQuAD and SWAG, of "
        "RoBERTa-base and BERT-large)."
    )
