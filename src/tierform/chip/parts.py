"""Components from their data files: read once, changed by `set`, validated, built.

A mistake in `set` is told with the line of the chip file that holds it, one in the component's own file with its line
there.  Files are kept as long as they do not change on disk, and parameters by their content.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

from tierform import library
from tierform.chip.changes import equal, merged, nested, places_of, spot_of, with_checked
from tierform.chip.component import COMPONENTS, Component, Remarker
from tierform.chip.laws import Scalable, Scaled, Steps
from tierform.chip.parameters import constants, source_problems
from tierform.errors import Problem, TierformError, fail
from tierform.files import Document, read_yaml
from tierform.schema import validate

_MOST = 256
# A file that was written a moment ago may be written again without another time stamp.
_SETTLED_NS = 100_000_000
_documents: dict[str, tuple[tuple[int, ...], Document]] = {}
_texts: dict[int, tuple[object, str]] = {}  # parts of contents by identity, as JSON
_validated: dict[str, object] = {}  # digest of a component's content -> its parameters
_given: dict[int, tuple[Document, Any, str]] = {}  # data files by identity -> parameters without changes, their hash


@dataclass(frozen=True)
class Part:
    """A component with what it was made from: its data file, the content with changes laid over, its parameters.

    `parameters` are as the content gives them; `scaled` are those of the component, scaled to its sizes.  `plain` is a
    hash of the content, `digest` one of all that decides what the component is.
    """

    type: str
    document: Document
    content: dict[str, Any]
    changes: dict[str, Any]
    plain: str
    digest: str
    parameters: Any
    scaled: Any
    component: Component
    remarks: tuple[str, ...]


def document_of(path: Path) -> Document:
    """A YAML file, read again only when it has changed on disk."""
    try:
        found = path.stat()
    except OSError:
        return read_yaml(path)
    stamp = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)
    kept = _documents.get(str(path))
    if kept is not None and kept[0] == stamp:
        return kept[1]
    document = read_yaml(path)
    if time.time_ns() - found.st_mtime_ns > _SETTLED_NS:
        _keep(_documents, str(path), (stamp, document))
    return document


def digest_of(content: object) -> str:
    """A hash of plain content, whatever the order of its keys."""
    return hashlib.sha256(_text_of(content).encode()).hexdigest()


_encoded = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode
_quoted: Callable[[str], str] = json.encoder.encode_basestring
_PLAIN = {True: "true", False: "false", None: "null"}


def _text_of(content: object) -> str:
    """The content as JSON with sorted keys; texts of what varied content has in common are written once."""
    kind = type(content)
    if kind is str:
        return _quoted(str(content))
    if kind is int:
        return repr(content)
    if kind is bool or content is None:
        return _PLAIN[content]  # type: ignore[index]
    if not isinstance(content, dict) or not content:
        return _encoded(content)
    kept = _texts.get(id(content))
    if kept is None or kept[0] is not content:
        if any(type(key) is not str for key in content):
            return _encoded(content)
        inner = [f"{_quoted(key)}: {_text_of(content[key])}" for key in sorted(content)]
        kept = (content, "{" + ", ".join(inner) + "}")
        _keep(_texts, id(content), kept, 16 * _MOST)
    return kept[1]


def component_path(file: str) -> Path:
    """The data file of a component: of the library by name, or a path that ends in .yaml."""
    return Path(file) if file.endswith((".yaml", ".yml")) else library.find("components", file)


def load_component(name: str, units: int, file: str, changes: dict[str, object] | None = None) -> Component:
    """A component of `units` units from a data file of the library or a path, changed as by `set`."""
    return part_of(name, units, document_of(component_path(file)), changes or {}).component


def part_of(
    name: str,
    units: int,
    document: Document,
    changes: Mapping[str, object],
    *,
    chip: Document | None = None,
    before: Part | None = None,
) -> Part:
    """The component of a data file with changes; of `before` everything is kept that stays the same.

    TierformError with all problems; those of `changes` stand in the file `chip`.
    """
    try:
        return _made(name, units, document, nested(changes), before)
    except TierformError as error:
        places = places_of(changes)
        raise TierformError([_located(p, name, document, places, chip) for p in error.problems]) from None


def _made(name: str, units: int, document: Document, changes: dict[str, object], before: Part | None) -> Part:
    if not isinstance(document.content, dict) or "type" not in document.content:
        fail(
            "the key 'type' is missing",
            file=document.file,
            choices=COMPONENTS.names(),
            fix=f"Types: {', '.join(COMPONENTS.names())}.",
        )
    type_name = str(document.content["type"])
    kind = COMPONENTS.get(type_name)
    kept = before if before is not None and before.document is document else None
    if kept is not None and kept.component.units == units and equal(kept.changes, changes):
        return kept
    content = merged(document.content, changes) if changes else document.content
    if kept is not None and equal(content, kept.content):
        content, plain, parameters = kept.content, kept.plain, kept.parameters
    else:
        plain = digest_of(content)
        parameters = _validated.get(plain)
        if not isinstance(parameters, kind.schema):
            parameters = _parameters(kind.schema, Document(content, document.file, document.lines), kept)
            _keep(_validated, plain, parameters)
    digest = plain
    scaled = _scaled(kind, parameters, document, changes) if changes else Scaled(parameters)
    if scaled.parameters is not parameters:  # what the data file gives decides, too
        digest = digest_of([plain, _given[id(document)][2], changes])
    made = kind.build(name, units, scaled.parameters)
    remarks = made.remarks if _remarks(made) else ()
    return Part(
        type=type_name,
        document=document,
        content=content,
        changes=changes,
        plain=plain,
        digest=digest,
        parameters=parameters,
        scaled=scaled.parameters,
        component=made,
        remarks=(*remarks, *(f"{name}: {text}" for text in scaled.remarks)),
    )


_remarking: dict[type, bool] = {}  # types of components: whether they have remarks


def _remarks(made: Component) -> TypeGuard[Remarker]:
    """Whether a component has remarks, asked once for each type: to ask an object computes them."""
    kind = type(made)
    if kind not in _remarking:
        _remarking[kind] = isinstance(made, Remarker)
    return _remarking[kind]


@lru_cache(maxsize=64)
def _scales(kind: Any) -> bool:
    return isinstance(kind, Scalable)


def _scaled(kind: Any, parameters: Any, document: Document, changes: dict[str, object]) -> Scaled:
    """The parameters with the constants of the data file scaled to the sizes that the changes give."""
    if not _scales(kind):
        return Scaled(parameters)
    known = _given.get(id(document))
    if known is None or known[0] is not document:
        try:
            known = (document, validate(kind.schema, document), digest_of(document.content))
        except TierformError:  # a data file that is whole only with its changes
            known = (document, None, "")
        _keep(_given, id(document), known)
    if known[1] is None:
        return Scaled(parameters)
    own: set[Steps] = set(places_of(changes))
    scaled: Scaled = kind.scaled(parameters, known[1], own)
    return scaled


def _parameters(schema: Any, document: Document, before: Part | None) -> Any:
    """The validated parameters; values that were validated `before` are taken from there."""
    known: set[int] = set()
    content = document.content
    if before is not None:
        content = with_checked(content, before.content, before.parameters, known)
    parameters = validate(schema, Document(content, document.file, document.lines))
    _check_citations(parameters, document.file, known)
    return parameters


def _check_citations(parameters: object, file: str, known: AbstractSet[int]) -> None:
    """Refuse sources that the library does not know; objects that are `known` were checked before."""
    problems: list[Problem] = []
    for key, constant in constants(parameters, known=known):
        if constant.source:
            problems += source_problems(constant.source, key, file, None)
    if problems:
        raise TierformError(problems)


def _located(
    problem: Problem, name: str, document: Document, places: Mapping[Any, Any], chip: Document | None
) -> Problem:
    """The problem with its place: in the chip file's `set`, or in the component's own file."""
    key = problem.key or ""
    if problem.file is None:  # of the component's own checks, which know its name on the chip
        key = key.removeprefix(f"{name}.")
    steps = tuple(key.split(".")) if key else ()
    spot = spot_of(steps, document.content, places)
    if chip is not None and (spot is not None or not steps):
        place = ("components", name, *(("set", *spot) if spot is not None else ("file",)))
        return _moved(problem, chip.file, chip.line_of(place), ".".join(map(str, place)))
    line = problem.line if spot is None else None
    if line is None and spot is None and steps:
        line = document.line_of(steps)
    return _moved(problem, document.file, line, key or None)


def _moved(problem: Problem, file: str, line: int | None, key: str | None) -> Problem:
    return Problem(
        problem.what, file=file, line=line, key=key, value=problem.value, nearest=problem.nearest, fix=problem.fix
    )


def _keep(store: dict[Any, Any], key: object, value: object, most: int = _MOST) -> None:
    store[key] = value
    while len(store) > most:
        del store[next(iter(store))]
