"""The JSON Schema of a job file, from the records of the Python interface that the file names."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tierform.simulation.job import Job
from tierform.simulation.job_file import SCHEMA
from tierform.workload.parallel import MicroBatches, Parallelism
from tierform.workload.reduced import Reduction
from tierform.workload.task import METHODS, TASKS

_PLAIN: dict[Any, str] = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_TEXT = {"type": "string"}


def job_schema() -> dict[str, object]:
    """The keys of a job file."""
    hints = get_type_hints(Job)
    chosen = {key: _of(hints[key]) for key in ("fidelity", "thermal", "overflow")}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A job: everything that is asked of a simulation",
        "type": "object",
        "additionalProperties": False,
        "required": ["model", "chip", "task"],
        "properties": {
            "schema": {"const": SCHEMA},
            "model": {**_TEXT, "description": "A model of the library, a folder with config.json, or a Hub id."},
            "chip": {**_TEXT, "description": "A chip of the library, or a chip file beside this one."},
            "task": {"oneOf": [_record(kind, name) for name, kind in TASKS.items()]},
            "parallelism": _record(Parallelism),
            "runtime": {**_TEXT, "description": "A runtime of the library, or a runtime file."},
            "mapping": {**_TEXT, "description": "best, plain, or a mapping file."},
            "reduction": _record(Reduction),
            "micro_batches": {"anyOf": [{"type": "integer", "minimum": 1}, _record(MicroBatches)]},
            **chosen,
        },
    }


def _record(kind: type, name: str = "") -> dict[str, object]:
    """A record's keys; `name` is what its key ``kind`` says."""
    hints = get_type_hints(kind)
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    own = {item.name: _of(hints[item.name]) for item in fields(kind)}
    if name:
        own, needed = {"kind": {"const": name}, **own}, ["kind", *needed]
    told = (kind.__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()
    made = {"type": "object", "description": told, "additionalProperties": False, "properties": own}
    return {**made, "required": needed} if needed else made


def _of(hint: object) -> dict[str, object]:
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is tuple:
        return {"type": "array", "items": _of(inner[0])}
    if origin in (Union, UnionType):
        methods = {kind: name for name, kind in METHODS.items()}
        several = sum(is_dataclass(choice) for choice in inner) > 1
        return {"anyOf": [_record(c, methods[c]) if several and c in methods else _of(c) for c in inner]}
    if is_dataclass(hint) and isinstance(hint, type):
        return _record(hint)
    return {}
