"""What computes: chip descriptions and the cost models of their components."""

from tierform.chip.component import COMPONENTS, WHOLE, Component, Cost, Share, WeightHolder

__all__ = ["COMPONENTS", "Chip", "Component", "Cost", "Share", "WHOLE", "WeightHolder", "load_chip", "load_component"]


def __getattr__(name: str) -> object:
    if name in ("Chip", "load_chip", "load_component"):
        from tierform.chip import description

        return getattr(description, name)
    raise AttributeError(name)
