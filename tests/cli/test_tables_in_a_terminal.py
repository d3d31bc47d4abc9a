"""Tables in terminals of any width: no figure is cut, whatever shape the table takes."""

from __future__ import annotations

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
