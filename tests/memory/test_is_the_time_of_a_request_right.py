"""Unloaded latencies in closed form, agreement of the analytic model with the cycle engine, and conservation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.memory import MemoryDevice, load_memory
from tierform.memory.cycle import CONTROLLER_CYCLES, CycleMemory, Trace
from tierform.memory.standard import dram_names, load_dram
from tierform.memory.traffic import requests

DEFAULT_GRADES = ["ddr4-2400", "ddr5-4800", "lpddr5-6400", "gddr6-16", "hbm2-2000", "hbm2e-3200", "hbm3-6400"]
# The analytic model was fitted on the grades above; these came later.
OTHER_GRADES = ["ddr3-1600", "lpddr4-3200", "lpddr5x-8533", "lpddr6-10667", "hbm4-8000"]


@pytest.mark.parametrize("name", dram_names())
def test_unloaded_read_latency_of_each_row_state(name: str) -> None:
    spec = load_dram(name, refresh="none").with_channels(1)
    t, mapping = spec.timings, spec.address_map()
    column, row = spec.burst_bytes << mapping.position["co"], spec.burst_bytes << mapping.position["ro"]
    trace = Trace(np.array([0, 5000, 10000]), np.array([0, column, row]), np.zeros(3, np.bool_))
    latency = CycleMemory(spec).run(trace).latency_cycles - CONTROLLER_CYCLES
    hit = t["nCL"] + t["nBL"]
    assert latency.tolist() == [t["nRCDRD"] + hit, hit, t["nRP"] + t["nRCDRD"] + hit]


@pytest.mark.parametrize("name", DEFAULT_GRADES)
@pytest.mark.parametrize("pattern", ["stream", "random"])
@pytest.mark.parametrize("read_fraction", [1.0, 2 / 3, 0.5, 0.0])
def test_analytic_bandwidth_is_within_5_percent_of_the_cycle_engine(
    name: str, pattern: str, read_fraction: float
) -> None:
    spec = load_dram(name).with_channels(1)
    result = CycleMemory(spec).run(requests(spec, pattern, 40_000, read_fraction))
    analytic = MemoryDevice(spec).effective_bandwidth_B_per_s(pattern, read_fraction)
    assert analytic == pytest.approx(result.bandwidth_B_per_s, rel=0.05)


@pytest.mark.parametrize("name", OTHER_GRADES)
@pytest.mark.parametrize("pattern", ["stream", "random"])
@pytest.mark.parametrize("read_fraction", [1.0, 2 / 3, 0.5, 0.0])
def test_analytic_bandwidth_of_later_standards_is_within_15_percent_and_of_reads_within_5(
    name: str, pattern: str, read_fraction: float
) -> None:
    spec = load_dram(name).with_channels(1)
    result = CycleMemory(spec).run(requests(spec, pattern, 40_000, read_fraction))
    analytic = MemoryDevice(spec).effective_bandwidth_B_per_s(pattern, read_fraction)
    assert analytic == pytest.approx(result.bandwidth_B_per_s, rel=0.05 if read_fraction == 1 else 0.15)


@pytest.mark.parametrize("name", DEFAULT_GRADES)
@pytest.mark.parametrize("bursts", [2, 8, 16, 256])
def test_analytic_strides_are_within_5_percent_of_the_cycle_engine(name: str, bursts: int) -> None:
    spec = load_dram(name).with_channels(1)
    stride = bursts * spec.burst_bytes
    result = CycleMemory(spec).run(requests(spec, "strided", 20_000, stride_B=stride))
    analytic = MemoryDevice(spec).effective_bandwidth_B_per_s("strided", stride_B=stride)
    assert analytic == pytest.approx(result.bandwidth_B_per_s, rel=0.05)


@pytest.mark.parametrize("name", DEFAULT_GRADES)
@pytest.mark.parametrize("pattern", ["stream", "random"])
def test_analytic_energy_is_within_5_percent_of_the_cycle_engine(name: str, pattern: str) -> None:
    spec = load_dram(name).with_channels(1)
    result = CycleMemory(spec).run(requests(spec, pattern, 40_000))
    cost = MemoryDevice(spec).transfer(40_000 * spec.burst_bytes, pattern)
    assert cost.energy_J == pytest.approx(result.energy_J, rel=0.05)
    assert cost.dynamic_energy_J < cost.energy_J


@pytest.mark.parametrize("name", DEFAULT_GRADES + OTHER_GRADES)
def test_a_read_stream_reaches_90_percent_of_the_peak(name: str) -> None:
    spec = load_dram(name).with_channels(1)
    result = CycleMemory(spec).run(requests(spec, "stream", 40_000))
    t = spec.timings
    # LPDDR6 refreshes all banks for 9.7 % of the time, which nothing can use.
    lost = t["nRFC"] / t["nREFI"] if name == "lpddr6-10667" else 0.0
    assert (0.90 - lost) * spec.channel_peak_B_per_s <= result.bandwidth_B_per_s <= spec.channel_peak_B_per_s


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4000), st.booleans()), min_size=1, max_size=120))
def test_every_request_is_answered_and_time_is_conserved(entries: list[tuple[int, int, bool]]) -> None:
    spec = replace(load_dram("hbm2"), channels=4)
    cycle = np.cumsum([gap for gap, _, _ in entries])
    address = np.array([burst * 32 * 97 for _, burst, _ in entries])
    trace = Trace(cycle.astype(np.int64), address, np.array([write for _, _, write in entries]))
    result = CycleMemory(spec).run(trace)
    assert result.reads + result.writes == len(entries)
    assert sum(result.state_cycles.values()) == result.cycles * spec.channels * spec.ranks
    assert (result.latency_cycles >= 1).all()
    assert sum(result.energy_by_part_J.values()) == result.energy_J


def test_idle_ranks_sleep_and_sleep_saves_energy() -> None:
    sparse = Trace(np.arange(50, dtype=np.int64) * 20_000, np.arange(50, dtype=np.int64) * 64, np.zeros(50, np.bool_))
    awake = CycleMemory(load_dram("ddr4")).run(sparse)
    down = CycleMemory(load_dram("ddr4", power_down_after=50)).run(sparse)
    asleep = CycleMemory(load_dram("ddr4", self_refresh_after=500)).run(sparse)
    assert down.power_downs >= 49
    assert asleep.self_refreshes >= 49
    assert asleep.refreshes < awake.refreshes
    assert asleep.energy_J < awake.energy_J
    assert down.energy_J < awake.energy_J
    assert awake.average_read_latency_cycles < asleep.average_read_latency_cycles


def test_transfers_scale_with_size_channels_and_stacks() -> None:
    one, four = load_memory("hbm2"), load_memory("hbm2", stacks=4)
    assert four.capacity_B == 4 * one.capacity_B
    assert four.transfer(2**30).busy_s == pytest.approx(one.transfer(2**30).busy_s / 4)
    assert four.transfer(2**30, stacks=1).busy_s == pytest.approx(one.transfer(2**30).busy_s)
    assert one.transfer(2**30, channels=8).busy_s == pytest.approx(2 * one.transfer(2**30).busy_s)
    assert one.transfer(2**30).dynamic_energy_J == pytest.approx(four.transfer(2**30).dynamic_energy_J)
    assert one.transfer(0).duration_s == 0
    assert one.transfer(2**20).duration_s == pytest.approx(one.transfer(2**20).latency_s + one.transfer(2**20).busy_s)
    assert one.background_energy_J(2.0, 0.5) == pytest.approx(one.background_W * 1.5 + one.active_background_W * 0.5)
