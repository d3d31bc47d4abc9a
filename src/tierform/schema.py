"""The file boundary: pydantic models for data files, and their mistakes as lines for people.

A field ``Annotated[Constant, quantity("J")]`` accepts ``"1.667 pJ"`` or, with its evidence,
``{value: 1.667 pJ, source: isaac-2016, kind: published, note: ...}`` and yields a :class:`Constant` in joules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tierform.errors import Problem, TierformError, nearest
from tierform.files import Document
from tierform.provenance import KINDS, Constant
from tierform.units import parse_quantity

# Whole numbers of files: no text, no truth value, and nothing that no part of a machine is made of.
MOST = 10**6
Whole = Annotated[int, Field(strict=True, ge=0, le=MOST)]
Count = Annotated[int, Field(strict=True, ge=1, le=MOST)]
Bits = Annotated[int, Field(strict=True, ge=1, le=64)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
# The largest constant of a unit; far beyond any machine, so that what is computed from a few of them stays finite.
_LARGEST = {
    "m": 1e3,
    "m^2": 1e3,
    "s": 1e12,
    "Hz": 1e13,
    "1/s": 1e24,
    "W": 1e9,
    "J": 1e6,
    "J/B": 1e6,
    "K": 1e4,
    "V": 1e5,
}
_LARGEST |= {"B": 1e18, "B/s": 1e18, "bit": 1e9, "bit/s": 1e15}


class FileModel(BaseModel):
    """Base of every file schema: unknown keys are refused, numbers are finite, nothing is changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Quantity(BeforeValidator):
    """The validator that :func:`quantity` makes; it remembers what it asks for, for the reference of keys."""

    unit: str = ""
    minimum: float | None = None
    above: float | None = None

    def __get_pydantic_json_schema__(self, core: object, handler: object) -> dict[str, object]:
        shown = f"in units of {self.unit}" if self.unit not in ("", "1") else "a number"
        text = {"type": ["string", "number"], "description": f"A value {shown}, as in: 1.5 {self.unit}".rstrip()}
        evidence: dict[str, object] = {key: {"type": "string"} for key in ("source", "note")}
        whole = {"value": text, "kind": {"enum": list(KINDS)}, **evidence}
        return {
            "anyOf": [
                text,
                {"type": "object", "properties": whole, "required": ["value"], "additionalProperties": False},
            ]
        }


def quantity(unit: str, *, minimum: float | None = None, above: float | None = None) -> Quantity:
    """Validate a constant in `unit`, at least `minimum` or greater than `above`, as in ``Annotated[Constant, ...]``."""

    def convert(given: object) -> Constant:
        if isinstance(given, Constant):
            return given
        try:
            constant = _constant(given, unit)
        except TierformError as error:
            raise ValueError("\n".join(str(problem) for problem in error.problems)) from None
        if minimum is not None and constant.value < minimum:
            raise ValueError(f"must be at least {minimum:g} {unit}".rstrip())
        if above is not None and constant.value <= above:
            raise ValueError(f"must be greater than {above:g} {unit}".rstrip())
        largest = _LARGEST.get(unit, 1e30)
        if abs(constant.value) > largest:
            raise ValueError(f"must be at most {largest:g} {unit}".rstrip())
        return constant

    return Quantity(convert, unit=unit, minimum=minimum, above=above)


def _constant(given: object, unit: str) -> Constant:
    if not isinstance(given, dict):
        return Constant(parse_quantity(given, unit), unit, "assumed", note="no source given in the file")
    unknown = set(given) - {"value", "source", "kind", "note"}
    if unknown:
        name = sorted(map(str, unknown))[0]
        close = nearest(name, ["value", "source", "kind", "note"])
        hint = f"did you mean {close!r}?" if close else "quote a text that holds commas"
        raise ValueError(f"unknown key {name!r}; {hint}")
    if "value" not in given:
        raise ValueError("the key 'value' is missing")
    kind = given.get("kind", "assumed")
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    source, note = str(given.get("source", "")), str(given.get("note", ""))
    if kind != "assumed" and not source:
        raise ValueError(f"a {kind} constant needs a 'source'")
    if kind == "assumed" and not (source or note):
        raise ValueError("an assumed constant needs a 'note' that says why")
    return Constant(parse_quantity(given["value"], unit), unit, kind, source, note)


ModelT = TypeVar("ModelT", bound=BaseModel)


def validate(schema: type[ModelT], document: Document, at: tuple[str | int, ...] = ()) -> ModelT:
    """`document`'s content at the keys `at` as `schema`; all mistakes at once, with file, line, nearest name."""
    content = document.content
    for step in at:
        content = content[step]
    if not isinstance(content, dict):
        line = document.line_of(at)
        raise TierformError([Problem("keys with values are needed here", document.file, line, ".".join(map(str, at)))])
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        problems = [_problem(schema, document, at, item) for item in error.errors(include_url=False)]
        raise TierformError(dict.fromkeys(problems)) from None


def json_schema(model: type[BaseModel], name: str = "") -> dict[str, Any]:
    """The JSON Schema of a file; `name` is what its key ``schema`` says, if it has one."""
    made = model.model_json_schema()
    own = made["properties"]
    own.pop("schema_", None)
    if name:
        made["properties"] = {"schema": {"const": name}, **own}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _problem(schema: type[BaseModel], document: Document, at: tuple[str | int, ...], item: Any) -> Problem:
    loc = tuple(step for step in item["loc"] if not (isinstance(step, str) and step.startswith("function-")))
    line = document.line_of((*at, *loc))
    key = ".".join(str(step) for step in (*at, *loc))
    kind, value = item["type"], item.get("input")
    shown = value if isinstance(value, (str, int, float, bool)) else None
    if kind == "extra_forbidden":
        choices = _field_names(schema, loc[:-1])
        fix = f"Known here: {', '.join(choices)}." if choices else None
        return Problem(
            what="unknown key",
            file=document.file,
            line=line,
            key=key,
            value=None,
            nearest=nearest(str(loc[-1]), choices),
            fix=fix,
        )
    if kind == "missing":
        return Problem("this key is missing", document.file, line, key)
    if kind in ("literal_error", "enum"):
        expected = str(item.get("ctx", {}).get("expected", ""))
        choices = [word.strip(" '\"") for word in expected.replace(" or ", ",").split(",")]
        fix = f"Choose one of {', '.join(choices)}."
        return Problem(
            what="not a known choice",
            file=document.file,
            line=line,
            key=key,
            value=shown,
            nearest=nearest(str(value), choices),
            fix=fix,
        )
    message = str(item["msg"]).removeprefix("Value error, ")
    if kind in _WORDS:
        bounds = {name: f"{bound:g}" for name, bound in item.get("ctx", {}).items() if isinstance(bound, (int, float))}
        message = _WORDS[kind].format(**bounds)
    return Problem(message[:1].lower() + message[1:], document.file, line, key, shown)


_WORDS = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "int_type": "a whole number is needed",
    "float_type": "a number is needed",
    "finite_number": "the number is not finite",
}


def _field_names(schema: type[BaseModel], loc: tuple[object, ...]) -> list[str]:
    candidates: list[object] = [schema]
    for step in loc:
        found: list[object] = []
        for candidate in candidates:
            fields = getattr(candidate, "model_fields", {})
            if step in fields:
                found.extend(models_in(fields[step].annotation))
        candidates = found or candidates
    return sorted({name for candidate in candidates for name in getattr(candidate, "model_fields", {})})


def models_in(annotation: object) -> list[Any]:
    """The models that an annotation names, in lists and dictionaries, too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]
