"""``tierform list models|chips|components|memories|studies``: what is in the library, a line an entry.

``--json`` has the descriptions and sources, too; ``tierform show NAME`` tells all of one entry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tierform.cli.output import json_option, print_table, print_text

_SHELVES = ["models", "chips", "components", "memories", "studies"]
# `assumed` counts the constants without a source, of all.
# What would not fit in a line of a terminal, and is told by `show`.
_LONG = ("what", "source", "sources")


@click.command("list")
@click.argument("shelf", type=click.Choice(_SHELVES))
@json_option
def command(shelf: str, json_file: Path | None) -> None:
    """What the library holds, a line an entry; `tierform show NAME` tells all of one."""
    from tierform.files import write_json

    rows = {"models": _models, "chips": _chips, "components": _components, "memories": _memories, "studies": _studies}[
        shelf
    ]()
    if json_file:
        write_json(json_file, rows)
    head = [key for key in rows[0] if key not in _LONG] if rows else ["name"]
    print_table("", head, [[str(row[key]) for key in head] for row in rows])
    if shelf != "studies":
        print_text("All of an entry, with the source of every number: tierform show NAME.")


def _models() -> list[dict[str, object]]:
    from tierform import library
    from tierform.units import format_quantity
    from tierform.workload import load_model

    rows = []
    for name in library.names("models"):
        model = load_model(name)
        total, active = model.parameters, model.active_parameters
        rows.append(
            {
                "name": name,
                "family": model.family,
                "parameters": format_quantity(total, ""),
                "active per token": format_quantity(active, ""),
                "layers": model.layers,
                "hidden": model.hidden_size,
                "source": model.source,
            }
        )
    return rows


def _chips() -> list[dict[str, Any]]:
    from tierform import library
    from tierform.chip.description import load_chip
    from tierform.units import format_quantity

    rows = []
    for name in library.names("chips"):
        chip = load_chip(name)
        evidence = chip.assumptions()
        sources = sorted({line.source for line in evidence if line.source})
        assumed = sum(line.kind == "assumed" for line in evidence)
        rows.append(
            {
                "name": name,
                "package": chip.package.kind,
                "tiles": len(chip.tiles),
                "area": format_quantity(chip.area_m2, "m2"),
                "assumed": f"{assumed}/{len(evidence)}",
                "parts": ", ".join(dict.fromkeys(chip.component_types.values())),
                "what": chip.description,
                "sources": ", ".join(sources),
            }
        )
    return rows


def _components() -> list[dict[str, object]]:
    from tierform import library
    from tierform.chip.description import load_component
    from tierform.units import format_quantity

    rows = []
    for name in library.names("components"):
        part = load_component(name, 1, name)
        parameters: Any = getattr(part, "parameters")
        evidence = part.assumptions()
        sources = sorted({line.source for line in evidence if line.source})
        rows.append(
            {
                "name": name,
                "type": parameters.type,
                "area": format_quantity(part.area_m2, "m2"),
                "assumed": f"{sum(line.kind == 'assumed' for line in evidence)}/{len(evidence)}",
                "what": parameters.description,
                "sources": ", ".join(sources),
            }
        )
    return rows


def _memories() -> list[dict[str, Any]]:
    from tierform import library
    from tierform.memory import load_memory
    from tierform.units import format_quantity

    rows = []
    for name in library.names("memories"):
        device: Any = load_memory(name)
        rows.append(
            {
                "name": name,
                "capacity": format_quantity(device.capacity_B, "B"),
                "peak bandwidth": format_quantity(device.peak_bandwidth_B_per_s, "B/s"),
                "streamed reads": format_quantity(device.effective_bandwidth_B_per_s("stream"), "B/s"),
                "sources": ", ".join(device.sources),
            }
        )
    return rows


def _studies() -> list[dict[str, object]]:
    from tierform.studies import STUDIES

    return [{"name": name, "run": f"tierform reproduce {name}"} for name in STUDIES.names()]
