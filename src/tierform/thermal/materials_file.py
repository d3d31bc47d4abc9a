"""The schema of ``library/processes/materials.yaml``: each number with its source and kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from tierform.files import read_yaml
from tierform.provenance import Constant
from tierform.schema import FileModel, quantity, validate

_Conductivity = Annotated[Constant, quantity("W/(m*K)", above=0)]
_HeatCapacity = Annotated[Constant, quantity("J/(m^3*K)", above=0)]
_Number = Annotated[Constant, quantity("")]
_Viscosity = Annotated[Constant, quantity("kg/(m*s)", minimum=0)]


class MaterialEntry(FileModel):
    """One material: conductivity at 300 K, heat capacity per volume, exponent of k(T), viscosity of a coolant."""

    conductivity: _Conductivity = Field(description="Thermal conductivity at 300 K.")
    heat_capacity: _HeatCapacity = Field(description="Heat capacity of a volume; changes how fast it warms.")
    conductivity_exponent: _Number | None = Field(
        None, description="Exponent n of k(T) = k(300 K) (T / 300 K)^n; none: it does not change."
    )
    viscosity: _Viscosity | None = Field(None, description="Viscosity of a coolant; only where it flows.")


class MaterialsFile(FileModel):
    """All materials by name."""

    materials: dict[str, MaterialEntry] = Field(description="Materials by the names that stacks use.")

    @classmethod
    def read(cls, path: Path | str) -> MaterialsFile:
        """Read and check a materials file; every mistake at once as a TierformError."""
        return validate(cls, read_yaml(path))
