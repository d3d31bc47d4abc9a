"""Refresh management by activations of a bank, and alerts by activations of a row, against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tierform.errors import TierformError
from tierform.memory.constraints import COMMANDS
from tierform.memory.cycle import CycleMemory, Trace
from tierform.memory.cycle.result import CommandLog
from tierform.memory.standard import load_dram


def _hammer(spec, rows: int, count: int) -> Trace:
    """Reads of one bank that walk over `rows` rows, 200 cycles apart: each opens its row anew."""
    step = spec.burst_bytes << spec.address_map().position["ro"]
    number = np.arange(count)
    return Trace(number * 200, (number % rows) * step, np.zeros(count, np.bool_))


def _commands(log: CommandLog) -> list[tuple[int, str, int, int]]:
    names = [COMMANDS[command] for command in log.command.tolist()]
    return list(zip(log.cycle.tolist(), names, log.bank.tolist(), log.row.tolist(), strict=True))


def test_every_so_many_activations_of_a_bank_bring_a_refresh_management() -> None:
    spec = load_dram("ddr5", refresh="none", rfm_threshold=32).with_channels(1)
    # 200 rows of one bank.  The command that comes due closes the row of the 32nd activation before it is read, which
    # then opens it again: 206 activations, and management after 32, 64, ... 192.
    result = CycleMemory(spec).run(_hammer(spec, 200, 200), log_commands=2_000)
    assert (result.reads, result.activations, result.refresh_managements) == (200, 206, 6)
    assert result.log is not None
    seen = [name for _, name, _, _ in _commands(result.log) if name in ("ACT", "RFM")]
    assert [seen[:at].count("ACT") for at, name in enumerate(seen) if name == "RFM"] == [32, 64, 96, 128, 160, 192]


def test_a_refresh_takes_its_share_off_the_count() -> None:
    # Of activations 200 cycles apart, 47 fall between two refreshes (9,360 cycles: 3.9 us at 0.4167 ns), and a refresh
    # takes the threshold off: one of 60 is never reached, one of 20 is.
    for threshold, needed in ((60, False), (20, True)):
        spec = load_dram("ddr5", rfm_threshold=threshold).with_channels(1)
        result = CycleMemory(spec).run(_hammer(spec, 300, 300))
        assert result.refreshes >= 5
        assert (result.refresh_managements > 0) is needed


def test_without_a_threshold_nothing_is_managed() -> None:
    spec = load_dram("ddr5").with_channels(1)
    result = CycleMemory(spec).run(_hammer(spec, 300, 300))
    assert (result.refresh_managements, result.alerts) == (0, 0)


@pytest.mark.parametrize(("threshold", "recovery", "rows"), [(16, 4, 2), (8, 1, 5), (40, 2, 3)])
def test_alerts_come_where_a_plain_count_of_rows_puts_them(threshold: int, recovery: int, rows: int) -> None:
    spec = load_dram(
        "ddr5", refresh="none", prac_threshold=threshold, prac_recovery=recovery, prac_delay=4
    ).with_channels(1)
    result = CycleMemory(spec).run(_hammer(spec, rows, 400), log_commands=4_000)
    assert result.log is not None
    # The plain count: an alert at the activation that reaches the threshold, `recovery` refresh managements after
    # nABOACT, each clearing the bank's most activated row, and no new alert within four activations.
    counts: dict[int, int] = {}
    state, alert_at, left, alerts, managements = "normal", 0, 0, 0, 0
    for cycle, name, _, row in _commands(result.log):
        if name == "ACT":
            counts[row] = counts.get(row, 0) + 1
            if state == "delay":
                left -= 1
                if left == 0:
                    state = "alert" if max(counts.values()) >= threshold else "normal"
                    alerts += state == "alert"
                    alert_at = cycle
            elif state == "normal" and counts[row] >= threshold:
                state, alert_at, left, alerts = "alert", cycle, recovery, alerts + 1
        elif name == "RFM":
            assert state in ("alert", "recovery")
            if state == "alert":
                # Not before the time that the standard leaves, and soon after it.
                assert spec.timings["nABOACT"] <= cycle - alert_at <= spec.timings["nABOACT"] + spec.timings["nRC"]
                state, left = "recovery", recovery
            managements += 1
            counts[max(counts, key=lambda key: (counts[key], -key))] = 0
            left -= 1
            if left == 0:
                state, left = "delay", 4
    assert alerts > 1
    assert (result.alerts, result.refresh_managements) == (alerts, managements)


def test_management_costs_time_and_energy() -> None:
    plain, managed = (load_dram("ddr5", **extra).with_channels(1) for extra in ({}, {"rfm_threshold": 16}))
    trace = _hammer(plain, 500, 500)
    trace = Trace(trace.cycle // 200, trace.address, trace.is_write)
    off, on = (CycleMemory(spec).run(trace) for spec in (plain, managed))
    assert on.cycles > off.cycles
    assert on.energy_by_part_J["refresh"] > off.energy_by_part_J["refresh"]


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("ddr4", {"rfm_threshold": 32}, "no refresh management"),
        ("hbm2", {"prac_threshold": 32}, "no refresh management"),
        ("ddr5", {"rfm_threshold": 0}, "between 1 and"),
        ("ddr5", {"prac_threshold": 32, "prac_recovery": 0}, "1 to 16 refresh managements"),
    ],
)
def test_what_cannot_be_managed_is_refused(name: str, settings: dict[str, int], words: str) -> None:
    with pytest.raises(TierformError, match=words):
        CycleMemory(load_dram(name, **settings))
