"""Measured kernels: what a row says, how files of them are read, and which rows belong to a fit.

Three kinds of CSV file are read, with the columns that public collections of kernel latencies use: products
(``dtype, m, n, k``), attention (``batch_size, isl, step, num_heads, num_key_value_heads, head_dim, attn_dtype``; `step`
tokens are in the cache before) and collectives (``op_name, nccl_dtype, num_gpus, message_size`` in elements); the time
is in ``latency_ms`` or ``latency`` (milliseconds).  All mistakes of a file are reported at once, with their lines.

Whether a row belongs to a fit set is decided by its shape alone, so that any selection of rows can be told apart: a row
is in the set when crc32 of its shape (numbers joined by commas) modulo 1000 is below the set's limit.
"""

from __future__ import annotations

import csv
import io
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tierform.errors import Problem, TierformError
from tierform.files import read_text

LARGEST = 10**12  # of a size and of a time in ms
FINDS_SCALE = "scale found"
# Tables of vLLM before this version found the scale of an 8-bit product's whole input on the run (its collector's
# choice of activation scheme); those of 0.18 and later have it beforehand.
_SCALE_GIVEN = (0, 18)
SampleKind = Literal["product", "prefill", "decode", "collective"]
_INTEGERS = {
    "product": ("m", "n", "k"),
    "attention": ("batch_size", "isl", "step", "num_heads", "num_key_value_heads", "head_dim"),
    "collective": ("num_gpus", "message_size"),
}
_FORMATS = {"product": "dtype", "attention": "attn_dtype", "collective": "nccl_dtype"}
_SHORT = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16"}
_ELEMENT_B = {"fp16": 2, "bf16": 2, "int8": 1, "fp8": 1, "float": 4, "fp32": 4}


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured kernel.

    `shape`: product (m, n, k); attention (batch, queries, history, heads, kv heads, head size); collective (GPUs,
    elements) with its kind in `operation`.  A product of 8 bits includes narrowing its input from 16; where the scale
    of the whole input was found on the run, `operation` is FINDS_SCALE.
    """

    device: str
    kind: SampleKind
    format: str
    shape: tuple[int, ...]
    seconds: float
    operation: str = ""

    def in_fit_set(self, limit: int) -> bool:
        """Whether the row belongs to a fit set of `limit` in a thousand; see the module's text."""
        text = ",".join(str(number) for number in self.shape)
        if self.kind == "collective":
            text = f"{self.operation},{'half' if self.format == 'fp16' else self.format},{text}"
        return zlib.crc32(text.encode()) % 1000 < limit

    @property
    def size_B(self) -> int:
        """Bytes of a collective's buffer."""
        return self.shape[-1] * _ELEMENT_B.get(self.format, 2)


def read_samples(path: Path, device: str = "", repeats: bool = False) -> list[Sample]:
    """All rows of a CSV file; `device` is taken where the file has no column of it.

    TierformError with every mistake: missing columns, numbers that are none, times not above zero, and, unless
    `repeats` are allowed, rows given twice.
    """
    text = read_text(path)
    lines = [line if not line.startswith("#") else "" for line in text.splitlines()]
    start = next((number for number, line in enumerate(lines) if line.strip()), 0)
    reader = csv.DictReader(io.StringIO("\n".join(lines[start:])), skipinitialspace=True)
    try:
        columns = list(reader.fieldnames or [])
    except csv.Error as error:
        raise TierformError([Problem(f"this is not a table: {error}", str(path), start + 1)]) from None
    family = _family(columns)
    time_column = "latency_ms" if "latency_ms" in columns else "latency"
    if family is None or time_column not in columns:
        fix = "Products: dtype,m,n,k,latency_ms; attention: " + ",".join(_INTEGERS["attention"]) + ",attn_dtype,"
        raise TierformError(
            [
                Problem(
                    "these are not the columns of measured kernels",
                    file=str(path),
                    line=start + 1,
                    key=None,
                    value=",".join(columns),
                    nearest=None,
                    fix=fix + "latency_ms; collectives: op_name,nccl_dtype,num_gpus,message_size,latency.",
                )
            ]
        )
    samples: list[Sample] = []
    problems: list[Problem] = []
    seen: dict[tuple[object, ...], int] = {}
    for row in _rows(reader, str(path), start):
        line = start + reader.line_num
        sample = _sample(row, family, time_column, device, str(path), line, problems)
        if sample is None:
            continue
        key = (sample.device, sample.kind, sample.format, sample.operation, sample.shape)
        if key in seen and not repeats:
            problems.append(
                Problem(
                    f"the same kernel was given in line {seen[key]}",
                    file=str(path),
                    line=line,
                    key=None,
                    value=str(sample.shape),
                    nearest=None,
                    fix="Keep one of them, or their median.",
                )
            )
        seen[key] = line
        samples.append(sample)
    if not samples and not problems:
        problems.append(Problem("the file has no measured kernels", str(path), start + 1))
    if problems:
        raise TierformError(problems)
    return samples


