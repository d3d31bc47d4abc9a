"""How hot it gets: stacks and packages, steady and transient solvers, and the influence model for search loops.

Names are imported when first used, so that ``import tierform.thermal`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierform.thermal.builders import Die as Die
    from tierform.thermal.builders import Tier as Tier
    from tierform.thermal.builders import default_board as default_board
    from tierform.thermal.builders import default_sink as default_sink
    from tierform.thermal.builders import interposer_2_5d as interposer_2_5d
    from tierform.thermal.builders import planar_stack as planar_stack
    from tierform.thermal.builders import stacked_3d as stacked_3d
    from tierform.thermal.builders import tile_grid as tile_grid
    from tierform.thermal.grid import GridModel as GridModel
    from tierform.thermal.grid import TemperatureField as TemperatureField
    from tierform.thermal.influence import FixedPoint as FixedPoint
    from tierform.thermal.influence import InfluenceModel as InfluenceModel
    from tierform.thermal.materials import Material as Material
    from tierform.thermal.materials import material as material
    from tierform.thermal.materials import with_columns as with_columns
    from tierform.thermal.stack import Board as Board
    from tierform.thermal.stack import Channels as Channels
    from tierform.thermal.stack import HeatSource as HeatSource
    from tierform.thermal.stack import Plate as Plate
    from tierform.thermal.stack import Region as Region
    from tierform.thermal.stack import Sink as Sink
    from tierform.thermal.stack import Stack as Stack
    from tierform.thermal.stack import StackLayer as StackLayer
    from tierform.thermal.stack import Surface as Surface

_HOMES = {
    "builders": (
        "Die",
        "Tier",
        "default_board",
        "default_sink",
        "interposer_2_5d",
        "planar_stack",
        "stacked_3d",
        "tile_grid",
    ),
    "grid": ("GridModel", "TemperatureField"),
    "influence": ("FixedPoint", "InfluenceModel"),
    "materials": ("Material", "material", "with_columns"),
    "stack": ("Board", "Channels", "StackLayer", "Plate", "Region", "Sink", "Stack", "Surface", "HeatSource"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(f"tierform.thermal.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
