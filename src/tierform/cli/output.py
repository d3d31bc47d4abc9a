"""What the commands share: the console, plain tables, files to write, the ``--json`` option, and progress."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierform.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class OutputFile(click.Path):
    """A file to write: refused at once where it cannot be, and ``-`` is standard output."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False, allow_dash=True)

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; TierformError before any work when nothing can be written there."""
        from tierform.files import check_output

        check_output(str(value))
        if str(value) == "-":
            results_take_standard_output()
        return Path(value)


json_option = click.option("--json", "json_file", type=OutputFile(), help="Write every figure to this JSON file.")


def one_thread() -> None:
    """Keep linear algebra to one thread, before numpy is loaded: matrices here are small, and idle threads spin."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


SCREEN = 23  # lines of a terminal, beside the one of the next command
_LONGEST_WORD, _BROKEN_WORD, _PIPED_WIDTH, _GAP = 24, 10, 120, 2
# A number, perhaps signed, grouped and with a short unit.
_NUMBER = re.compile(r"[+-]?[\d.,]+(e[+-]?\d+)?( ?[^\s\d]\S{0,7})?( \S{1,8})?")
_errors_only = False


def results_take_standard_output() -> None:
    """What is written for people goes to standard error from here on: a file named ``-`` has standard output."""
    global _errors_only
    _errors_only = True
    console.cache_clear()


@lru_cache(maxsize=1)
def console() -> Console:
    """The console for people (standard output): texts as they are, without control characters of their own."""
    from rich.console import Console

    class Plain(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(printable(one) if isinstance(one, str) else one for one in objects), **options)

    stream = sys.stderr if _errors_only else sys.stdout
    piped = None if stream.isatty() or "COLUMNS" in os.environ else _PIPED_WIDTH
    return Plain(stderr=_errors_only, soft_wrap=False, width=piped, markup=False, emoji=False, highlight=False)


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print a table; columns of numbers are right-aligned, the first `left` never; no head if all of it is empty.

    Where the terminal is too narrow for the numbers and the words of the columns, rows and columns change places; where
    that does not help long words are broken, and at last each row becomes a list.  Nothing is ever cut.
    """
    head, rows = [_one_line(cell) for cell in head], [[_one_line(cell) for cell in row] for row in rows]
    shown = any(head)
    numeric, least = _columns(head, rows, left if shown else len(head))
    if rows and not _fits(least):
        turned_head, *turned = list(zip(head, *rows, strict=True))
        if shown and _fits(_columns(turned_head, turned, 1)[1]):
            print_table(title, turned_head, turned)
            return
        least = [width if number else min(width, _BROKEN_WORD) for width, number in zip(least, numeric, strict=True)]
        if not _fits(least):
            _print_lists(title, head, rows)
            return
    widths = _widths([max(map(cell_len, column)) for column in zip(head, *rows, strict=True)], least)
    if title:
        _print_line(title, "bold")
    if shown:
        _print_row(head, widths, numeric, "bold")
        _print_line("─" * (sum(widths) + _GAP * (len(widths) - 1)))
    for row in rows:
        _print_row(row, widths, numeric, "")
    console().print()


def _one_line(cell: str) -> str:
    return " ".join(printable(cell).split())


def _print_line(text: str, style: str = "") -> None:
    from rich.text import Text

    console().print(Text(text, style=style), crop=False, no_wrap=True, overflow="ignore")


def _print_row(row: Sequence[str], widths: Sequence[int], numeric: Sequence[bool], style: str) -> None:
    from rich.text import Text

    parts = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    for number in range(max(map(len, parts))):
        line = Text(style=style)
        for place, (part, width, right) in enumerate(zip(parts, widths, numeric, strict=True)):
            text = part[number] if number < len(part) else ""
            blank = " " * (width - cell_len(text))
            line.append((" " * _GAP if place else "") + (blank if right else ""))
            line.append(text, style="red" if row[place] == "FAIL" else "")
            line.append("" if right or place == len(parts) - 1 else blank)
        console().print(line, crop=False, no_wrap=True, overflow="ignore")


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` places; only a word that is longer than a line is broken."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and cell_len(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _widths(natural: Sequence[int], least: Sequence[int]) -> list[int]:
    """The width of each column: its natural one where all fit, else all that are wider cut down to one level."""
    room = console().width - _GAP * (len(natural) - 1)
    level = max(natural)
    while level > 1 and sum(min(one, max(low, level)) for one, low in zip(natural, least, strict=True)) > room:
        level -= 1
    return [max(1, min(one, max(low, level))) for one, low in zip(natural, least, strict=True)]


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> tuple[list[bool], list[int]]:
    """Whether each column holds numbers, and the least width that leaves its numbers and words whole."""
    numeric = [
        index >= left and all(_NUMBER.fullmatch(row[index]) for row in rows if row[index]) for index in range(len(head))
    ]
    least = [
        max(1, _longest(name), *(cell_len(row[index]) if numeric[index] else _longest(row[index]) for row in rows))
        for index, name in enumerate(head)
    ]
    return numeric, least


def cell_len(text: str) -> int:
    """Places of a terminal that a text takes: two for a wide character."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len as places

    return places(text)


def _fits(least: Sequence[int]) -> bool:
    return sum(least) + _GAP * (len(least) - 1) <= console().width


def _longest(text: str) -> int:
    """The longest word, up to a length at which words may be broken."""
    return min(max(map(cell_len, text.split()), default=0), _LONGEST_WORD)


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


def print_text(text: str, *, indent: int = 0, style: str = "") -> None:
    """Print a paragraph in lines of the console's width, those after the first one indented."""
    for line in lines_of(text, indent):
        _print_line(line, style)


def lines_of(text: str, indent: int = 0) -> list[str]:
    """The lines of :func:`print_text`."""
    room = max(20, console().width)
    first, *_ = lines = _wrapped(text, room)
    if len(lines) > 1:
        rest = text.split()[len(first.split()) :]
        lines = [first, *(" " * indent + line for line in _wrapped(" ".join(rest), room - indent))]
    return lines


def print_lines(lines: Sequence[str], end: str, room: int, more: str, *, whole: bool) -> None:
    """Paragraphs, as many as fit in `room` lines beside the last one, at least one; `more` tells how many there are."""
    left = room - 2
    shown = 0
    for line in lines:
        left -= len(lines_of(line, 2))
        if shown and left < 0 and not whole:
            break
        print_text(line, indent=2)
        shown += 1
    print_text(end if shown == len(lines) else f"{end}  {more.format(len(lines))}", indent=2)


def print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Labels and values, as many beside each other as fit."""
    label = max(cell_len(name) for name, _ in pairs)
    value = max(cell_len(text) for _, text in pairs)
    across = max(1, (console().width + 3) // (label + value + 5))
    rows = -(-len(pairs) // across)
    for row in range(rows):
        cells = [
            f"{name}{' ' * (label - cell_len(name))}  {text}{' ' * (value - cell_len(text))}"
            for name, text in pairs[row::rows]
        ]
        _print_line("   ".join(cells).rstrip())


def progress(**options: Any) -> Progress:
    """A progress display on standard error that vanishes when done; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    shown = Console(stderr=True)
    return Progress(console=shown, transient=True, disable=not shown.is_terminal, **options)
