"""What the commands share: the console, plain tables, the ``--json`` option, and progress."""

from __future__ import annotations

import os
import re
import sys
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


_LONGEST_WORD, _BROKEN_WORD, _PIPED_WIDTH = 24, 10, 120
# A number, perhaps signed, grouped and with a short unit.
_NUMBER = re.compile(r"[+-]?[\d.,]+(e[+-]?\d+)?( ?[^\s\d]\S{0,7})?( \S{1,8})?")


@lru_cache(maxsize=1)
def console() -> Console:
    """The console for people (standard output)."""
    from rich.console import Console

    piped = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPED_WIDTH
    return Console(soft_wrap=False, width=piped)


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print a table; columns of numbers are right-aligned, the first `left` never; no head if all of it is empty.

    Where the terminal is too narrow for the numbers and the words of the columns, rows and columns change places; where
    that does not help long words are broken, and at last each row becomes a list.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = any(head)
    numeric, least = _columns(head, rows, left if shown else len(head))
    if shown and rows and not _fits(least):
        turned_head, *turned = list(zip(head, *rows, strict=True))
        if _fits(_columns(turned_head, turned, 1)[1]):
            print_table(title, turned_head, turned)
            return
        least = [width if number else min(width, _BROKEN_WORD) for width, number in zip(least, numeric, strict=True)]
        if not _fits(least):
            _print_lists(title, head, rows)
            return
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD if shown else None,
        show_header=shown,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for name, right, width in zip(head, numeric, least, strict=True):
        table.add_column(
            name, justify="right" if right else "left", overflow="fold", min_width=width if shown else None
        )
    for row in rows:
        table.add_row(*(Text(cell, style="red") if cell == "FAIL" else Text(cell) for cell in row))
    console().print(table)
    if not shown:
        console().print()


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> tuple[list[bool], list[int]]:
    """Whether each column holds numbers, and the least width that leaves its numbers and words whole."""
    numeric = [
        index >= left and all(_NUMBER.fullmatch(row[index]) for row in rows if row[index]) for index in range(len(head))
    ]
    least = [
        max(1, _longest(name), *(len(row[index]) if numeric[index] else _longest(row[index]) for row in rows))
        for index, name in enumerate(head)
    ]
    return numeric, least


def _fits(least: Sequence[int]) -> bool:
    return sum(least) + 2 * len(least) <= console().width


def _longest(text: str) -> int:
    """The longest word, up to a length at which words may be broken."""
    return min(max(map(len, text.split()), default=0), _LONGEST_WORD)


def _print_lists(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Each row as a list of its figures under its first cell."""
    from rich.text import Text

    width = max(map(len, head[1:]), default=0)
    console().print(Text(title, style="bold"))
    for row in rows:
        console().print(Text(f"\n{row[0]}"))
        for name, cell in zip(head[1:], row[1:], strict=True):
            if cell:
                console().print(Text(f"  {name:{width}}  {cell}", style="red" if cell == "FAIL" else ""))
    console().print()


def progress(**options: Any) -> Progress:
    """A progress display on standard error that vanishes when done."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), transient=True, **options)
