"""Is a chip with more of something (bandwidth, tiles, buffer, clock) never slower, whatever it runs?

Time is compared, not energy: more tiles leak more.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawn import chip_content, law, load, models, part_content, run, tasks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Change = Callable[[dict[str, Any], int], None]


def _scaled(value: dict[str, Any], factor: int) -> dict[str, Any]:
    """A constant times a factor; `8 GB/s` becomes `16 GB/s`."""
    number, _, unit = str(value["value"]).partition(" ")
    return {**value, "value": f"{float(number) * factor:g} {unit}".strip()}


def _part(component: str, key: str) -> Change:
    def change(content: dict[str, Any], factor: int) -> None:
        given = part_content(content, component)[key]
        new = _scaled(given, factor) if isinstance(given, dict) else given * factor
        content["components"][component].setdefault("set", {})[key] = new

    return change


def _memory_count(content: dict[str, Any], factor: int) -> None:
    content["memory"][0]["count"] = content["memory"][0].get("count", 1) * factor


def _network(key: str) -> Change:
    def change(content: dict[str, Any], factor: int) -> None:
        content["network"][key] = _scaled(content["network"][key], factor)

    return change


def _units(component: str) -> Change:
    def change(content: dict[str, Any], factor: int) -> None:
        for die in content["package"]["dies"]:
            if component in die["holds"]:
                die["holds"][component] *= factor

    return change


CHANGES: list[tuple[str, str, Change]] = [
    ("toy-gpu", "memory bandwidth", _part("gpu", "memory_bandwidth")),
    ("a100", "memory bandwidth", _part("gpu", "memory_bandwidth")),
    ("a100", "vector rate", _part("gpu", "vector_rate")),
    ("a100", "l2", _part("gpu", "l2_capacity")),
    ("tpu-3d", "stacks of memory", _memory_count),
    ("tpu-3d", "clock of arrays", _part("systolic", "clock")),
    ("tpu-3d", "clock of the network", _network("clock")),
    ("tpu-3d", "width of links", _network("width")),
    ("tpu-3d", "buffer", _part("systolic", "sram_capacity")),
    ("tpu-3d", "buffer of vector units", _part("vector", "buffer_capacity")),
    ("tpu-3d", "arrays a tile", _units("systolic")),
    ("tpu-3d", "vector units a tile", _units("vector")),
    ("tpu-3d", "lanes", _part("vector", "lanes")),
    ("atleus", "stacks of memory", _memory_count),
    ("atleus", "clock of arrays", _part("systolic", "clock")),
    ("atleus", "clock of the network", _network("clock")),
    ("atleus", "width of links", _network("width")),
    ("atleus", "buffer", _part("systolic", "sram_capacity")),
    ("atleus", "arrays a tile", _units("systolic")),
    ("atleus", "crossbars a tile", _part("reram", "crossbars")),
    ("atleus-2.5d", "crossbars a tile", _part("reram", "crossbars")),
    ("isaac", "clock of the network", _network("clock")),
    ("isaac", "lanes", _part("vector", "lanes")),
    ("x-former", "clock of the network", _network("clock")),
]


# A weight that moves to its neighbour's tile needs no transfer any more.  That changes the order in which steps are
# served, not only their times, and none of the orders that are tried may be as good as the one before: of 60 draws 16
# get slower by more than 0.1 %, the worst by 4 %.
KNOWN = pytest.mark.xfail(strict=True, reason="other service orders where fewer transfers are needed")
CASES = [
    pytest.param(
        *one, id=f"{one[0]}, {one[1]}", marks=[KNOWN] if one[:2] == ("atleus-2.5d", "crossbars a tile") else []
    )
    for one in CHANGES
]


@pytest.mark.parametrize(("chip", "what", "change"), CASES)
def test_is_more_of_it_never_slower(chip: str, what: str, change: Change, tmp_path: Path) -> None:
    before = load(chip_content(chip), tmp_path)
    content = chip_content(chip)
    change(content, 2)
    after = load(content, tmp_path)

    @settings(law(4), suppress_health_check=list(HealthCheck))
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        model = data.draw(models())
        task = data.draw(tasks(model, batches=(1, 3, 8)))
        slow, fast = run(model, task, before), run(model, task, after)
        assert fast.latency_s <= slow.latency_s * (1 + 1e-3), (slow.latency_s, fast.latency_s)

    holds()
