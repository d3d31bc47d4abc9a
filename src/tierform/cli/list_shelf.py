"""``tierform list models|chips|components|studies``: what is in the library, with sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tierform.cli.output import json_option, print_table

_SHELVES = ["models", "chips", "components", "memories", "studies"]


@click.command("list")
@click.argument("shelf", type=click.Choice(_SHELVES))
@json_option
def command(shelf: str, json_file: Path | None) -> None:
    """What the library holds, with sources."""
    from tierform.files import write_json

    rows = {"models": _models, "chips": _chips, "components": _components, "memories": _memories, "studies": _studies}[
        shelf
    ]()
    if json_file:
        write_json(json_file, rows)
    head = list(rows[0]) if rows else ["name"]
    print_table(shelf, head, [[str(row[key]) for key in head] for row in rows])


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
                "area": format_quantity(chip.area_m2, "m2"),
                "constants": f"{len(evidence)}, {assumed} assumed",
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
        sources = sorted({line.source for line in part.assumptions() if line.source})
        rows.append(
            {
                "name": name,
                "type": parameters.type,
                "area": format_quantity(part.area_m2, "m2"),
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
