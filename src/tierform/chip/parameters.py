"""From a component's data file to its parameters: SI floats with the unit in the name, and the evidence of each.

A component states its parameters once, as a :class:`~tierform.schema.FileModel` with ``quantity`` fields.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

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
        for name, constant in _constants(parameters, "")
    )


def _constants(value: object, name: str) -> Iterator[tuple[str, Constant]]:
    if isinstance(value, Constant):
        yield name, value
    elif isinstance(value, BaseModel):
        for key in type(value).model_fields:
            yield from _constants(getattr(value, key), f"{name}.{key}" if name else key)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _constants(item, f"{name}.{key}")


def value_by_precision(table: dict[str, Constant], precision: str) -> float | None:
    """The entry of a per-format table; the narrowest wider format of the same family when the exact one is missing."""
    from tierform.workload.precision import bits

    if precision in table:
        return table[precision].value
    floating = not precision.startswith("int")
    wider = [
        (bits(name), constant.value)
        for name, constant in table.items()
        if bits(name) >= bits(precision) and (not floating or not name.startswith("int"))
    ]
    return min(wider)[1] if wider else None
