"""The library's memories, CXL expanders, and placing a footprint over tiers."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierform import library
from tierform.errors import TierformError
from tierform.memory import load_memory, place_footprint
from tierform.memory.formula import FormulaError, evaluate
from tierform.memory.standard import SHELF, dram_names

PEAKS_GB_PER_S = {
    "ddr4-2400": 19.2,
    "ddr5-4800": 38.4,
    "lpddr5-6400": 51.2,
    "gddr6-16": 64.0,
    "hbm2-2000": 256.0,
    "hbm2e-3600": 460.8,
    "hbm3-6400": 819.2,
}


@pytest.mark.parametrize(("name", "peak"), PEAKS_GB_PER_S.items())
def test_the_peak_is_the_data_sheets(name: str, peak: float) -> None:
    assert load_memory(name).peak_bandwidth_B_per_s == pytest.approx(peak * 1e9, rel=1e-6)


@pytest.mark.parametrize("name", [*dram_names(), *library.names(SHELF)])
def test_every_memory_loads_and_names_its_sources(name: str) -> None:
    memory = load_memory(name)
    assert memory.capacity_B >= 2**30
    assert memory.background_W > 0
    for source in memory.sources:
        assert library.citation(source).text
    for entry in memory.assumptions:
        assert entry.source or entry.note


def test_energy_per_bit_of_ddr5_follows_from_its_currents() -> None:
    # 4 devices x 1.1 V x (145 - 55) mA x 8 cycles of 1/2.4 ns for 512 bits.
    cost = load_memory("ddr5-4800").transfer(2**20)
    expected = 4 * 1.1 * 0.090 * 8 / 2.4e9 / 512
    assert cost.energy_by_part_J["read"] / (2**20 * 8) == pytest.approx(expected)


def test_overrides_change_what_they_name_and_unknown_ones_are_refused() -> None:
    assert load_memory("ddr4-2400", nCL=20).read_latency_s > load_memory("ddr4-2400").read_latency_s
    assert load_memory("hbm2", IDD4R="390 mA").transfer(1e6).energy_J > load_memory("hbm2").transfer(1e6).energy_J
    with pytest.raises(TierformError, match="did you mean 'nRAS'"):
        load_memory("ddr4-2400", nRASS=20)
    with pytest.raises(TierformError, match="did you mean '4800'"):
        load_memory("ddr5-4801")
    with pytest.raises(TierformError, match=r"must be at least nRAS \(39\) \+ nRP \(17\)"):
        load_memory("ddr4-2400", nRC=50)
    with pytest.raises(TierformError, match="pattern"):
        load_memory("hbm2").transfer(1e6, "zigzag")


def test_formulas_run_no_code() -> None:
    assert evaluate("max(4, ns(5)) + 2 * nBL", {"nBL": 4}.__getitem__, 0.5) == 18
    for text in ("__import__('os')", "nBL.real", "[1][0]", "nBL if 1 else 2", "2 ** 9", "(", "ns()"):
        with pytest.raises(FormulaError):
            evaluate(text, {"nBL": 4}.__getitem__, 0.5)


def test_fewer_planes_cost_in_proportion() -> None:
    device = load_memory("cxl-ddr5-x8")
    full, half = device.read_planes(10**7, 16, 16), device.read_planes(10**7, 8, 16)
    assert half.busy_s == pytest.approx(full.busy_s / 2, rel=0.01)
    assert 0.49 < half.energy_J / full.energy_J < 0.52
    # Adjacent planes share a row: opening it costs the same for one plane as for all.
    major = device.read_planes(10**7, 8, 16, "plane-major")
    assert half.energy_by_part_J["activate"] == pytest.approx(full.energy_by_part_J["activate"], rel=1e-6)
    assert major.energy_by_part_J["activate"] == pytest.approx(full.energy_by_part_J["activate"] / 2, rel=1e-6)
    packed = device.read_planes(10**7, 16, 16, compressed_B=0.75 * full.moved_B)
    assert packed.energy_by_part_J["read"] == pytest.approx(0.75 * full.energy_by_part_J["read"], rel=1e-3)
    assert packed.latency_s > full.latency_s
    with pytest.raises(TierformError, match="between 0 and 16"):
        device.read_planes(10**7, 17, 16)


def test_a_link_moves_what_its_framing_leaves() -> None:
    device = load_memory("cxl-ddr5-x8")
    assert device.link.raw_B_per_s == 32e9
    assert 0.84 < device.link.efficiency < 0.87
    reads, mixed = (device.effective_bandwidth_B_per_s("stream", fraction) for fraction in (1.0, 2 / 3))
    assert reads == pytest.approx(device.link.useful_B_per_s)
    # A published x8 expander moves up to 36 GB/s at two reads to one write; both directions carry data.
    assert reads < mixed < 36e9
    assert load_memory("cxl-ddr5-x8", lanes=4).effective_bandwidth_B_per_s() == pytest.approx(reads / 2)
    assert load_memory("cxl-ddr5-x8", latency="140 ns").read_latency_s == pytest.approx(140e-9)
    assert device.loaded_latency_s(0.9 * reads) > device.loaded_latency_s(0.1 * reads) >= device.link.latency_s
    with pytest.raises(TierformError, match="lanes"):
        load_memory("cxl-ddr5-x8", lanes=3)


@given(st.lists(st.integers(0, 5 * 2**30), max_size=6))
def test_a_footprint_is_placed_whole_and_in_order(sizes: list[int]) -> None:
    tiers = [load_memory("hbm2"), load_memory("ddr4"), load_memory("cxl-ddr5-x8")]
    footprint = {f"part {number}": size for number, size in enumerate(sizes)}
    if sum(sizes) > sum(tier.capacity_B for tier in tiers):
        with pytest.raises(TierformError, match="are missing"):
            place_footprint(footprint, tiers)
        return
    placement = place_footprint(footprint, tiers)
    for part, size in footprint.items():
        assert sum(share.size_B for share in placement.shares[part]) == size
        assert sum(placement.fractions(part).values()) == pytest.approx(1.0)
    assert sum(placement.used_B) == sum(sizes)
    assert all(used <= capacity for used, capacity in zip(placement.used_B, placement.capacity_B, strict=True))
    assert placement.spilled_B == sum(placement.spilled.values())
    assert placement.used_B[1] == 0 or placement.used_B[0] == placement.capacity_B[0]


def test_a_light_memory_imports_no_numba() -> None:
    code = (
        "import sys; from tierform.memory import load_memory, place_footprint;"
        "load_memory('hbm2').transfer(1e6, 'random');"
        "assert not {'numba', 'scipy', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_built_in_ledger_passes() -> None:
    from tierform.validation.memory import ledger

    found = ledger()
    assert found.passed, [str(point) for point in found.failures]
    assert len(found.points) > 170
