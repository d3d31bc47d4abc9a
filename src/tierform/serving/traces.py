"""Traces of requests: files that services and benchmarks publish, read into arrays.

The kind of a file is seen from its columns or keys; a bad line is refused with its number.

| kind | what tells it | arrival | content |
|---|---|---|---|
| azure | CSV with ``TIMESTAMP``, ``ContextTokens``, ``GeneratedTokens`` (2023 and 2024) | date and time | |
| plain | CSV with ``arrival_s``, ``prompt_tokens``, ``output_tokens`` (and ``priority``) | seconds | |
| burstgpt | CSV with ``Timestamp``, ``Request tokens``, ``Response tokens`` | seconds | |
| vidur | CSV with ``arrived_at``, ``num_prefill_tokens``, ``num_decode_tokens`` | seconds | |
| mooncake | JSON lines with ``timestamp``, ``input_length``, ``output_length``, ``hash_ids`` | ms | ids of 512 tokens |
| llmservingsim | JSON lines: ``arrival_time_ns``, ``input_toks``, ``output_toks``, ``input_tok_ids`` | ns | token ids |
| vllm-bench | one JSON object with ``input_lens``, ``output_lens`` and ``start_times`` | seconds | |

Failed requests of BurstGPT (no response tokens) keep their zero length.  Sources of the formats: each project's own
published files.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np

from tierform.errors import Problem, TierformError, fail
from tierform.files import json_value, read_text
from tierform.registry import Registry
from tierform.serving.requests import HashIds, Requests, TokenIds

MOST_BYTES = 2**30
SHOWN_PROBLEMS = 20
Table = list[tuple[int, list[str]]]  # (line number, cells)

READERS = Registry(
    "trace format",
    "tierform.traces",
    {
        "azure": "tierform.serving.traces:read_azure",
        "plain": "tierform.serving.traces:read_plain",
        "burstgpt": "tierform.serving.traces:read_burstgpt",
        "vidur": "tierform.serving.traces:read_vidur",
        "mooncake": "tierform.serving.traces:read_mooncake",
        "llmservingsim": "tierform.serving.traces:read_llmservingsim",
        "vllm-bench": "tierform.serving.traces:read_vllm_bench",
    },
)
_BY_COLUMNS = {
    "azure": ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    "plain": ("arrival_s", "prompt_tokens", "output_tokens"),
    "burstgpt": ("Timestamp", "Request tokens", "Response tokens"),
    "vidur": ("arrived_at", "num_prefill_tokens", "num_decode_tokens"),
    "mooncake": ("timestamp", "input_length", "output_length"),
    "llmservingsim": ("arrival_time_ns", "input_toks", "output_toks"),
    "vllm-bench": ("input_lens", "output_lens"),
}


def load_trace(path: str | Path, kind: str | None = None) -> Requests:
    """The requests of a trace file, in order of arrival, the first of them at time 0.

    `kind` is one of the formats above; by default the file's own columns tell it.  Raises TierformError with every bad
    line (the first twenty).
    """
    text = read_text(path, MOST_BYTES)
    name = kind or _kind_of(text, str(path))
    found: Requests = READERS.get(name)(text, str(path))
    return found


def _kind_of(text: str, file: str) -> str:
    start = text.lstrip()
    first = start.split("\n", 1)[0]
    keys: set[str] = set()
    if first.startswith("{"):
        try:
            record = json_value(first)
        except ValueError:
            try:
                record = json_value(text)
            except ValueError as error:
                fail(f"neither CSV nor JSON: {error}", file=file, line=1)
        keys = set(record) if isinstance(record, dict) else set()
    else:
        keys = {cell.strip() for cell in first.split(",")}
    for name, columns in _BY_COLUMNS.items():
        if keys.issuperset(columns):
            return name
    fix = "Known: " + "; ".join(f"{name} ({', '.join(columns)})" for name, columns in _BY_COLUMNS.items()) + "."
    return fail("no trace format has these columns", file=file, line=1, value=", ".join(sorted(keys)), fix=fix)


class _Lines:
    """Values of a file's lines, with the problems found on the way."""

    def __init__(self, file: str) -> None:
        self.file, self.problems = file, list[Problem]()

    def wrong(self, line: int, what: str, key: str | None = None, value: object = None) -> None:
        """Note a bad line."""
        self.problems.append(Problem(what, self.file, line, key, value))

    def tokens(self, line: int, key: str, value: object) -> int:
        """A number of tokens."""
        try:
            number = float(str(value))
            if number == int(number) and 0 <= number < 2**30:
                return int(number)
        except (ValueError, OverflowError):
            pass
        self.wrong(line, "a number of tokens is needed, from 0", key, value)
        return 0

    def seconds(self, line: int, key: str, value: object, unit: float = 1e9) -> float:
        """A time in nanoseconds."""
        try:
            number = float(str(value)) * unit
            if 0 <= number < 9e18:
                return number
        except ValueError:
            pass
        self.wrong(line, "a time is needed, from 0", key, value)
        return 0.0

    def done(self, requests: Callable[[], Requests]) -> Requests:
        """The requests, or every problem."""
        if self.problems:
            rest = len(self.problems) - SHOWN_PROBLEMS
            more = [Problem(f"{rest} more lines are bad", self.file)] if rest > 0 else []
            raise TierformError(self.problems[:SHOWN_PROBLEMS] + more)
        return requests()


