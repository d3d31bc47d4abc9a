"""``tierform show NAME``: one entry of the library, resolved, with the source of every number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierform.cli.output import console, json_option, print_table

if TYPE_CHECKING:
    from tierform.chip.parts import Part


@click.command("show")
@click.argument("name")
@click.option("--shelf", help="Where to look, if several shelves have the name.")
@json_option
def command(name: str, shelf: str | None, json_file: Path | None) -> None:
    """One entry of the library (or a chip file), resolved, with the source of every number."""
    from tierform.files import write_json

    found = _find(name, shelf)
    rows = [row for part, content in found["parts"].items() for row in _rows(content, (part,) if part else ())]
    sources = {key: _citation(key) for key in dict.fromkeys(row["source"] for row in rows if row["source"])}
    if json_file:
        write_json(json_file, {**found, "sources": sources})
    console().print(f"{name}: {found['shelf'].rstrip('s')}, {found['file']}")
    shown = [[row["key"], row["value"], _evidence(row)] for row in rows]
    print_table("", ["key", "value", "evidence"], shown, left=3)
    if sources:
        print_table("Sources", ["key", "text"], [[key, text] for key, text in sources.items()], left=2)


def _find(name: str, shelf: str | None) -> dict[str, Any]:
    """The shelf, the file, and the plain content by part: of a chip its own, and that of each component."""
    from tierform import library
    from tierform.errors import fail
    from tierform.files import read_yaml

    if shelf is not None and shelf not in library.SHELVES:
        fail("no such shelf", value=shelf, choices=library.SHELVES, fix=f"Known: {', '.join(library.SHELVES)}.")
    if name.endswith((".yaml", ".yml")):
        return _chip(name)
    shelves = [one for one in library.SHELVES if shelf in (None, one) and name in library.names(one)]
    if not shelves:
        known = [entry for one in library.SHELVES if shelf in (None, one) for entry in library.names(one)]
        fail("no entry of this name in the library", value=name, choices=known, fix="`tierform list SHELF` shows them.")
    if len(shelves) > 1:
        fail("several shelves have this name", value=name, fix=f"Name one with --shelf: {', '.join(shelves)}.")
    if shelves[0] == "chips":
        return _chip(name)
    file = library.find(shelves[0], name)
    return {"shelf": shelves[0], "file": str(file), "parts": {"": read_yaml(file).content}}


def _chip(name: str) -> dict[str, object]:
    from tierform.chip.description import load_chip

    chip = load_chip(name)
    assert chip.origin is not None
    own = {key: value for key, value in chip.origin.content.items() if key != "components"}
    parts = {f"components.{key}": _as_scaled(part) for key, part in chip.origin.parts.items()}
    return {"shelf": "chips", "file": chip.file, "parts": {"": own, **parts}}


def _as_scaled(part: Part) -> dict[str, Any]:
    """The content of a component with the values that hold: constants that a law has scaled, with what was done."""
    from tierform.chip.changes import merged, nested

    before = dict(_leaves(part.parameters))
    content = part.content
    for steps, value in _leaves(part.scaled):
        if steps in before and value != before[steps]:
            content = merged(content, nested({".".join(steps): _shown(value)}))
    return content


def _leaves(value: object, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Constants and plain numbers of a component's parameters, with their places."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, (*at, str(name)))
    elif value is not None:
        yield at, value


def _shown(value: object) -> object:
    from tierform.provenance import Constant
    from tierform.units import format_quantity

    if not isinstance(value, Constant):
        return value
    text = format_quantity(value.value, value.unit)
    return {"value": text, "kind": value.kind, "source": value.source, "note": value.note}


def _rows(value: object, at: tuple[str, ...]) -> list[dict[str, str]]:
    """One row for each value, with its evidence where it has some."""
    if isinstance(value, dict) and "value" in value:
        evidence = {key: str(value.get(key, "")) for key in ("kind", "source", "note")}
        return [{"key": ".".join(at), "value": str(value["value"]), **evidence}]
    if isinstance(value, dict):
        return [row for key, item in value.items() for row in _rows(item, (*at, str(key)))]
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        names = [item.get("name", index) if isinstance(item, dict) else index for index, item in enumerate(value)]
        return [row for key, item in zip(names, value, strict=True) for row in _rows(item, (*at, str(key)))]
    shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    source = shown if at and at[-1] == "source" else ""
    return [{"key": ".".join(at), "value": shown, "kind": "", "source": source, "note": ""}]


def _evidence(row: dict[str, str]) -> str:
    """Kind, source and note in a few words; a value that is itself the name of a source has none."""
    first = f"{row['kind']} {row['source']}".strip() if row["kind"] else ""
    return ": ".join(filter(None, (first, row["note"])))


def _citation(key: str) -> str:
    from tierform import library
    from tierform.errors import TierformError

    try:
        found = library.citation(key)
    except TierformError:
        return key
    return f"{found.text} {found.url}".strip()
