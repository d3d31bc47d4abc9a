"""What the pictures of a study's page share: plotly where it is installed, colours and layout."""

from __future__ import annotations

from typing import Any

from tierform.errors import MissingDependency

# A colour-blind safe palette (Okabe and Ito, 2008), then greys.
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000", "#777777", "#BBBBBB"]
LAYOUT: dict[str, object] = {
    "template": "plotly_white",
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "margin": {"l": 70, "r": 20, "t": 46, "b": 46},
}


def graph_objects() -> Any:
    """Plotly's graph objects; TierformError when plotly is missing."""
    try:
        import plotly.graph_objects as found
    except ImportError:
        raise MissingDependency("plotly", "a study's page", "report") from None
    return found
