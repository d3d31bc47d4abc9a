"""The results of a study in one SQLite file that any number of processes write to, and that survives a kill.

Each point has one row, found by a hash of what was chosen.  A row waits, is leased to a process for a time, and is
done.  A process takes rows and gives results in one transaction each (write-ahead log), so that a kill leaves every
row in one of the three states: what was leased to a process that is gone waits again, at once where the process was on
this machine, after the lease elsewhere.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.exploration.evaluator import Outcome
from tierform.exploration.space import Values, point_text, text_key
from tierform.units import whole_number

WAITING, LEASED, DONE = range(3)
LEASE_S = 600.0
# Room for the index of a large study, whose keys arrive in no order.
CACHE_KIB = 256 << 10
_TABLES = """
CREATE TABLE IF NOT EXISTS study (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS points (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL, chosen TEXT NOT NULL, state INTEGER NOT NULL DEFAULT 0,
    worker TEXT, until REAL, attempts INTEGER NOT NULL DEFAULT 0,
    figures BLOB, objectives BLOB, violation REAL, reason TEXT
);
CREATE TABLE IF NOT EXISTS named (number INTEGER PRIMARY KEY, names TEXT NOT NULL UNIQUE);
CREATE INDEX IF NOT EXISTS by_state ON points (state) WHERE state < 2;
"""
_BY_KEY = "CREATE UNIQUE INDEX IF NOT EXISTS by_key ON points (key)"
# From so many points on, keys are compared in memory and sorted into their index once, at the end.
MANY = 20_000
# So many rows go into one statement then, which takes a fifth less time than one by one.
TOGETHER = 20
PAGE_B = 16_384
# The log may hold so many pages (128 MiB) before it goes into the file: keys in no order touch most of the index.
CHECKPOINT_PAGES = 8192
_ONE = "(?, ?, 2, ?, ?, ?, ?)"
_DONE = "INSERT OR IGNORE INTO points (key, chosen, state, figures, objectives, violation, reason) VALUES " + _ONE
_DONE_TOGETHER = ", ".join([_DONE, *[_ONE] * (TOGETHER - 1)])
DoneRow = tuple[str, str, bytes, bytes, float, str]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """A point that is done."""

    number: int
    chosen: Values
    outcome: Outcome


def worker_name() -> str:
    """Machine, process and the time at which it began: another process of the same number is not this one."""
    return f"{socket.gethostname()}/{os.getpid()}/{_born(os.getpid())}"


def _born(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _lives(worker: str) -> bool:
    """Whether a worker may still be at work; one of another machine may."""
    host, _, rest = worker.partition("/")
    number, _, born = rest.partition("/")
    if host != socket.gethostname() or whole_number(number) is None:
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _born(int(number)) == born


def _together(rows: Iterator[DoneRow], last: list[DoneRow]) -> Iterator[tuple[str | bytes | float, ...]]:
    """The values of so many rows at a time; those that are left at the end are put into `last`."""
    while len(part := list(islice(rows, TOGETHER))) == TOGETHER:
        yield tuple(chain.from_iterable(part))
    last += part


@cache
def _doubles(number: int) -> Struct:
    return Struct(f"={number}d")


class ResultsBase:
    """A study's file.  One object a process."""

    def __init__(self, path: Path | str, *, must_exist: bool = False) -> None:
        self.path = Path(path)
        if must_exist and not self.path.is_file():
            fail("no such study", file=str(path))
        try:
            self._base = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
            self._base.execute(f"PRAGMA page_size = {PAGE_B}")  # of a new file
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            self._base.execute("PRAGMA synchronous = NORMAL")
            self._base.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self._base.executescript(_TABLES + _BY_KEY)
        except sqlite3.DatabaseError as error:
            fail(f"this file is not a study: {error}", file=str(path))
        self.worker = worker_name()
        # The number of some names in the file, and how it and their figures are packed.
        self._names: dict[tuple[str, ...], tuple[int, Struct]] = {}

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield self._base
        except BaseException:
            self._base.execute("ROLLBACK")
            self._names.clear()
            raise
        self._base.execute("COMMIT")

    # -- what the study is -----------------------------------------------------------------------------------
    def fact(self, key: str) -> str | None:
        """A fact of the study."""
        row = self._base.execute("SELECT value FROM study WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_fact(self, key: str, value: str) -> None:
        """Keep a fact; what stands already stays."""
        with self._change() as base:
            base.execute("INSERT OR IGNORE INTO study VALUES (?, ?)", (key, value))

    def put_fact(self, key: str, value: str) -> None:
        """Keep a fact in place of what stands."""
        with self._change() as base:
            base.execute("INSERT OR REPLACE INTO study VALUES (?, ?)", (key, value))

    # -- figures as numbers ----------------------------------------------------------------------------------
    def _packed(self, figures: Mapping[str, float]) -> bytes:
        """The number of the names (8 bytes), and the figures; within a transaction."""
        names = tuple(figures)
        known = self._names.get(names)
        if known is None:
            text = json.dumps(names)
            self._base.execute("INSERT OR IGNORE INTO named (names) VALUES (?)", (text,))
            number = self._base.execute("SELECT number FROM named WHERE names = ?", (text,)).fetchone()[0]
            known = self._names[names] = int(number), Struct(f"=q{len(names)}d")
        return known[1].pack(known[0], *figures.values())

    def _unpack(self) -> Callable[[bytes | str], dict[str, float]]:
        names = {number: json.loads(text) for number, text in self._base.execute("SELECT number, names FROM named")}

        def unpacked(kept: bytes | str) -> dict[str, float]:
            if isinstance(kept, str):  # written by an earlier version
                figures: dict[str, float] = json.loads(kept)
                return figures
            return dict(zip(names[array("q", kept[:8])[0]], array("d", kept[8:]), strict=True))

        return unpacked

    # -- points ----------------------------------------------------------------------------------------------
    def add(self, points: Iterable[Values], *, done: int | None = None) -> int:
        """Add points that are not there yet; how many were new.

        With `done` nothing is added unless so many are done and none waits or is leased: another process was faster.
        """
        rows = [(text_key(text), text) for text in map(point_text, points)]
        with self._change() as base:
            if done is not None and self.counts() != (0, 0, done):
                return 0
            before = base.total_changes
            base.executemany("INSERT OR IGNORE INTO points (key, chosen) VALUES (?, ?)", rows)
            return base.total_changes - before

    def lease(self, number: int, *, seconds: float = LEASE_S) -> list[tuple[int, Values]]:
        """Up to `number` waiting points, which are this process's until the lease ends."""
        with self._change() as base:
            self._recover(base)
            rows = base.execute(
                "SELECT number, chosen FROM points WHERE state = 0 ORDER BY number LIMIT ?", (number,)
            ).fetchall()
            base.executemany(
                "UPDATE points SET state = 1, worker = ?, until = ?, attempts = attempts + 1 WHERE number = ?",
                [(self.worker, time.time() + seconds, row[0]) for row in rows],
            )
        return [(int(row[0]), json.loads(row[1])) for row in rows]

    def _recover(self, base: sqlite3.Connection) -> None:
        """What was leased to processes that are gone waits again."""
        gone = [
            worker
            for (worker,) in base.execute("SELECT DISTINCT worker FROM points WHERE state = 1").fetchall()
            if not _lives(worker)
        ]
        for worker in gone:
            base.execute("UPDATE points SET state = 0, worker = NULL WHERE state = 1 AND worker = ?", (worker,))
        base.execute("UPDATE points SET state = 0, worker = NULL WHERE state = 1 AND until < ?", (time.time(),))

    def give(self, results: Sequence[tuple[int, Outcome, Sequence[float]]]) -> int:
        """Write outcomes of leased points; a point that is done already stays as it is.  How many were written."""
        with self._change() as base:
            rows = [
                (
                    self._packed(outcome.figures),
                    _doubles(len(objectives)).pack(*objectives),
                    outcome.violation,
                    outcome.reason,
                    number,
                )
                for number, outcome, objectives in results
            ]
            before = base.total_changes
            base.executemany(
                "UPDATE points SET state = 2, worker = NULL, figures = ?, objectives = ?, violation = ?, reason = ? "
                "WHERE number = ? AND state < 2",
                rows,
            )
            return base.total_changes - before

    def give_back(self, numbers: Sequence[int]) -> None:
        """End this process's leases without a result."""
        with self._change() as base:
            base.executemany(
                "UPDATE points SET state = 0, worker = NULL WHERE number = ? AND state = 1 AND worker = ?",
                [(number, self.worker) for number in numbers],
            )

    def write_done(self, rows: Iterable[tuple[Values, Outcome, Sequence[float]]]) -> int:
        """Add points with their outcomes, evaluated elsewhere; how many were new."""
        with self._change() as base:
            made = map(self._done_row, rows)
            first = list(islice(made, MANY))
            before = self._last_number()
            last: list[DoneRow] = []
            if len(first) < MANY:
                base.executemany(_DONE_TOGETHER, _together(iter(first), last))
                base.executemany(_DONE, last)
            else:
                known = {key for (key,) in base.execute("SELECT key FROM points")}
                base.execute("DROP INDEX IF EXISTS by_key")
                fresh = self._new(chain(first, made), known)
                base.executemany(_DONE_TOGETHER, _together(fresh, last))
                base.executemany(_DONE, last)
                base.execute(_BY_KEY)
            return self._last_number() - before

    def _last_number(self) -> int:
        """The number of the last point, which is how many there are: numbers have no gaps, and no point goes."""
        return int(self._base.execute("SELECT coalesce(max(number), 0) FROM points").fetchone()[0])

    def _done_row(self, row: tuple[Values, Outcome, Sequence[float]]) -> DoneRow:
        point, outcome, objectives = row
        text = point_text(point)
        packed = self._packed(outcome.figures)
        wanted = _doubles(len(objectives)).pack(*objectives)
        return text_key(text), text, packed, wanted, outcome.violation, outcome.reason

    @staticmethod
    def _new(rows: Iterable[DoneRow], known: set[str]) -> Iterator[DoneRow]:
        for row in rows:
            if row[0] not in known:
                known.add(row[0])
                yield row

    # -- reading ---------------------------------------------------------------------------------------------
    def counts(self) -> tuple[int, int, int]:
        """Points that wait, are leased, are done."""
        found = dict(self._base.execute("SELECT state, count(*) FROM points GROUP BY state").fetchall())
        return found.get(WAITING, 0), found.get(LEASED, 0), found.get(DONE, 0)

    def values(self, objectives: int) -> tuple[NDArray[np.int64], Floats, Floats]:
        """Numbers, (points, objectives) objectives (least is best, nan where refused), violations."""
        rows = self._base.execute(
            "SELECT number, objectives, violation FROM points WHERE state = 2 ORDER BY number"
        ).fetchall()
        numbers = np.array([row[0] for row in rows], np.int64)
        values = np.frombuffer(b"".join(row[1] for row in rows), np.float64).reshape(len(rows), objectives)
        return numbers, values, np.array([row[2] for row in rows], np.float64)

    def rows(self, numbers: Iterable[int] | None = None) -> list[Row]:
        """Points that are done, all or those of these numbers, in order."""
        query = "SELECT number, chosen, figures, violation, reason FROM points WHERE state = 2"
        if numbers is None:
            found = self._base.execute(query + " ORDER BY number").fetchall()
        else:
            found = [self._base.execute(query + " AND number = ?", (int(one),)).fetchone() for one in numbers]
        unpacked = self._unpack()
        return [
            Row(int(row[0]), json.loads(row[1]), Outcome(unpacked(row[2]), float(row[3]), str(row[4])))
            for row in found
            if row is not None
        ]
