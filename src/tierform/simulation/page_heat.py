"""Temperatures of all tiles over time in a few bytes, for a page."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from tierform.simulation.run import Run

ZERO_C_K, SCALE_K = 273.15, 0.01


def heat_over_time(run: Run) -> dict[str, Any] | None:
    """Times, stages, and (times, tiles) temperatures as whole hundredths of a degree Celsius, low byte first.

    None without a transient.  Beyond 327 degC a value stays at the largest that 16 bits hold.
    """
    if run.heat is None or run.heat.over_time_K is None:
        return None
    figures = run.heat.figures["transient"]
    coded = np.clip(np.rint((run.heat.over_time_K - ZERO_C_K) / SCALE_K), -32768, 32767).astype("<i2")
    return {
        "time_s": figures["time_s"],
        "stage": figures["stage"],
        "temperature_K": {
            "shape": list(coded.shape),
            "offset": ZERO_C_K,
            "scale": SCALE_K,
            "int16": base64.b64encode(coded.tobytes()).decode("ascii"),
        },
    }
