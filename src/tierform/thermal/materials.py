"""What layers are made of: conductivities, heat capacities, and mixtures such as silicon with vias.

A :class:`Material` has a conductivity per axis at a reference temperature and an exponent that says how it falls with
temperature, k(T) = k(T_ref) · (T/T_ref)^exponent.  Mixtures follow the classical bounds: along parallel columns (vias,
bumps) conductivities add by area; across columns the Maxwell-Garnett formula for parallel cylinders holds, which is
good below a fill of about one half.  Numbers and their sources are in ``library/processes/materials.yaml``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from tierform.errors import Problem, TierformError, fail

if TYPE_CHECKING:
    from tierform.provenance import Assumption

REFERENCE_TEMPERATURE_K = 300.0


@dataclass(frozen=True, slots=True)
class Material:
    """Thermal conductivity by axis (W/(m·K)), heat capacity per volume, and the law of temperature."""

    name: str
    conductivity_x_W_per_mK: float
    conductivity_y_W_per_mK: float
    conductivity_z_W_per_mK: float
    heat_capacity_J_per_m3K: float
    conductivity_exponent: float = 0.0
    viscosity_Pa_s: float = 0.0

    def __post_init__(self) -> None:
        problems = [
            Problem("must be positive and finite", key=f"{self.name}.{key}", value=value)
            for key, value in (
                ("conductivity_x_W_per_mK", self.conductivity_x_W_per_mK),
                ("conductivity_y_W_per_mK", self.conductivity_y_W_per_mK),
                ("conductivity_z_W_per_mK", self.conductivity_z_W_per_mK),
                ("heat_capacity_J_per_m3K", self.heat_capacity_J_per_m3K),
            )
            if not 0 < value < float("inf")
        ]
        if problems:
            raise TierformError(problems)

    @classmethod
    def isotropic(
        cls,
        name: str,
        conductivity_W_per_mK: float,
        heat_capacity_J_per_m3K: float,
        conductivity_exponent: float = 0.0,
        viscosity_Pa_s: float = 0.0,
    ) -> Material:
        """A material that conducts alike along every axis."""
        k = conductivity_W_per_mK
        return cls(name, k, k, k, heat_capacity_J_per_m3K, conductivity_exponent, viscosity_Pa_s)


def with_columns(matrix: Material, inclusion: Material, fraction: float, name: str | None = None) -> Material:
    """`matrix` pierced by vertical columns of `inclusion` (vias, bumps) that take `fraction` of its area.

    Vertical: k = (1 - f)·k_m + f·k_i.  Lateral: Maxwell-Garnett for cylinders, k_m·(k_i(1+f) + k_m(1-f)) /
    (k_i(1-f) + k_m(1+f)).  Heat capacity by volume.  TierformError when `fraction` is outside 0..1.
    """
    if not 0.0 <= fraction <= 1.0:
        fail("the fill fraction must lie between 0 and 1", key=name or matrix.name, value=fraction)
    if fraction == 0.0:
        return matrix

    def across(k_m: float, k_i: float) -> float:
        return k_m * (k_i * (1 + fraction) + k_m * (1 - fraction)) / (k_i * (1 - fraction) + k_m * (1 + fraction))

    def along(a: float, b: float) -> float:
        return (1 - fraction) * a + fraction * b

    return Material(
        name or f"{matrix.name} with {fraction:.3g} {inclusion.name}",
        across(matrix.conductivity_x_W_per_mK, inclusion.conductivity_x_W_per_mK),
        across(matrix.conductivity_y_W_per_mK, inclusion.conductivity_y_W_per_mK),
        along(matrix.conductivity_z_W_per_mK, inclusion.conductivity_z_W_per_mK),
        along(matrix.heat_capacity_J_per_m3K, inclusion.heat_capacity_J_per_m3K),
        matrix.conductivity_exponent,
    )


def at_temperature(material: Material, temperature_K: float) -> Material:
    """The material with its conductivities at `temperature_K`, by its power law."""
    factor = float((temperature_K / REFERENCE_TEMPERATURE_K) ** material.conductivity_exponent)
    return replace(
        material,
        conductivity_x_W_per_mK=material.conductivity_x_W_per_mK * factor,
        conductivity_y_W_per_mK=material.conductivity_y_W_per_mK * factor,
        conductivity_z_W_per_mK=material.conductivity_z_W_per_mK * factor,
    )


@lru_cache(maxsize=1)
def _library() -> tuple[dict[str, Material], dict[str, tuple[Assumption, ...]]]:
    from tierform.library import ROOT
    from tierform.provenance import Assumption
    from tierform.thermal.materials_file import MaterialsFile

    read = MaterialsFile.read(ROOT / "processes" / "materials.yaml")
    materials: dict[str, Material] = {}
    evidence: dict[str, tuple[Assumption, ...]] = {}
    for name, entry in read.materials.items():
        k, c = entry.conductivity, entry.heat_capacity
        viscosity = entry.viscosity.value if entry.viscosity else 0.0
        exponent = entry.conductivity_exponent.value if entry.conductivity_exponent else 0.0
        materials[name] = Material.isotropic(name, k.value, c.value, exponent, viscosity)
        evidence[name] = tuple(
            Assumption(
                f"{name}: {label}", f"{constant.value:g} {constant.unit}", constant.kind, constant.source, constant.note
            )
            for label, constant in (
                ("thermal conductivity", k),
                ("heat capacity", c),
                ("exponent of the conductivity with temperature", entry.conductivity_exponent),
                ("viscosity", entry.viscosity),
            )
            if constant is not None
        )
    return materials, evidence


def material(name: str) -> Material:
    """A material of the library (``library/processes/materials.yaml``); TierformError with the nearest name."""
    materials = _library()[0]
    if name not in materials:
        fail(
            "no material of this name in the library",
            value=name,
            choices=materials,
            fix=f"Known: {', '.join(materials)}.",
        )
    return materials[name]


def evidence(names: set[str]) -> tuple[Assumption, ...]:
    """The constants behind the named library materials, each with its source; other names are passed over."""
    known = _library()[1]
    return tuple(entry for name in sorted(names & set(known)) for entry in known[name])