def _table(text: str, file: str, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> tuple[_Lines, Table, int]:
    """The cells of a CSV file in the order of `columns` and, where they exist, of `optional` ones."""
    lines = _Lines(file)
    reader = csv.reader(text.splitlines())
    head = [cell.strip() for cell in next(reader, [])]
    for name in columns:
        if name not in head:
            fail("this column is missing", file=file, line=1, key=name, value=", ".join(head))
    kept = [*columns, *(name for name in optional if name in head)]
    places = [head.index(name) for name in kept]
    rows: Table = []
    for cells in reader:
        if not cells or not any(cells):
            continue
        if len(cells) < len(head):
            lines.wrong(reader.line_num, f"{len(head)} cells are needed", value=len(cells))
            continue
        rows.append((reader.line_num, [cells[place] for place in places]))
    return lines, rows, len(kept)


def _made(
    lines: _Lines,
    arrivals: list[float],
    prompts: list[int],
    outputs: list[int],
    kind: str,
    priority: list[int] | None = None,
) -> Requests:
    def build() -> Requests:
        times = np.array(arrivals, float)
        order = np.argsort(times, kind="stable")
        start = times.min() if len(times) else 0.0
        return Requests(
            arrival_ns=np.rint(times[order] - start).astype(np.int64),
            prompt=np.array(prompts, np.int64)[order],
            output=np.array(outputs, np.int64)[order],
            priority=np.array(priority, np.int64)[order] if priority else np.empty(0, np.int64),
            source=f"{kind}: {Path(lines.file).name}",
        )

    return lines.done(build)


def _by_seconds(text: str, file: str, kind: str) -> Requests:
    columns = _BY_COLUMNS[kind]
    lines, rows, kept = _table(text, file, columns, ("priority",))
    priority = [lines.tokens(number, "priority", cells[3]) for number, cells in rows] if kept > 3 else None
    return _made(
        lines,
        [lines.seconds(number, columns[0], cells[0]) for number, cells in rows],
        [lines.tokens(number, columns[1], cells[1]) for number, cells in rows],
        [lines.tokens(number, columns[2], cells[2]) for number, cells in rows],
        kind,
        priority,
    )


def read_plain(text: str, file: str) -> Requests:
    """Seconds from the start, prompt and output tokens, and a priority where there is one."""
    return _by_seconds(text, file, "plain")


def read_burstgpt(text: str, file: str) -> Requests:
    """BurstGPT (Wang et al., 2024)."""
    return _by_seconds(text, file, "burstgpt")


def read_vidur(text: str, file: str) -> Requests:
    """Vidur's traces (Agrawal et al., 2024)."""
    return _by_seconds(text, file, "vidur")


def read_azure(text: str, file: str) -> Requests:
    """Azure's LLM inference traces of 2023 and 2024: a date with up to seven digits of a second, and two lengths."""
    columns = _BY_COLUMNS["azure"]
    lines, rows, _ = _table(text, file, columns)
    arrivals: list[float] = []
    start: datetime | None = None
    for number, cells in rows:
        stamp = cells[0].strip()
        whole, _, fraction = stamp.partition(".")
        digits = fraction.split("+")[0].rstrip("Z")
        try:
            moment = datetime.fromisoformat(whole.split("+")[0].rstrip("Z"))
            rest = int(digits.ljust(9, "0")[:9]) if digits else 0
        except ValueError:
            lines.wrong(number, "a date and time are needed", columns[0], stamp)
            continue
        start = start or moment
        arrivals.append(round((moment - start).total_seconds()) * 10**9 + rest + 0.0)
    prompts = [lines.tokens(number, columns[1], cells[1]) for number, cells in rows]
    outputs = [lines.tokens(number, columns[2], cells[2]) for number, cells in rows]
    return _made(lines, arrivals, prompts, outputs, "azure")


def _records(text: str, lines: _Lines, columns: tuple[str, ...]) -> list[tuple[int, dict[str, object]]]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json_value(line)
        except ValueError:
            lines.wrong(number, "this line is not JSON")
            continue
        missing = [name for name in columns if not isinstance(record, dict) or name not in record]
        if missing or not isinstance(record, dict):
            lines.wrong(number, "this key is missing", ", ".join(missing))
            continue
        found.append((number, record))
    return found


def _ids(lines: _Lines, number: int, key: str, value: object) -> list[int]:
    if isinstance(value, list) and all(isinstance(one, int) and 0 <= one < 2**62 for one in value):
        return value
    lines.wrong(number, "a list of whole numbers is needed", key)
    return []


def _with_ids(
    lines: _Lines, records: list[tuple[int, dict[str, object]]], columns: tuple[str, ...], unit: float, key: str
) -> tuple[Requests, np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """The requests of JSON lines, and their ids in the order of arrival."""
    arrivals = [lines.seconds(number, columns[0], record[columns[0]], unit) for number, record in records]
    ids = [_ids(lines, number, key, record.get(key, [])) for number, record in records]
    made = _made(
        lines,
        arrivals,
        [lines.tokens(number, columns[1], record[columns[1]]) for number, record in records],
        [lines.tokens(number, columns[2], record[columns[2]]) for number, record in records],
        "mooncake" if key == "hash_ids" else "llmservingsim",
    )
    order = np.argsort(np.array(arrivals), kind="stable")
    at = np.concatenate(([0], np.cumsum([len(ids[int(one)]) for one in order]))).astype(np.int64)
    flat = np.array([one for place in order for one in ids[int(place)]], np.int64)
    return made, at, flat


def read_mooncake(text: str, file: str) -> Requests:
    """Mooncake's traces (Qin et al., 2025), with ids of blocks of 512 prompt tokens."""
    from dataclasses import replace

    lines, columns = _Lines(file), _BY_COLUMNS["mooncake"]
    made, at, ids = _with_ids(lines, _records(text, lines, columns), columns, 1e6, "hash_ids")
    return replace(made, content=HashIds(at, ids, 512)) if len(ids) else made


def read_llmservingsim(text: str, file: str) -> Requests:
    """LLMServingSim's workloads (Cho et al., 2024), with token ids of prompts."""
    from dataclasses import replace

    lines, columns = _Lines(file), _BY_COLUMNS["llmservingsim"]
    made, at, ids = _with_ids(lines, _records(text, lines, columns), columns, 1.0, "input_tok_ids")
    return replace(made, content=TokenIds(at, ids)) if len(ids) else made


def read_vllm_bench(text: str, file: str) -> Requests:
    """What ``vllm bench serve --save-result --save-detailed`` writes."""
    lines = _Lines(file)
    try:
        record = json_value(text)
    except ValueError as error:
        fail(f"malformed JSON: {error}", file=file)
    if not isinstance(record, dict):
        fail("an object is needed", file=file, line=1)
    names = ("start_times", "input_lens", "output_lens")
    lists = [record.get(name) for name in names]
    for name, one in zip(names, lists, strict=True):
        if not isinstance(one, list) or len(one) != len(lists[1] or []):
            fail(
                "a list for every request is needed", file=file, key=name, fix="Write the result with --save-detailed."
            )
    starts, prompts, outputs = lists
    assert isinstance(starts, list) and isinstance(prompts, list) and isinstance(outputs, list)
    return _made(
        lines,
        [lines.seconds(place, "start_times", value) for place, value in enumerate(starts)],
        [lines.tokens(place, "input_lens", value) for place, value in enumerate(prompts)],
        [lines.tokens(place, "output_lens", value) for place, value in enumerate(outputs)],
        "vllm-bench",
    )
