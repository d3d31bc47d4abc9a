"""From a component's data file to its parameters: SI floats with the unit in the name, and the evidence of each.

A component states its parameters once, as a :class:`~tierform.schema.FileModel` with ``quantity`` fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

from pydantic import BaseModel

from tierform import library
from tierform.errors import Problem, TierformError
from tierform.provenance import Assumption, Constant
from tierform.units import format_quantity


def evidence(subject: str, parameters: BaseModel) -> tuple[Assumption, ...]:
    """One line for every constant of a parameter model, nested ones included."""
    return tuple(
        Assumption(
            f"{subject}.{name}",
            format_quantity(constant.value, constant.unit),
            constant.kind,
            constant.source,
            constant.note,
        )
        for name, constant in constants(parameters)
    )


def constants(value: object, name: str = "", known: AbstractSet[int] = frozenset()) -> Iterator[tuple[str, Constant]]:
    """Every constant below a value with its dotted name; entries of a list are counted from 0.

    Objects whose identities are `known` are left out.
    """
    if isinstance(value, Constant):
        yield name, value
        return
    inner: Iterable[tuple[object, object]] = ()
    if isinstance(value, BaseModel):
        inner = ((key, getattr(value, key)) for key in type(value).model_fields)
    elif isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, (list, tuple)):
        inner = enumerate(value)
    for key, item in inner:
        if item is not None and id(item) not in known:
            yield from constants(item, f"{name}.{key}" if name else str(key), known)


def source_problems(source: str, key: str, file: str, line: int | None) -> list[Problem]:
    """A source that the library does not know, as a problem of a file."""
    if source.startswith("http") or library.has_source(source):
        return []
    try:
        library.citation(source)
    except TierformError as error:
        return [
            Problem(p.what, file=file, line=line, key=key, value=p.value, nearest=p.nearest, fix=p.fix)
            for p in error.problems
        ]
    return []


def value_by_precision(table: dict[str, Constant], precision: str) -> float | None:
    """The entry of a per-format table; the narrowest wider format of the same family when the exact one is missing."""
    from tierform.workload.formats import element
    from tierform.workload.precision import bits

    precision = precision if precision in table else element(precision)
    if precision in table:
        return table[precision].value
    floating = not precision.startswith("int")
    wider = [
        (bits(name), constant.value)
        for name, constant in table.items()
        if bits(name) >= bits(precision) and (not floating or not name.startswith("int"))
    ]
    return min(wider)[1] if wider else None