def _rows(reader: csv.DictReader[str], file: str, start: int) -> Iterator[dict[str, str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise TierformError([Problem(f"this is not a table: {error}", file, start + reader.line_num)]) from None


def _family(columns: Sequence[str]) -> str | None:
    for family, needed in _INTEGERS.items():
        if all(column in columns for column in needed):
            return family
    return None


def _sample(
    row: dict[str, str], family: str, time_column: str, device: str, file: str, line: int, problems: list[Problem]
) -> Sample | None:
    numbers: list[float] = []
    for column in (*_INTEGERS[family], time_column):
        try:
            number = float(row[column])
        except (TypeError, ValueError):
            problems.append(Problem("a number is needed", file, line, column, row.get(column)))
            return None
        integer = column != time_column
        least = 0 if column == "step" else 1
        if not math.isfinite(number) or (integer and (number != int(number) or not least <= number <= LARGEST)):
            what = f"a whole number of {least} to {LARGEST:.0e} is needed"
            problems.append(Problem(what, file, line, column, row[column]))
            return None
        if not integer and not 0 < number <= LARGEST:
            problems.append(
                Problem(
                    "a time must be greater than zero" if number <= 0 else f"a time is at most {LARGEST:.0e} ms",
                    file=file,
                    line=line,
                    key=column,
                    value=row[column],
                    nearest=None,
                    fix="A kernel's latency in milliseconds.",
                )
            )
            return None
        numbers.append(number)
    shape = tuple(int(number) for number in numbers[:-1])
    kind: SampleKind = "product" if family == "product" else "collective"
    if family == "attention":
        kind = "decode" if shape[1] == 1 else "prefill"
    name = (row.get(_FORMATS[family]) or "fp16").strip()
    if family == "attention" and _SHORT.get(row.get("kv_cache_dtype") or name, name) != _SHORT.get(name, name):
        name = f"{name}/{row['kv_cache_dtype']}"
    form = _SHORT.get(name, name)
    operation = (row.get("op_name") or "").strip() if family == "collective" else ""
    if family == "product" and _ELEMENT_B.get(form) == 1 and _finds_scale(row.get("version")):
        operation = FINDS_SCALE
    return Sample((row.get("device") or device).strip(), kind, form, shape, numbers[-1] * 1e-3, operation)


def _finds_scale(version: str | None) -> bool:
    found = re.match(r"(\d{1,4})\.(\d{1,4})", version or "", re.ASCII)
    return found is not None and (int(found[1]), int(found[2])) < _SCALE_GIVEN


def kept_apart(samples: Iterable[Sample], limit: int) -> tuple[list[Sample], list[Sample]]:
    """The rows of the fit set and those held out."""
    fit: list[Sample] = []
    held: list[Sample] = []
    for sample in samples:
        (fit if sample.in_fit_set(limit) else held).append(sample)
    return fit, held
