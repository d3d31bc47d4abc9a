"""Is the power of windows the energy of the run, is the end of a long load the steady state, does a limit hold?"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tierform.chip.description import load_chip
from tierform.errors import TierformError
from tierform.serving.engine import Engine
from tierform.serving.fleet import Fleet
from tierform.serving.oracle import FormulaOracle
from tierform.serving.requests import Requests
from tierform.serving.serve import serve
from tierform.serving.service import Service
from tierform.serving.timeline import write_timeline
from tierform.simulation.heat import stack_of
from tierform.thermal import GridModel
from tierform.thermal.influence import default_grid

# 10 ms and 6 J a step: 600 W while it works.
HOT = FormulaOracle(step_ns=10_000_000, token_ns=0, components=("gpu",), joules=((6.0, 0.0, 0.0, 0.0),))
ENGINE = Engine(num_gpu_blocks=5000, max_num_seqs=10, async_scheduling=False)


def _served(tokens: int, limit_K: float | None = None, record: bool = False, window_s: float = 1.0) -> Service:
    """Ten requests of so many tokens at once, on one H100."""
    requests = Requests(np.zeros(10, int), np.full(10, 16), np.full(10, tokens))
    fleet = Fleet(heat_window_s=window_s, limit_K=limit_K)
    return serve("llama-3.1-8b", "h100", requests, engine=ENGINE, oracle=HOT, fleet=fleet, record=record)


def test_is_the_power_of_all_windows_the_energy() -> None:
    """1,950 steps of 10 ms: 19.5 s, of which 19 windows are whole; each holds 100 steps of 6 J."""
    made = _served(1950)
    assert made.seconds == pytest.approx(19.5)
    assert len(made.over_time["time_s"]) == 19
    # Energy counts when a step is planned: the step that begins at a window's end belongs to that window.
    assert np.cumsum(made.over_time["power_W"]) == pytest.approx(600 * np.arange(1, 20) + 6, abs=1e-6)
    assert made.energy_J_by_component["gpu"] == pytest.approx(1950 * 6)


def test_does_a_long_load_end_in_the_steady_state() -> None:
    chip = load_chip("h100")
    stack = stack_of(chip)
    steady = GridModel(stack, *default_grid(stack)).steady(np.array([600.0])).tiles_K().max()
    made = _served(30_000, window_s=5.0)
    peaks = made.over_time["peak_K"]
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(peaks))
    assert peaks[-1] == pytest.approx(steady, abs=0.5)
    assert made.more["slowest_clock"] == 1.0


def test_does_a_limit_slow_the_clock_and_hold() -> None:
    free = _served(6000)
    middle = (free.over_time["peak_K"][0] + max(free.over_time["peak_K"])) / 2
    held = _served(6000, limit_K=middle)
    assert min(held.over_time["clock"]) < 1.0
    assert max(held.over_time["peak_K"][20:]) < max(free.over_time["peak_K"]) - 1.0
    assert held.seconds > free.seconds
    assert held.output_tokens == free.output_tokens
    # The clock is skipped at the same voltage: a step's energy stays.
    assert held.energy_J_by_component["gpu"] == pytest.approx(free.energy_J_by_component["gpu"])


def test_is_a_limit_without_temperatures_refused() -> None:
    requests = Requests(np.zeros(1, int), np.full(1, 16), np.full(1, 4))
    with pytest.raises(TierformError) as told:
        serve("llama-3.1-8b", "h100", requests, oracle=HOT, fleet=Fleet(limit_K=350.0, prefill_replicas=2))
    assert "heat_window_s" in str(told.value) and "two replicas" in str(told.value)


def test_does_a_timeline_hold_every_step(tmp_path: Path) -> None:
    made = _served(20, record=True)
    path = tmp_path / "steps.json"
    write_timeline(made, path)
    events = json.loads(path.read_text())["traceEvents"]
    steps = [one for one in events if one["ph"] == "X"]
    assert len(steps) == 20 and steps[0]["name"] == "prefill" and steps[1]["name"] == "decode"
    assert steps[1]["ts"] == 10_000 and steps[1]["dur"] == 10_000 and steps[1]["args"]["joules"] == 6.0


def test_does_keeping_prefill_apart_move_the_keys_and_values() -> None:
    """2 * 8 heads * 128 * 32 layers * 2 bytes = 131,072 bytes a token; 131.072 MB/s: 1 ms a token, and 0.5 s a move."""
    requests = Requests(np.zeros(1, int), np.full(1, 16), np.full(1, 2))
    fleet = Fleet(prefill_replicas=1, link_B_per_s=131.072e6, link_s=0.5)
    made = serve("llama-3.1-8b", "h100", requests, engine=ENGINE, oracle=HOT, fleet=fleet, replicas=2)
    assert made.more["moved_kv_tokens"] == 16
    assert made.array("tpot_s")[0] == pytest.approx(0.5 + 0.016 + 0.01)
