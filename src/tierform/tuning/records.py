"""What do the public tables say?  Wide and long CSV files, folders of a file per station, gaps and all.

A *wide* table has a row per time and a column per station, with or without a header and a first column of dates: wind
speeds of Deep-Forecast, the ETT tables.  *Records* are read from a long table (a row per time and station: county
tables with ``date`` and ``fips``), from a folder with one table per station, named after its file (reports of single
SNOTEL stations, AgWeatherNet exports), or from a table whose header holds the dates, one row per station (the county
time series of Johns Hopkins).  Lines that begin with # are skipped.  A column may be named without the unit that its
header carries: "Air Temperature Average" finds "Air Temperature Average (degF)".  Times written as ISO dates or as
month/day/year are put in order; others keep the order of their text.
Limits: units are not converted (samples are scaled by their own deviation).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from tierform.arrays import Singles
from tierform.errors import Problem, TierformError, fail, nearest
from tierform.files import read_text

MAX_TABLE_B = 2 * 2**30
MOST_PROBLEMS = 10
LARGEST = 1e12  # squares of such values, and sums of many of them, are still finite in 32 bits
GAPS = ("", "NA", "N/A", "NaN", "nan", "null")
Row = tuple[int, list[str]]


@dataclass(frozen=True, slots=True)
class Records:
    """`values` (times, stations, columns), NaN where nothing was recorded; times are ISO text where they are dates."""

    times: tuple[str, ...]
    stations: tuple[str, ...]
    columns: tuple[str, ...]
    values: Singles


def read_series(path: Path | str, columns: int | None = None) -> Singles:
    """A wide CSV as (times, stations); `columns` is the number of stations that must be there.  Gaps are refused."""
    rows = _rows(path)
    first = rows[0][1]
    skip = 0 if _is_number(first[-1]) else 1
    dated = 1 if len(rows) > skip and not _is_number(rows[skip][1][0]) and len(rows[skip][1]) > 1 else 0
    problems: list[Problem] = []
    if columns is not None and len(first) - dated != columns:
        problems.append(
            Problem(
                f"{columns} columns of values are needed",
                str(path),
                rows[skip][0] if len(rows) > skip else None,
                value=len(first) - dated,
            )
        )
    values = _numbers(path, rows[skip:], list(range(dated, len(first))), len(first), None, problems)
    if not len(values):
        fail("the table has no rows of values", file=str(path))
    return values


def read_records(
    path: Path | str,
    columns: Sequence[str] = (),
    *,
    time: str = "date",
    station: str = "station",
    needed: Sequence[str] = (),
    gaps: Collection[str] | None = None,
) -> Records:
    """The named columns (all others when none are named) of a long table, a folder, or a table of dates.

    `needed` are columns that must be among them.  `gaps` are the texts of missing values, with which the table may have
    gaps (NaN); None refuses a missing value.
    A table whose header holds the dates has one column, "value".
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.suffix.lower() in (".csv", ".txt") and one.is_file())
        if not files:
            fail("the folder has no .csv or .txt file", file=str(path))
        parts = [_long(one, columns, needed, time, None, gaps) for one in files]
    else:
        rows = _rows(path)
        head = rows[0][1]
        dates = [index for index, name in enumerate(head) if _date(name) is not None]
        if time not in head and len(dates) > 1:
            return _across(path, rows, dates, station, gaps)
        parts = [_long(path, columns, needed, time, station, gaps)]
    return _joined(path, parts)


Part = tuple[Path, list[int], list[str], list[str], tuple[str, ...], Singles]


def _long(
    path: Path,
    columns: Sequence[str],
    needed: Sequence[str],
    time: str,
    station: str | None,
    gaps: Collection[str] | None,
) -> Part:
    rows = _rows(path)
    line, head = rows[0]
    keys = [time] if station is None else [time, station]
    wanted = list(columns) or [one for one in head if one not in keys]
    problems: list[Problem] = []
    at = {one: _column(one, head, path, line, problems) for one in dict.fromkeys([*keys, *wanted, *needed])}
    if problems:
        raise TierformError(problems)
    values = _numbers(path, rows[1:], [at[one] for one in wanted], len(head), gaps, problems)
    times = [_moment(row[at[time]]) for _, row in rows[1:]]
    stations = [path.stem if station is None else row[at[station]] for _, row in rows[1:]]
    return path, [number for number, _ in rows[1:]], times, stations, tuple(wanted), values


