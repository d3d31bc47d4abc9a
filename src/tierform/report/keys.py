"""Every key of every file, as tables: what it takes, its default, what it means and changes.

The tables come from the schemas that the files are read with: their fields, units, defaults and descriptions.  A job
file takes the records of the Python interface, a model file the keys of a ``config.json``; what those mean stands in
:mod:`tierform.report.key_texts`.  ``python -m tierform.report.keys`` prints the page docs/keys.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from tierform.provenance import Constant
from tierform.report.key_texts import CONFIG, RECORDS
from tierform.schema import FileModel, Quantity
from tierform.workload.config import Config

T = TypeVar("T")
NEEDED = "needed"


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key: what it takes, its default (or that it is needed), what it means and changes."""

    key: str
    takes: str
    default: str
    meaning: str


@dataclass(frozen=True, slots=True)
class KeyTable:
    """The keys of one record of a file."""

    title: str
    about: str
    rows: tuple[KeyRow, ...]


@dataclass(frozen=True, slots=True)
class FileReference:
    """One kind of file: what it is, and its records."""

    title: str
    about: str
    tables: tuple[KeyTable, ...]


def references() -> tuple[FileReference, ...]:
    """Every kind of file with all its keys."""
    from tierform.chip.chip_file import ChipFile
    from tierform.chip.component import COMPONENTS
    from tierform.chip.process import LogicFile
    from tierform.mapping.mapping_file import MappingFile
    from tierform.memory.cxl import CxlFile
    from tierform.memory.standard import DramFile
    from tierform.simulation.runtime import RuntimeFile
    from tierform.thermal.materials_file import MaterialsFile
    from tierform.workload.config import model_file

    components = [COMPONENTS.get(name) for name in COMPONENTS]
    return (
        FileReference("Job files", "`tierform simulate --job FILE`; see [jobs](jobs.md).", _record_tables()),
        FileReference("Chip files", "`--chip FILE`; see [chips](chips.md).", _tables([ChipFile])),
        FileReference(
            "Component files",
            "Named by a chip file. The key `type` says which table holds; a chip file's `set` changes single keys.",
            _tables([component.schema for component in components]),
        ),
        FileReference(
            "Process files",
            "Constants of digital logic by node, and properties of materials; only the library has them.",
            _tables([LogicFile, MaterialsFile]),
        ),
        FileReference("Memory files", "Named by a chip file; see [memory](memory.md).", _tables([DramFile, CxlFile])),
        FileReference(
            "Model files",
            "A file of the library's layout, or the `config.json` of a model folder; see [workloads](workload.md).",
            (*_tables([model_file()]), *_config_tables()),
        ),
        FileReference("Mapping files", "`--save-mapping FILE`, `--mapping FILE`.", _tables([MappingFile])),
        FileReference("Runtime files", "`--runtime FILE`; see [jobs](jobs.md).", _tables([RuntimeFile])),
    )


