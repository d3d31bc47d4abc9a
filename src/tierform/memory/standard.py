"""Standards as data: reads a file of the library's ``memories`` shelf into a :class:`DramSpec`.

A file holds what is common to a standard (organization, timing formulas, constraints, currents) and its speed grades.
A name is ``standard-grade`` (``ddr4-2400``, ``gddr6-16``) or the standard alone for its default grade (``hbm2``).
Any number of the file can be overridden by name.  Constraints are read only when a cycle engine asks for them
(:mod:`tierform.memory.constraints`).
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tierform import library
from tierform.errors import Problem, TierformError, fail, nearest
from tierform.files import Document, read_yaml
from tierform.memory.formula import resolve_timings
from tierform.memory.spec import OPTIONAL, REFRESH, REQUIRED, Controller, Currents, DramSpec, check_timings
from tierform.provenance import Assumption, Constant, Kind
from tierform.schema import FileModel, quantity, validate
from tierform.units import format_quantity, parse_quantity

SHELF = "memories"
_ORGANIZATION = (
    "channels",
    "ranks",
    "bank_groups",
    "banks_per_group",
    "rows",
    "columns",
    "device_width",
    "bus_width",
    "burst_length",
)
_MOST = 2**24  # of anything that is counted in a device
_CURRENT_NAMES = tuple(field.name for field in fields(Currents))


_Seconds = Annotated[Constant, quantity("s", above=0)]
_JoulePerByte = Annotated[Constant, quantity("J/B", minimum=0)]


class _Evidence(FileModel):
    source: str = Field("", description="Source of the numbers beside it, a key of the library's sources.")
    kind: Kind = Field("assumed", description="How they are known: measured, datasheet, published, fitted, assumed.")
    note: str = Field("", description="What to know about them.")


class OrganizationFile(_Evidence):
    """What a device consists of."""

    channels: int = Field(description="Independent channels; bandwidth and capacity grow with them.")
    ranks: int = Field(1, description="Ranks of a channel; they share its bus.")
    bank_groups: int = Field(1, description="Bank groups of a rank; short spacings hold only between different ones.")
    banks_per_group: int = Field(description="Banks of a group; each keeps one row open.")
    rows: int = Field(description="Rows of a bank.")
    columns: int = Field(description="Columns of a row of one device.")
    device_width: int = Field(description="Data bits of one device.")
    bus_width: int = Field(description="Data bits of a channel.")
    burst_length: int = Field(description="Transfers of one read or write; times the bus: bytes of an access.")


class ControllerFile(FileModel):
    """How the controller serves requests; any of them can be overridden."""

    row_policy: Literal["open", "closed"] = Field(
        default="open", description="Whether a row stays open after an access or is closed with it."
    )
    refresh: Literal["none", "all-bank", "all-bank-simultaneous", "per-bank", "same-bank"] = Field(
        default="all-bank", description="What a refresh blocks; changes bandwidth, latency and energy."
    )
    dual_command: bool = Field(
        default=False, description="Whether a row and a column command fit in one cycle, as in HBM."
    )
    transaction_queue: int = Field(default=32, description="Requests that wait in a channel.")
    command_queue: int = Field(default=8, description="Commands that wait in a queue of the channel.")
    row_hit_limit: int = Field(default=4, description="Hits of one row in a row before another row may close it.")


class GradeFile(_Evidence):
    """One speed grade."""

    clock: _Seconds = Field(description="Clock period in which the timings count.")
    timings: dict[str, int | float | str] = Field(
        description="Timings of the grade, as below; they come before the common ones."
    )
    currents: dict[str, str] = Field({}, description="Currents of the grade, where they differ from the common ones.")


class IoFile(_Evidence):
    """Energy of the interface."""

    read: _JoulePerByte = Field(description="Energy of a byte read over the interface.")
    write: _JoulePerByte = Field(description="Energy of a byte written over the interface.")


class DramFile(FileModel):
    """A whole memory file."""

    standard: str = Field(description="The standard, as results print it.")
    title: str = Field(description="One line for people; changes no figure.")
    default_grade: str = Field(description="Speed grade of the name without one.")
    organization: OrganizationFile = Field(description="Channels, banks, rows and widths.")
    mapping: str = Field(
        description="Order of address bits, highest first: ro row, ra rank, ba bank, bg bank group, co column, ch."
    )
    controller: ControllerFile = Field(ControllerFile(), description="How requests are served.")
    timings: dict[str, int | float | str] = Field(
        description="Timings of all grades by their standard names, in cycles or as formulas (`ns(350)`, `nRAS + nRP`)."
    )
    grades: dict[str, GradeFile] = Field(description="Speed grades by name.")
    currents: dict[str, str] = Field(description="Voltages and currents by data-sheet name; they give the energies.")
    io: IoFile = Field(description="Energy of the interface.")
    constraints: str = Field(
        description="Spacings between commands, one a line; read by the cycle engine, and held exact by its tests."
    )


def dram_names() -> list[str]:
    """Every name that :func:`load_dram` takes with its grade written out, in the order of the files."""
    found: list[str] = []
    for name in library.names(SHELF):
        document = _document(library.find(SHELF, name))
        if isinstance(document.content, dict) and "grades" in document.content:
            found.extend(f"{name}-{grade}" for grade in document.content["grades"])
    return found


def library_document(name: str) -> Document:
    """The file of one entry of the shelf, read once."""
    return _document(library.find(SHELF, name))


@lru_cache(maxsize=32)
def _document(path: Path) -> Document:
    return read_yaml(path)


def load_dram(name: str, **overrides: object) -> DramSpec:
    """The memory `name` of the library, with `overrides`.

    An override names a field of the organization (``ranks=2``), a timing in clock cycles (``nCL=16``) or a formula, a
    current (``IDD0="50 mA"``), a setting of the controller (``row_policy="closed"``), ``clock``, ``mapping``, or the
    interface's energy ``io_read`` and ``io_write``.  TierformError with the nearest name for anything else.
    """
    path, grade_name = _find(name)
    return read_dram(path, grade_name, name, overrides)


def read_dram(path: Path, grade_name: str | None, name: str, overrides: dict[str, Any]) -> DramSpec:
    """As :func:`load_dram`, from any file of the same layout; `grade_name` None means the default grade."""
    document = _document(path)
    read = validate(DramFile, document)
    file = str(path)
    grade_name = grade_name or read.default_grade
    if grade_name not in read.grades:
        fail("no such speed grade", file=file, key="grades", value=grade_name, choices=read.grades)
    grade = read.grades[grade_name]
    organization = {field: getattr(read.organization, field) for field in _ORGANIZATION}
    controller = Controller(**read.controller.model_dump())
    clock_s, mapping = grade.clock.value, read.mapping
    written: dict[str, object] = {**read.timings, **grade.timings}
    current_texts = {k: v for k, v in {**read.currents, **grade.currents}.items() if k not in _Evidence.model_fields}
    io = {"io_read": read.io.read.value / 8, "io_write": read.io.write.value / 8}
    assumed = [
        Assumption(f"{name}: {key}", str(value), "assumed", note="given by the user")
        for key, value in overrides.items()
    ]
    problems: list[Problem] = []
    settings: dict[str, Any] = {}
    for key, value in overrides.items():
        if key in organization:
            organization[key] = _count(key, value)
        elif key in written or key in REQUIRED or key in OPTIONAL:
            written[key] = value
        elif key in _CURRENT_NAMES:
            current_texts[key] = value
        elif key in Controller.__dataclass_fields__:
            settings[key] = _setting(key, value, problems)
        elif key == "clock":
            clock_s = parse_quantity(value, "s", key=key)
        elif key == "mapping":
            mapping = str(value)
        elif key in io:
            io[key] = parse_quantity(value, "J/B", key=key) / 8
        else:
            known = [
                *organization,
                *written,
                *_CURRENT_NAMES,
                *Controller.__dataclass_fields__,
                "clock",
                "mapping",
                *io,
            ]
            problems.append(Problem("no such setting of a memory", key=key, nearest=nearest(key, known)))
    if problems:
        raise TierformError(problems)

    def line_of(key: str) -> int | None:
        for place in (("grades", grade_name, "timings", key), ("timings", key)):
            if place in document.lines:
                return document.lines[place]
        return None

    written["BL"] = organization["burst_length"]
    timings = resolve_timings(written, clock_s * 1e9, file, line_of)
    check_timings(timings, file, line_of)
    _check_organization(organization, file)
    return DramSpec(
        name=name,
        standard=read.standard,
        title=read.title,
        channels=organization["channels"],
        ranks=organization["ranks"],
        bank_groups=organization["bank_groups"],
        banks_per_group=organization["banks_per_group"],
        rows=organization["rows"],
        columns=organization["columns"],
        device_width_bit=organization["device_width"],
        bus_width_bit=organization["bus_width"],
        burst_length=organization["burst_length"],
        clock_s=clock_s,
        timings=timings,
        currents=_currents(current_texts, document),
        mapping=mapping,
        controller=replace(controller, **settings),
        constraint_text=read.constraints,
        constraint_line=(document.line_of(("constraints",)) or 0) + 1,
        file=file,
        io_read_J_per_bit=io["io_read"],
        io_write_J_per_bit=io["io_write"],
        assumptions=tuple(_assumptions(name, read, grade) + assumed),
    )


def _find(name: str) -> tuple[Path, str | None]:
    known = library.names(SHELF)
    if name in known:
        return library.find(SHELF, name), None
    head, _, grade = name.rpartition("-")
    if head in known:
        return library.find(SHELF, head), grade
    return fail(
        "no memory of this name in the library",
        value=name,
        choices=[*known, *dram_names()],
        fix="`tierform list memories` shows them all.",
    )


_CHOICES = {"row_policy": ("open", "closed"), "refresh": REFRESH, "queue_per": ("bank", "rank")}


def _setting(key: str, value: object, problems: list[Problem]) -> Any:
    """A setting of the controller, checked by what its default is."""
    default = getattr(Controller(), key)
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            close = nearest(str(value), _CHOICES[key])
            problems.append(Problem("not a known choice", key=key, value=value, nearest=close))
    elif isinstance(default, bool):
        if str(value).lower() not in ("true", "false"):
            problems.append(Problem("true or false is needed", key=key, value=value))
        return str(value).lower() == "true"
    elif value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**40):
        problems.append(Problem("a whole number is needed", key=key, value=value))
    return value


def _count(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        fail("a whole number of at least 1 is needed", key=key, value=value)
    return value


def _check_organization(organization: dict[str, int], file: str) -> None:
    problems = [
        Problem("must be a power of two", file, None, key, organization[key])
        for key in _ORGANIZATION
        if organization[key] < 1 or organization[key] & (organization[key] - 1)
    ]
    problems += [
        Problem(f"must be at most {_MOST}", file, None, key, organization[key])
        for key in _ORGANIZATION
        if organization[key] > _MOST
    ]
    if problems:
        raise TierformError(problems)
    if (
        organization["bus_width"] * organization["burst_length"] % 8
        or organization["burst_length"] > organization["columns"]
    ):
        what = "a burst must be whole bytes and fit into a row"
        problems.append(Problem(what, file, None, "burst_length", organization["burst_length"]))
    if organization["bus_width"] % organization["device_width"]:
        what = "the bus must be a whole number of devices wide"
        problems.append(Problem(what, file, None, "bus_width", organization["bus_width"]))
    if problems:
        raise TierformError(problems)


def _currents(texts: dict[str, str], document: Document) -> Currents:
    problems, values = [], {}
    for key, text in texts.items():
        line = document.lines.get(("currents", key))
        if key not in _CURRENT_NAMES:
            problems.append(Problem("unknown current", document.file, line, key, None, nearest(key, _CURRENT_NAMES)))
            continue
        try:
            values[key] = parse_quantity(text, "V" if key.startswith("V") else "A", key=key)
        except TierformError as error:
            problems.extend(replace(problem, file=document.file, line=line) for problem in error.problems)
    required = ("VDD", "IDD0", "IDD2N", "IDD3N", "IDD4R", "IDD4W", "IDD5B")
    line = document.line_of(("currents",))
    problems += [Problem("this key is missing", document.file, line, key) for key in required if key not in texts]
    if problems:
        raise TierformError(problems)
    return Currents(**values)


def _assumptions(name: str, read: DramFile, grade: GradeFile) -> list[Assumption]:
    def line(subject: str, value: str, evidence: _Evidence, note: str = "") -> Assumption:
        return Assumption(f"{name}: {subject}", value, evidence.kind, evidence.source, note or evidence.note)

    given = {k: v for k, v in read.currents.items() if k in _Evidence.model_fields}
    supply = _Evidence(**given)  # type: ignore[arg-type]
    count = len(read.timings) + len(grade.timings)
    io = f"read {_pj(read.io.read)}, write {_pj(read.io.write)}"
    return [
        line("organization", read.title, read.organization),
        line("timings", f"{count} at {format_quantity(grade.clock.value, 's')}", grade),
        line("currents", f"{len(read.currents) - len(given)} currents", supply),
        line("interface energy", io, read.io),
    ]


def _pj(energy: Constant) -> str:
    return f"{energy.value / 8 * 1e12:.3g} pJ/bit"
