"""A Chip for people at a Python prompt: one line, and a small card for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierform.card import Listed, card
from tierform.chip.dies import held_text
from tierform.units import format_quantity

if TYPE_CHECKING:
    from tierform.chip.description import Chip


def chip_line(chip: Chip) -> str:
    """Name, package, dies, tiles and area."""
    dies, tiles = len(chip.package.dies), len(chip.tiles)
    return (
        f"<Chip: {chip.name}, {chip.package.kind}, {dies} {'die' if dies == 1 else 'dies'}, "
        f"{tiles} {'tile' if tiles == 1 else 'tiles'}, {format_quantity(chip.area_m2, 'm2')}>"
    )


def chip_card(chip: Chip) -> str:
    """The card as HTML: dies from the bottom up, components, memory behind."""
    evidence = chip.assumptions()
    assumed = sum(line.kind == "assumed" for line in evidence)
    figures = [
        ("package", chip.package.kind),
        ("tiles", str(len(chip.tiles))),
        ("silicon", format_quantity(chip.area_m2, "m2")),
        ("constants", f"{len(evidence)}, {assumed} assumed"),
    ]
    dies = []
    for index, die in enumerate(chip.package.dies):
        width, height = (format_quantity(size, "m") for size in chip.die_size_m(index))
        dies.append((die.name, f"{die.grid[0]} x {die.grid[1]}", f"{width} x {height}", held_text(die)))
    components = [
        (name, chip.component_types.get(name, ""), str(component.units), format_quantity(component.area_m2, "m2"))
        for name, component in chip.components.items()
    ]
    memory = [(behind.device, str(behind.count), _port(behind.attached)) for behind in chip.memory]
    tables: list[Listed] = [
        (("die", "tiles", "size", "each tile holds"), dies),
        (("component", "type", "units", "area"), components),
        (("memory", "stacks", "attached to"), memory),
    ]
    return card(chip.name, chip.description, figures, tables, chip.notes)


def _port(attached: str | tuple[int, ...]) -> str:
    return (attached or "first die") if isinstance(attached, str) else f"tiles {', '.join(map(str, attached))}"
