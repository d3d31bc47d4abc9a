"""Compute-in-memory tiles: parts with energy and area, bit-serial and integrating readout, writing and wear."""

from tierform.chip.crossbar.component import CrossbarTiles
from tierform.chip.crossbar.parameters import CHARGES, CrossbarParameters, PartFile

__all__ = ["CHARGES", "CrossbarParameters", "CrossbarTiles", "PartFile"]
