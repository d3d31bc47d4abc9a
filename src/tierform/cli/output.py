"""What the commands share: the console, plain tables, the ``--json`` option, and progress."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

json_option = click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write every figure to this JSON file."
)


def one_thread() -> None:
    """Keep linear algebra to one thread, before numpy is loaded: matrices here are small, and idle threads spin."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


# A number, perhaps signed, grouped and with a short unit.
_NUMBER = re.compile(r"[+-]?[\d.,]+(e[+-]?\d+)?( ?[^\s\d]\S{0,7})?( \S{1,8})?")


@lru_cache(maxsize=1)
def console() -> Console:
    """The console for people (standard output)."""
    from rich.console import Console

    return Console(soft_wrap=False)


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print a table; columns of numbers are right-aligned, the first `left` never; no head if all of it is empty."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = any(head)
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD if shown else None,
        show_header=shown,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for index, name in enumerate(head):
        numeric = shown and index >= left and all(_NUMBER.fullmatch(row[index]) for row in rows if row[index])
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=bool(numeric))
    for row in rows:
        table.add_row(*(Text(cell, style="red") if cell == "FAIL" else Text(cell) for cell in row))
    console().print(table)
    if not shown:
        console().print()


def progress(**options: Any) -> Progress:
    """A progress display on standard error that vanishes when done."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), transient=True, **options)
