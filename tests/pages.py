"""What the pages show as printed, held against what is printed: `python tests/pages.py --write` renews it.

A block of a page that shows an output stands below a comment with the commands that print it:

    <!-- printed by: tierform init chip my.yaml && COLUMNS=120 tierform simulate bert-base --chip my.yaml -->

The commands of one page run in one empty folder, in the page's order, 80 columns wide where they do not say otherwise.
A block may show a part of what the last of them prints: whole lines, in their order.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SHOWN = re.compile(r"<!-- printed by: (?P<commands>.+?) -->\n+```\n(?P<lines>.*?)```", re.S)


@dataclass(frozen=True)
class Shown:
    """A block of a page: the commands that print it, its lines, and where these stand in the page's text."""

    commands: str
    lines: tuple[str, ...]
    start: int
    end: int


def pages() -> list[Path]:
    """All pages that show an output."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    return sorted(page for page in found if _SHOWN.search(page.read_text()))


def shown(page: Path) -> list[Shown]:
    """The blocks of a page that show an output."""
    return [
        Shown(match["commands"], tuple(match["lines"].splitlines()), match.start("lines"), match.end("lines"))
        for match in _SHOWN.finditer(page.read_text())
    ]


def printed(page: Path) -> Iterator[tuple[Shown, list[str]]]:
    """Each block of a page with the lines that its last command prints."""
    with tempfile.TemporaryDirectory() as folder:
        for block in shown(page):
            lines: list[str] = []
            for command in block.commands.split("&&"):
                words = shlex.split(command)
                variables = {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": str(ROOT / "src")}
                while "=" in words[0]:
                    name, _, value = words.pop(0).partition("=")
                    variables[name] = value
                assert words[0] == "tierform", f"{page.name}: {command}"
                done = subprocess.run(
                    [sys.executable, "-m", *words],
                    capture_output=True,
                    text=True,
                    cwd=folder,
                    check=False,
                    env={**os.environ, **variables},
                )
                lines = [line.rstrip() for line in (done.stdout + done.stderr).splitlines()]
            yield block, lines


def missing(block: Shown, lines: list[str]) -> list[str]:
    """Lines of the block that are not printed, or not in this order."""
    rest = iter(lines)
    return [line for line in block.lines if line.strip() and not any(line.rstrip() == other for other in rest)]


def renewed(block: Shown, lines: list[str]) -> list[str]:
    """The block with each line as it is printed now: the printed line that is most like it; as it was, if none is."""
    if len(lines) == len(block.lines):
        return lines
    found = []
    for line in block.lines:
        like = difflib.get_close_matches(line, lines, n=1, cutoff=0.5)
        found.append(like[0] if like else line)
    return found


def main() -> None:
    """Tell what differs, or renew it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="renew the pages")
    write = parser.parse_args().write
    for page in pages():
        text, shift = page.read_text(), 0
        for block, lines in printed(page):
            wrong = missing(block, lines)
            if not wrong:
                continue
            print(f"{page.relative_to(ROOT)}: {block.commands}", *(f"  {line}" for line in wrong), sep="\n")
            made = "".join(f"{line}\n" for line in renewed(block, lines))
            text = text[: block.start + shift] + made + text[block.end + shift :]
            shift += len(made) - (block.end - block.start)
        if write:
            page.write_text(text)


if __name__ == "__main__":
    main()
