"""Tables in terminals of any width: no figure is cut, whatever shape the table takes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tierform.cli import output

HEAD = ["application", "GPU full (ms)", "chip low-rank (ms)", "time ratio", "energy ratio"]
ROWS = [["swe", "4.105", "3.005", "1.366", "4.516"], ["weather", "3.253", "0.5364", "6.065", "15.82"]]


Patch, Captured = pytest.MonkeyPatch, pytest.CaptureFixture[str]


def printed(monkeypatch: Patch, capsys: Captured, width: int, head: list[str], rows: list[list[str]]) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    output.console.cache_clear()
    output.print_table("Steps", head, rows)
    output.console.cache_clear()
    return capsys.readouterr().out


def test_does_a_wide_terminal_get_one_row_for_each(monkeypatch: Patch, capsys: Captured) -> None:
    lines = printed(monkeypatch, capsys, 120, HEAD, ROWS).splitlines()
    assert [line.split()[0] for line in lines if "." in line] == ["swe", "weather"]


def test_do_rows_and_columns_change_places_where_that_fits(monkeypatch: Patch, capsys: Captured) -> None:
    lines = printed(monkeypatch, capsys, 40, HEAD, ROWS).splitlines()
    assert any(line.split() == ["application", "swe", "weather"] for line in lines)
    assert any(line.split() == ["time", "ratio", "1.366", "6.065"] for line in lines)


def test_does_a_row_become_a_list_in_a_very_narrow_terminal(monkeypatch: Patch, capsys: Captured) -> None:
    rows = [[f"case-{row}", *(f"{row}.{column}25" for column in range(8))] for row in range(6)]
    lines = printed(monkeypatch, capsys, 30, ["case", *(f"figure {column}" for column in range(8))], rows).splitlines()
    assert "case-3" in lines
    assert any(line.split() == ["figure", "7", "3.725"] for line in lines)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    width=st.integers(24, 160),
    columns=st.integers(1, 9),
    rows=st.integers(1, 12),
    digits=st.integers(1, 9),
)
def test_is_no_number_ever_cut(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    width: int,
    columns: int,
    rows: int,
    digits: int,
) -> None:
    numbers = [[f"{(row * 9 + column) * 11 + 10**digits}" for column in range(columns)] for row in range(rows)]
    table = [[f"row-{row}", *numbers[row]] for row in range(rows)]
    words = printed(monkeypatch, capsys, width, ["name", *(f"c{column}" for column in range(columns))], table).split()
    assert all(
        words.count(number) == sum(line.count(number) for line in numbers) for line in numbers for number in line
    )


_CELL = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Cs", "Mn", "Me", "Mc", "Co", "Cn"]), max_size=70
)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(width=st.integers(60, 200), rows=st.lists(st.tuples(_CELL, _CELL, _CELL, _CELL), min_size=1, max_size=4))
def test_is_no_letter_lost_at_any_width(
    monkeypatch: Patch, capsys: Captured, width: int, rows: list[tuple[str, str, str, str]]
) -> None:
    head = ["what", "value", "kind", "why, source"]
    out = printed(monkeypatch, capsys, width, head, [list(row) for row in rows])
    shown = Counter(letter for letter in out if not letter.isspace())
    given_letters = Counter(letter for row in rows for cell in row for letter in cell if not letter.isspace())
    assert not given_letters - shown
    assert max(map(output.cell_len, out.splitlines())) <= width


def test_is_the_sentence_whole_that_lost_its_number(monkeypatch: Patch, capsys: Captured) -> None:
    # "two HBM2 stacks of 4 GiB" became "two HBM2 stacks of  GiB" at 76 to 81 columns
    row = [
        "reram.parts.output-register.energy",
        "read 0.8 pJ/bit, write 0.8 pJ/bit",
        "assumed",
        "two HBM2 stacks of 4 GiB",
    ]
    for width in range(60, 201):
        out = printed(monkeypatch, capsys, width, ["what", "value", "kind", "why, source"], [row])
        assert not Counter("".join(row).replace(" ", "")) - Counter(out), width


def test_does_a_terminal_obey_nothing_that_a_table_holds(monkeypatch: Patch, capsys: Captured) -> None:
    out = printed(
        monkeypatch, capsys, 100, ["name", "value"], [["\x1b[2Jgone", "\u202eright to left"], ["[red]x[/red]", ":a:"]]
    )
    assert not set(out) & {"\x1b", "\u202e"}
    assert "\\x1b[2Jgone" in out
    assert "[red]x[/red]" in out


@pytest.mark.parametrize("option", ["--json", "--json="])
def test_has_a_file_named_dash_standard_output_for_itself(tmp_path: Path, option: str) -> None:
    import json

    words = ["--json=-"] if option.endswith("=") else ["--json", "-"]
    done = subprocess.run(
        [sys.executable, "-m", "tierform", "list", "studies", *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert [one["name"] for one in json.loads(done.stdout)]
    assert "tierform reproduce" in done.stderr
    assert list(tmp_path.iterdir()) == []