def _column(name: str, head: Sequence[str], path: Path, line: int, problems: list[Problem]) -> int:
    if name in head:
        return head.index(name)
    hits = [index for index, one in enumerate(head) if one.split(" (")[0].strip() == name]
    if len(hits) == 1:
        return hits[0]
    what = "several columns have this name before their unit" if hits else "the table has no such column"
    problems.append(Problem(what, str(path), line, name, nearest=None if hits else nearest(name, head)))
    return 0


def _joined(path: Path, parts: Sequence[Part]) -> Records:
    times = sorted({one for part in parts for one in part[2]})
    stations = sorted({one for part in parts for one in part[3]})
    columns = parts[0][4]
    problems = [
        Problem("the tables of this folder have different columns", str(part[0]), value=", ".join(part[4]))
        for part in parts
        if part[4] != columns
    ]
    moment, place = ({name: index for index, name in enumerate(names)} for names in (times, stations))
    table = np.full((len(times), len(stations), len(columns)), np.nan, np.float32)
    seen = np.zeros(table.shape[:2], bool)
    for file, lines, own_times, own_stations, _, values in parts:
        if problems:
            break
        for line, when, where, row in zip(lines, own_times, own_stations, values, strict=True):
            spot = moment[when], place[where]
            if seen[spot] and len(problems) < MOST_PROBLEMS:
                problems.append(Problem("a second row for this station and time", str(file), line, where, when))
            seen[spot], table[spot] = True, row
    if problems:
        raise TierformError(problems)
    if not table.size:
        fail("the table has no rows of values", file=str(path))
    return Records(tuple(times), tuple(stations), columns, table)


def _across(path: Path, rows: list[Row], dates: list[int], station: str, gaps: Collection[str] | None) -> Records:
    line, head = rows[0]
    problems: list[Problem] = []
    at = _column(station, head, path, line, problems)
    values = _numbers(path, rows[1:], dates, len(head), gaps, problems)
    names = [row[at] for _, row in rows[1:]]
    times = [_moment(head[index]) for index in dates]
    order = np.argsort(times, kind="stable")
    for found, what in ((names, "a second row for this station"), (times, "a second column for this time")):
        again = sorted(name for name, count in Counter(found).items() if count > 1)
        problems += [Problem(what, str(path), value=name) for name in again[:MOST_PROBLEMS]]
    if problems:
        raise TierformError(problems)
    if not values.size:
        fail("the table has no rows of values", file=str(path))
    table = np.ascontiguousarray(values.T[order][:, :, None])
    return Records(tuple(times[index] for index in order), tuple(names), ("value",), table)


def _rows(path: Path | str) -> list[Row]:
    text = read_text(path, MAX_TABLE_B)
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    if not lines:
        fail("the table is empty", file=str(path))
    reader = csv.reader(line for _, line in lines)
    try:
        return [(lines[reader.line_num - 1][0], row) for row in reader]
    except csv.Error as error:
        fail(f"this is not a table: {error}", file=str(path), line=lines[reader.line_num - 1][0])


def _numbers(
    path: Path | str,
    rows: Sequence[Row],
    at: Sequence[int],
    width: int,
    gaps: Collection[str] | None,
    problems: list[Problem],
) -> Singles:
    """Columns of numbers; with `gaps` those texts and the usual ones become NaN, without them they are refused."""
    missing = set() if gaps is None else {*gaps, *GAPS}
    values = np.full((len(rows), len(at)), np.nan, np.float32)
    for index, (line, row) in enumerate(rows):
        if len(row) != width:
            problems.append(Problem(f"the row has {len(row)} values, the first has {width}", str(path), line))
        else:
            for place, column in enumerate(at):
                text = row[column].strip()
                value = _number(text)
                if text in missing:
                    continue
                if value is None:
                    what = f"a value is missing or not a finite number of at most {LARGEST:.0e}"
                    problems.append(Problem(what, str(path), line, f"column {column + 1}", text))
                else:
                    values[index, place] = value
        if len(problems) >= MOST_PROBLEMS:
            break
    if problems:
        raise TierformError(problems)
    return values


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text.strip()
    return True


def _date(text: str) -> datetime | None:
    text = text.strip()
    if len(text) < 6 or not text[0].isdigit() or ("-" not in text and "/" not in text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    for form in ("%m/%d/%y", "%m/%d/%Y", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S"):
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    return None


def _moment(text: str) -> str:
    """ISO text of a time, or the text itself."""
    found = _date(text)
    if found is None:
        return text.strip()
    whole_day = (found.hour, found.minute, found.second) == (0, 0, 0) and ":" not in text
    return found.date().isoformat() if whole_day else found.isoformat(sep=" ")
