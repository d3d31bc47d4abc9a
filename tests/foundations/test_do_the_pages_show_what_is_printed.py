"""Do README and documentation show what their commands print today, line by line?"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from pages import ROOT, Shown, missing, pages, printed, renewed


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_does_a_page_show_what_its_commands_print(page: Path) -> None:
    """`python tests/pages.py --write` renews the pages."""
    for block, lines in printed(page):
        assert not missing(block, lines), f"{block.commands} prints\n" + "\n".join(lines)


def test_is_a_line_found_that_is_not_printed_or_out_of_order() -> None:
    block = Shown("tierform list", ("time  1 s", "", "energy  2 J"), 0, 0)
    assert missing(block, ["time  1 s", "more", "energy  2 J"]) == []
    assert missing(block, ["time  1.1 s", "energy  2 J"]) == ["time  1 s", "energy  2 J"]
    assert missing(block, ["energy  2 J", "time  1 s"]) == ["energy  2 J"]


def test_does_a_renewed_part_take_the_lines_that_are_most_like_it() -> None:
    block = Shown("tierform list", ("time          54.33 ms", "energy        3.646 J"), 0, 0)
    lines = ["bert-large on atleus", "time          53.93 ms", "energy        3.640 J", "mean power    67.1 W"]
    assert renewed(block, lines) == lines[1:3]