def page() -> str:
    """The reference as Markdown."""
    lines = [
        "# Every key",
        "",
        "What stands in a file of each kind. This page is made from the schemas that read the files (`make keys`). A",
        "quantity is written with its unit (`0.9 pJ/bit`) or with its evidence",
        "(`{value: 0.9 pJ/bit, source: NAME, kind: published, note: ...}`); the unit named here is the one it is",
        "converted to. An unknown key is refused.",
    ]
    for reference in references():
        lines += ["", f"## {reference.title}", "", reference.about]
        for table in reference.tables:
            lines += ["", f"### {table.title}", "", table.about]
            if table.rows:
                lines += ["", "| key | takes | default | meaning |", "|---|---|---|---|"]
                lines += [
                    f"| `{row.key}` | {_cell(row.takes)} | {_cell(row.default)} | {_cell(row.meaning)} |"
                    for row in table.rows
                ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("  ", " ")


# -- file schemas ------------------------------------------------------------------------------------------------
def schemas_of(roots: Iterable[type[FileModel]]) -> list[type[FileModel]]:
    """These schemas and all that stand inside them, each once, outer ones first."""
    found: list[type[FileModel]] = []
    for root in roots:
        waiting = [root]
        while waiting:
            schema = waiting.pop(0)
            if schema not in found:
                found.append(schema)
                waiting += [inner for item in schema.model_fields.values() for inner in _inside(item.annotation)]
    return found


def _inside(annotation: object) -> list[type[FileModel]]:
    if isinstance(annotation, type) and issubclass(annotation, FileModel):
        return [annotation]
    return [schema for argument in get_args(annotation) for schema in _inside(argument)]


def _tables(roots: list[type[FileModel]]) -> tuple[KeyTable, ...]:
    return tuple(
        KeyTable(
            schema.__name__,
            _first_sentences(schema),
            tuple(
                KeyRow(
                    name.removesuffix("_"),
                    _takes(item.annotation, tuple(item.metadata)),
                    _default(item.default if item.default_factory is None else ()),
                    item.description or "",
                )
                for name, item in schema.model_fields.items()
            ),
        )
        for schema in schemas_of(roots)
    )


def _first_sentences(record: type) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(record.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")


def _default(value: object) -> str:
    if value is PydanticUndefined or value is MISSING:
        return NEEDED
    if value is None or value in ((), [], {}, ""):
        return "none"
    if isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
        return "its defaults"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ", ".join(_default(item) for item in value)
    return f"`{value}`" if isinstance(value, str) else str(value)


_PLURAL = {"a text": "texts", "a whole number": "whole numbers"}


def _takes(hint: Any, limits: tuple[Any, ...] = ()) -> str:
    """What a key takes, in words; `limits` are what the schema says beside the type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hasattr(hint, "__metadata__"):  # Annotated[type, limits...]
        return _takes(arguments[0], (*hint.__metadata__, *limits))
    if origin in (Union, UnionType):
        kinds = dict.fromkeys(_takes(one, limits) for one in arguments if one is not NoneType)
        return " or ".join(kinds).replace(" or keys of", " or")
    if origin is Literal:
        return "one of " + ", ".join(f"`{one}`" for one in arguments)
    if origin is dict:
        return f"names, each with {_takes(arguments[1])}"
    if origin in (list, tuple):
        inner = [one for one in arguments if one is not Ellipsis]
        if origin is tuple and len(inner) == len(arguments):
            return f"a list of {len(inner)}: {', '.join(_takes(one) for one in inner)}"
        one = _takes(inner[0])
        return f"a list of {_PLURAL.get(one, one)}"
    if hint is Constant:
        asked = next((one for one in limits if isinstance(one, Quantity)), None)
        unit = asked.unit if asked else ""
        return ("a quantity in " + unit if unit not in ("", "1") else "a number with its evidence") + _bounds(limits)
    if isinstance(hint, type) and (issubclass(hint, BaseModel) or is_dataclass(hint)):
        return f"keys of `{hint.__name__}`"
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return words.get(hint, "any value") + _bounds(limits)


def _bounds(limits: tuple[object, ...]) -> str:
    low: float | None = None
    above: float | None = None
    high: float | None = None
    flat = [inner for one in limits for inner in getattr(one, "metadata", ()) or (one,)]
    for one in flat:
        if isinstance(one, Ge):
            low = max(low or 0, float(one.ge))  # type: ignore[arg-type]
        elif isinstance(one, (Gt, Quantity)):
            found = one.gt if isinstance(one, Gt) else one.above
            above = float(found) if found is not None else above  # type: ignore[arg-type]
            low = one.minimum if isinstance(one, Quantity) and one.minimum is not None else low
        elif isinstance(one, (Le, Lt)):
            bound = float(one.le if isinstance(one, Le) else one.lt)  # type: ignore[arg-type]
            high = bound if high is None else min(high, bound)
    parts = [] if low is None else [f"at least {low:g}"]
    parts += [] if above is None else [f"above {above:g}"]
    parts += [] if high is None else [f"at most {high:g}"]
    return f", {', '.join(parts)}" if parts else ""


# -- records of a job file -----------------------------------------------------------------------------------------
def _record_tables() -> tuple[KeyTable, ...]:
    from tierform.simulation.job_file import SCHEMA
    from tierform.workload.task import METHODS, TASKS

    kinds = {kind: name for name, kind in {**TASKS, **METHODS}.items()}
    tables: list[KeyTable] = []
    for record, meanings in RECORDS.items():
        hints = get_type_hints(record)
        rows = [
            KeyRow(item.name, _takes(hints[item.name]), _field_default(item), meanings.get(item.name, ""))
            for item in fields(record)
        ]
        if record in kinds:
            rows.insert(0, KeyRow("kind", f"`{kinds[record]}`", NEEDED, "Which record this is."))
        if not tables:
            rows = _as_in_a_file(rows)
            rows.insert(0, KeyRow("schema", "a text", f"`{SCHEMA}`", "Layout of the file."))
        tables.append(KeyTable(record.__name__, _first_sentences(record), tuple(rows)))
    return tuple(tables)


def _as_in_a_file(rows: list[KeyRow]) -> list[KeyRow]:
    """The job's own fields as they stand in a file: names and paths for what is loaded in memory."""
    named = {"model", "chip", "runtime", "mapping"}
    return [
        KeyRow(row.key, "a text", row.default, row.meaning)
        if row.key in named
        else KeyRow(row.key, row.takes, NEEDED if row.key == "task" else row.default, row.meaning)
        for row in rows
    ]


def _field_default(item: Any) -> str:
    return _default(item.default_factory() if item.default_factory is not MISSING else item.default)


# -- a model's configuration ---------------------------------------------------------------------------------------
_KINDS = {
    "integer": "a whole number",
    "integers": "a list of whole numbers",
    "layers": "a whole number",
    "number": "a number from 0 to 1",
    "flag": "true or false",
    "choice": "one of",
}


class _Recorder(Config):
    """A configuration that notes which keys a family asks for, and how."""

    def __init__(self) -> None:
        super().__init__({}, "config.json")
        self.asked: dict[str, tuple[str, bool]] = {}
        self.ignored: set[str] = set()

    def integer(self, *keys: str, default: int | None = None, minimum: int = 1, maximum: int = 10**8) -> int:
        return self._note("integer", keys, default is None, super().integer(*keys, default=default, minimum=minimum))

    def integers(self, key: str, default: tuple[int, ...] | None = None, minimum: int = 1) -> tuple[int, ...]:
        return self._note("integers", (key,), default is None, super().integers(key, default, minimum))

    def layers(self, *keys: str, default: int | None = None) -> int:
        return self._note("layers", keys, default is None, super().layers(*keys, default=default))

    def number(self, *keys: str, default: float, minimum: float = 0.0, maximum: float = 1.0) -> float:
        return self._note("number", keys, False, super().number(*keys, default=default))

    def flag(self, key: str, default: bool) -> bool:
        return self._note("flag", (key,), False, super().flag(key, default))

    def choice(self, key: str, choices: dict[str, str], default: str) -> str:
        known = "one of " + ", ".join(f"`{name}`" for name in sorted(choices))
        return self._note(known, (key,), False, super().choice(key, choices, default))

    def ignore(self, *keys: str) -> None:
        self.ignored.update(keys)
        super().ignore(*keys)

    def _note(self, kind: str, keys: tuple[str, ...], needed: bool, found: T) -> T:
        for key in keys:
            self.asked[key] = (_KINDS.get(kind, kind), needed or self.asked.get(key, ("", False))[1])
        return found


def config_keys() -> tuple[dict[str, dict[str, tuple[str, bool]]], set[str]]:
    """({key: {family: (what it takes, whether it is needed)}}, keys that are read over), over all families."""
    from tierform.workload.families import FAMILIES

    asked: dict[str, dict[str, tuple[str, bool]]] = {}
    ignored: set[str] = set()
    for family in FAMILIES:
        recorder = _Recorder()
        FAMILIES.get(family).read(recorder, family)
        for key, how in recorder.asked.items():
            asked.setdefault(key, {})[family] = how
        ignored |= recorder.ignored
    return asked, ignored - set(asked)


def _config_tables() -> tuple[KeyTable, ...]:
    asked, ignored = config_keys()
    rows = []
    for key, families in sorted(asked.items()):
        takes = sorted({takes for takes, _ in families.values()}, key=len)[-1]
        needed = [family for family, (_, needed) in families.items() if needed]
        when = (
            NEEDED if len(needed) == len(families) else f"needed by {', '.join(needed)}" if needed else "the family's"
        )
        readers = "" if len(families) > 8 else f"Read by {', '.join(families)}."
        rows.append(KeyRow(key, takes, when, f"{CONFIG.get(key, '')}  {readers}".strip()))
    about = (
        "The keys of a Hugging Face `config.json` that shape the model, all families together; `architectures` names "
    )
    about += (
        "the head. A `config.json` may hold others; a library file may not, except those that change no figure here: "
    )
    about += ", ".join(f"`{key}`" for key in sorted(ignored)) + "."
    return (KeyTable("config", about, tuple(rows)),)


if __name__ == "__main__":
    import sys

    sys.stdout.write(page())
