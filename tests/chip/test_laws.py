"""Do scaled constants follow their laws by hand, only where the file's sizes changed, and do results say so?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tierform import Inference, TierformError, library, load_chip, simulate
from tierform.chip.component import COMPONENTS
from tierform.chip.description import Chip, load_component
from tierform.chip.laws import Scalable, laws
from tierform.chip.process import load_process, logic, published_factor
from tierform.chip.sample_operators import product
from tierform.simulation.package_network import network_of
from tierform.validation.laws import ledger, silicon

ATLEUS, A100 = load_chip("atleus"), load_chip("a100")


def part(base: str, **changes: object) -> Any:
    return load_component("part", 1, base, {key.replace("__", "."): value for key, value in changes.items()})


def remarks(chip: Chip) -> str:
    return "\n".join(chip.notes)


@pytest.mark.parametrize("name", library.names("components"))
def test_does_a_component_that_nobody_changes_keep_its_constants(name: str) -> None:
    plain = load_component("part", 4, name)
    described = load_component("part", 4, name, {"description": "the same"})
    assert described.parameters.model_copy(update={"description": ""}) == plain.parameters.model_copy(  # type: ignore[attr-defined]
        update={"description": ""}
    )


def test_are_the_published_converters_met_within_a_tenth() -> None:
    found = ledger()
    assert found.passed
    converters = [point for point in found.points if point.source == "accelergy-isaac"]
    assert len(converters) == 14 and max(abs(point.relative_error) for point in converters) < 0.005


def test_is_the_sram_law_within_15_per_cent_of_cacti_in_the_median() -> None:
    points = [point for point in ledger().points if point.source == "cacti-7"]
    for quantity in ("energy of an access", "area of an SRAM"):
        for fitted in (True, False):
            errors = [abs(p.relative_error) for p in points if p.quantity == quantity and p.fitted == fitted]
            assert len(errors) >= 20
            assert np.median(errors) <= 0.07  # the bar is 0.15


def test_do_fewer_adc_bits_follow_the_law_by_hand() -> None:
    # From 8 to 6 bits: (0.19552 * 6 + 0.00041351 * 64) / (0.19552 * 8 + 0.00041351 * 256) = 1.19958 / 1.67002 = 0.7183;
    # area (81.729 * 6 + 2.1335 * 64) / (81.729 * 8 + 2.1335 * 256) = 626.92 / 1200.01 = 0.52243.
    tile = part("isaac-tile-32nm", adc_bits=6).parameters
    assert tile.parts["adc"].energy.value == pytest.approx(1.5625e-12 * 0.71830, rel=1e-4)
    assert tile.parts["adc"].area.value == pytest.approx(0.0012e-6 * 0.52243, rel=1e-4)
    # Adders are as wide as the converter: 6 / 8.  The rest of the tile stays.
    assert tile.parts["shift-add"].energy.value == pytest.approx(19.53e-15 * 0.75)
    assert tile.parts["dac"] == part("isaac-tile-32nm").parameters.parts["dac"]
    # Static power goes with the tile's silicon: 0.3720 mm2 less 96 * 0.0012 * 0.47757 and 12 * 4 * 60 um2 / 4.
    plain = part("isaac-tile-32nm").parameters
    silicon = 0.372105e-6
    lost = 96 * 0.0012e-6 * (1 - 0.52243) + 12 * 4 * 60e-12 * 0.25
    assert tile.leakage.value / plain.leakage.value == pytest.approx(1 - lost / silicon, rel=2e-3)


def test_do_rows_and_columns_grow_the_array_and_what_stands_at_its_edges() -> None:
    tile, plain = part("isaac-tile-32nm", rows=256, columns=512).parameters, part("isaac-tile-32nm").parameters
    assert tile.parts["crossbar"].area.value == pytest.approx(8 * plain.parts["crossbar"].area.value)
    assert tile.parts["crossbar"].energy.value == pytest.approx(8 * plain.parts["crossbar"].energy.value)
    assert tile.parts["dac"].count == 256 and tile.parts["sample-hold"].count == 512
    assert tile.parts["adc"].count == 4  # each converts 128 columns
    held = 0.84 * 2 + 0.16 * 4
    assert tile.parts["registers"].energy.value == pytest.approx(held * plain.parts["registers"].energy.value)


def test_does_a_wire_that_settles_slowly_lengthen_the_read() -> None:
    # 100,000 cells: ln 2 * 9 * 0.5 * 1.33 ohm * 1.28e-17 F * 1e10 = 531 ns.
    tile = part("isaac-tile-32nm", rows=100_000, columns_per_adc=1)
    assert tile.parameters.cycle.value == pytest.approx(531e-9, rel=2e-3)
    assert part("isaac-tile-32nm", rows=1024).parameters.cycle.value == pytest.approx(100e-9)


def test_is_a_value_that_is_given_with_its_size_not_scaled() -> None:
    tile = part("isaac-tile-32nm", adc_bits=6, parts__adc__energy="0.4 pJ").parameters
    assert tile.parts["adc"].energy.value == pytest.approx(0.4e-12)
    assert tile.parts["adc"].area.value < 0.0012e-6
    nested = load_component("part", 1, "isaac-tile-32nm", {"adc_bits": 6, "parts": {"adc": {"energy": "0.4 pJ"}}})
    assert nested.parameters == tile  # type: ignore[attr-defined]


def test_are_laws_and_their_ends_told_in_the_result() -> None:
    made = simulate("bert-base", Inference(batch=1, sequence=64), ATLEUS.vary({"components.reram.adc_bits": 6}))
    notes = "\n".join(made.notes)
    assert "adc given at 8 bits: energy x 0.718, area x 0.522" in notes
    assert "needs 8: sums are clipped or rounded, which costs accuracy" in notes
    assert "was fitted at 4 to 10 bits" in remarks(ATLEUS.vary({"components.reram.adc_bits": 12}))
    assert "where the law ends" in remarks(ATLEUS.vary({"components.systolic.clock": "3 GHz"}))
    assert "outside the fitted" in remarks(ATLEUS.vary({"components.systolic.sram_capacity": "64 MiB"}))
    assert "given at" not in remarks(ATLEUS)


def test_does_a_systolic_array_follow_its_elements_and_sram() -> None:
    # At 45 nm an element is 3000 + 300 um2, a byte 5.5 um2: 4096 * 3300 + 524288 * 5.5 = 13.517 + 2.884 = 16.40 mm2.
    # The process weighs int8 elements: 419 + 300 = 719 um2: 2.945 + 2.884 = 5.829; twice the rows: 8.774.
    plain, wide = part("systolic-128x32-10nm"), part("systolic-128x32-10nm", rows=256)
    assert wide.area_m2 / plain.area_m2 == pytest.approx(8.774 / 5.829, rel=1e-3)
    assert wide.leakage_W(300.0) / plain.leakage_W(300.0) == pytest.approx(8.774 / 5.829, rel=1e-3)
    # SRAM from 512 KiB to 128 KiB: (0.03274 + 11.314 * (0.09322 + 0.48323 / 32)) / (0.03274 + 22.627 * 0.10832).
    small = part("systolic-128x32-10nm", sram_capacity="128 KiB").parameters
    assert small.sram_energy.value == pytest.approx(0.21e-12 * 1.25828 / 2.48372, rel=1e-3)
    # int8 with 16 instead of 32 bits: (0.2 + 16 * 0.003125) / (0.2 + 32 * 0.003125) = 0.25 / 0.3.
    narrow = part("systolic-128x32-10nm", accumulator_bits=16).parameters
    assert narrow.mac_energy["int8"].value == pytest.approx(0.038e-12 * 0.25 / 0.3)
    assert narrow.mac_energy["bf16"].value == 0.25e-12
    # From 10 to 7 nm areas go with 0.059 / 0.10.
    assert part("systolic-128x32-10nm", node="7nm").area_m2 / plain.area_m2 == pytest.approx(0.59)
    with pytest.raises(TierformError, match="7nm"):
        part("systolic-128x32-10nm", node="7um")


def test_does_a_clock_take_its_supply() -> None:
    law = laws().voltage
    # At 1.1 times 0.75 V: (0.825 - 0.3)^1.3 / 0.825 over 0.45^1.3 / 0.75 = 0.52452 / 0.47217 = 1.1109.
    assert law.clock(1.1) == pytest.approx(1.1109, rel=1e-3)
    assert law.supply_for(law.clock(1.1)) == pytest.approx(1.1)
    fast = part("vector-128-10nm", clock={"value": f"{law.clock(1.1)!r} GHz", "kind": "assumed", "note": "t"})
    plain = part("vector-128-10nm")
    assert fast.parameters.operation_energy.value / plain.parameters.operation_energy.value == pytest.approx(1.21)
    assert law.supply_for(9.0) == 1.25 and law.supply_for(0.1) == 0.75 and law.supply_for(1.0) == 1.0


@pytest.mark.parametrize("more", [1.01, 1.3, 2.0, 4.0])
@pytest.mark.parametrize("key", ["multiprocessors", "clock"])
def test_is_a_gpu_with_more_never_slower(key: str, more: float) -> None:
    plain = part("a100-gpu")
    value = plain.parameters.multiprocessors.value if key == "multiprocessors" else plain.parameters.clock.value
    unit = 1 if key == "multiprocessors" else "Hz"
    given = value * more if unit == 1 else f"{value * more!r} Hz"
    big, small = (part("a100-gpu", **{key: g}) for g in (given, value / more if unit == 1 else f"{value / more!r} Hz"))
    for m, n, k in ((1, 4096, 4096), (17, 300, 5000), (128, 4096, 4096), (300, 11008, 4096), (4096, 4096, 4096)):
        operator = product(m, n, k, precision="bf16")
        times = [one.cost(operator).latency_s for one in (big, plain, small)]
        assert times == sorted(times)


def test_are_whole_runs_of_twice_a_gpu_never_slower() -> None:
    task = Inference(batch=3, sequence=200, decode=3)
    name = next(iter(A100.components))
    plain = simulate("gpt2", task, A100)
    twice = simulate("gpt2", task, A100.vary({f"components.{name}.multiprocessors": 216}))
    assert twice.latency_s < plain.latency_s


def test_do_routers_follow_their_width_ports_and_buffers() -> None:
    plain = network_of(ATLEUS)
    wide = network_of(ATLEUS.vary({"network.width": "512 bit"}))
    assert plain is not None and wide is not None
    # Seven ports of 256 bits, 32 flits: 0.02061 + 8.231e-4 * 32 + 1.249e-4 * 1792 = 0.27077 pJ a bit; of 512 bits
    # 0.02061 + 0.02634 + 0.44764 = 0.49459: 1.8266.  Area 1792 * (1.173e-5 + 3.8272e-5 + 2.23283e-4) = 0.48973 mm2 and
    # 3584 * (1.173e-5 + 3.8272e-5 + 4.46566e-4) = 1.77970: 3.6340.
    assert wide[0].energy.router_J_per_bit / plain[0].energy.router_J_per_bit == pytest.approx(1.8266, rel=1e-3)
    assert wide[0].energy.router_area_m2 / plain[0].energy.router_area_m2 == pytest.approx(3.6340, rel=1e-3)
    # Static power: 1.064e-4 * 1792 * 32 + 2.068e-5 * 1792^2 + 7.812e-3 * 49 = 6.1014 + 66.409 + 0.3828 = 72.893 mW;
    # with twice the buffers 6.1014 more.
    deep = network_of(ATLEUS.vary({"network.buffer_flits": 16}))
    assert deep is not None and deep[0].router.buffer_flits == 16
    assert deep[0].energy.router_leakage_W / plain[0].energy.router_leakage_W == pytest.approx(1.08370, rel=1e-3)
    few = network_of(ATLEUS.vary({"network.virtual_channels": 2}))
    assert few is not None and few[0].energy.router_area_m2 < plain[0].energy.router_area_m2
    back = ATLEUS.vary({"network.width": "512 bit"}).vary({"network.width": "128 bit"})
    assert back.network is not None and back.network.router_width is not None
    assert back.network.router_width.value == 256
    # Express links give some routers of the stack more than seven ports.
    many = network_of(ATLEUS.vary({"network.links": {"kind": "express", "span": 2}}))
    assert many is not None and many[0].energy.router_area_m2 > plain[0].energy.router_area_m2
    wider = network_of(ATLEUS.vary({"network.width": "4096 bit"}))
    assert wider is not None and "outside the fitted 32 to 512 bits" in wider[0].energy.assumptions[-1].value


def test_does_a_via_follow_its_geometry() -> None:
    # 2 pi * 8.854e-12 * 3.9 * 30e-6 / ln(1.35 / 1.15) = 40.6 fF, a quarter of it at 1 V is what the library has.
    law = laws().tsv
    assert law.capacitance_F(2.3e-6, 30e-6, 0.2e-6) == pytest.approx(40.6e-15, rel=2e-3)
    assert law.capacitance_F(0.7e-6, 5e-6, 0.1e-6) == pytest.approx(4.3e-15, rel=5e-3)
    assert law.capacitance_F(5e-6, 25e-6, 0.2e-6) == pytest.approx(70.5e-15, rel=2e-3)
    plain = network_of(ATLEUS)
    long = network_of(ATLEUS.vary({"network.vertical.via": {"length": "60 um", "pitch": "30 um"}}))
    assert plain is not None and long is not None
    assert plain[0].energy.vertical_J_per_bit == pytest.approx(40.6e-15 / 4, rel=0.01)
    assert long[0].energy.vertical_J_per_bit == pytest.approx(2 * plain[0].energy.vertical_J_per_bit)
    assert long[0].energy.vertical_area_m2_per_bit == pytest.approx(4 * plain[0].energy.vertical_area_m2_per_bit)
    with pytest.raises(TierformError, match=r"touch.*\n.*20.4 um"):
        ATLEUS.vary({"network.vertical.via.diameter": "20 um"})
    with pytest.raises(TierformError, match="only vertical links have vias"):
        load_chip("atleus-2.5d").vary({"network.interposer.via.length": "20 um"})


def test_does_the_power_of_a_board_follow_its_cores_and_memory() -> None:
    # A100: 108 * 1.41 = 152.28 and 2.039 TB/s: limit 0.8607 * 152.28 + 108.6 * 2.039 = 352.5; of twice the
    # multiprocessors 483.6: 1.3718.  Idle 0.0406 * 152.28 + 17.62 * 2.039 = 42.11 and 48.29: 1.1468.  At work 132.77
    # and 145.72: 1.0975.
    plain, twice = part("a100-gpu").parameters, part("a100-gpu", multiprocessors=216).parameters
    assert twice.board_power.value / plain.board_power.value == pytest.approx(1.3718, rel=1e-3)
    assert twice.idle_power.value / plain.idle_power.value == pytest.approx(1.1468, rel=1e-3)
    assert twice.active_power.value / plain.active_power.value == pytest.approx(1.0975, rel=1e-3)
    fast = part("a100-gpu", memory_bandwidth="4078 GB/s").parameters
    assert fast.board_power.value / plain.board_power.value == pytest.approx(1 + 108.6 * 2.039 / 352.5, rel=1e-3)
    assert part("a100-gpu", multiprocessors=216, board_power="400 W").parameters.board_power.value == 400
    for name in library.names("components"):
        if name.endswith("-gpu"):
            given = part(name).parameters
            more = load_component("part", 1, name, {"multiprocessors": 2 * given.multiprocessors.value})
            assert more.headroom_W > part(name).headroom_W  # type: ignore[attr-defined]


def test_are_published_chips_of_other_nodes_met_in_the_median() -> None:
    # Digital chips and SRAM macros from 65 to 4 nm: medians of every second one, fitted, and of the others.
    chips = silicon()
    assert len({chip.number for chip in chips}) >= 30 and {chip.node_nm for chip in chips} >= {65, 28, 16, 7, 5}
    points = ledger().points
    for fitted, bar, published in ((True, 0.30, 0.40), (False, 0.45, 0.50)):
        ours = [p for p in points if p.quantity == "energy of a bit operation at a node" and p.fitted == fitted]
        theirs = [p for p in points if p.quantity.startswith("the same") and p.fitted == fitted]
        assert len(ours) == len(theirs) >= 18
        assert np.median([abs(p.relative_error) for p in ours]) <= bar
        assert np.median([abs(p.relative_error) for p in theirs]) >= published  # the law that is not used


def test_is_the_exponent_of_the_node_the_least_squares_of_the_fitted_chips() -> None:
    chips = [chip for chip in silicon() if chip.fitted]
    kinds = sorted({chip.kind for chip in chips})
    shape = np.array([[*(float(c.kind == k) for k in kinds), np.log(c.node_nm / 45)] for c in chips])
    levels = np.log([c.energy_fJ for c in chips]) - 2 * np.log([c.supply_V for c in chips])
    assert np.linalg.lstsq(shape, levels, rcond=None)[0][-1] == pytest.approx(logic().energy_exponent.value, abs=1e-3)
    # From 45 to 7 nm: (7 / 45)^0.536 * (0.7 / 0.9)^2 = 0.36893 * 0.60494 = 0.22318.
    assert load_process("7nm").energy_factor == pytest.approx(0.2232, rel=1e-3)
    # As published, at 7 nm and 0.7 V: 0.1776 * 0.49 - 0.09097 * 0.7 + 0.02447 = 0.047815 over 0.8443.
    assert published_factor(logic(), 7, 0.7) == pytest.approx(0.05663, rel=1e-3)


def test_are_routers_within_15_per_cent_of_cacti_in_the_median_and_near_puma() -> None:
    points = ledger().points
    for quantity in ("energy of a flit", "static power of a router", "area of a router"):
        for fitted in (True, False):
            errors = [abs(p.relative_error) for p in points if p.quantity == quantity and p.fitted == fitted]
            assert len(errors) == 30 and np.median(errors) <= 0.13
    puma = {p.quantity: p.relative_error for p in points if p.source == "puma-2019"}
    assert abs(puma["area of PUMA's router"]) < 0.02 and abs(puma["static power of PUMA's router"]) < 0.20


def test_is_an_interposer_link_beyond_its_reach_a_wire() -> None:
    made = network_of(load_chip("atleus-2.5d"))
    assert made is not None
    network = made[0]
    over = network.topology.link_kind == 2
    length = network.topology.link_length_m[over]
    assert length.max() > 2e-3
    by_hand = 8 * (0.25e-12 + 0.121e-9 * np.maximum(length - 2e-3, 0))
    assert network.link_J_per_B[over] == pytest.approx(by_hand)


def test_do_the_parameters_of_a_varied_chip_come_back_from_its_file(tmp_path: Any) -> None:
    made = ATLEUS.vary({"components.reram.rows": 64, "components.systolic.clock": "1.2 GHz", "network.width": "64 bit"})
    made.write(tmp_path / "made.yaml")
    again = load_chip(tmp_path / "made.yaml")
    assert again == made and again.fingerprint == made.fingerprint
    assert again.vary({"components.reram.rows": 128}).components["reram"] == ATLEUS.components["reram"]


def test_do_two_files_with_other_givens_have_other_fingerprints() -> None:
    six = ATLEUS.vary({"components.reram.adc_bits": 6})
    energy = ATLEUS.components["reram"].parameters.parts["adc"].energy.value  # type: ignore[attr-defined]
    told = ATLEUS.vary({"components.reram.adc_bits": 6, "components.reram.parts.adc.energy": f"{energy!r} J"})
    assert six.fingerprint != told.fingerprint != ATLEUS.fingerprint


@pytest.mark.parametrize("name", ["crossbar", "systolic", "vector", "gpu"])
def test_does_every_class_with_laws_keep_the_contract(name: str) -> None:
    kind = COMPONENTS.get(name)
    assert isinstance(kind, Scalable)
    base = {"crossbar": "isaac-tile-32nm", "systolic": "systolic-128x32-10nm", "vector": "vector-128-10nm"}
    given = load_component("part", 1, base.get(name, "a100-gpu")).parameters  # type: ignore[attr-defined]
    found = kind.scaled(given, given, frozenset())
    assert found.parameters is given and found.remarks == ()


def test_does_show_tell_the_values_that_hold(tmp_path: Any) -> None:
    from tierform.cli.show import _chip

    made = ATLEUS.vary({"components.reram.adc_bits": 6, "components.reram.rows": 256})
    made.write(tmp_path / "made.yaml")
    parts: Any = _chip(str(tmp_path / "made.yaml"))["parts"]
    cells = parts["components.reram"]["parts"]
    assert (
        cells["adc"]["energy"]["value"].startswith("1.122 pJ") and "given at 8 bits" in cells["adc"]["energy"]["note"]
    )
    assert cells["dac"]["count"] == 256
    assert parts["components.vector"] == _chip("atleus")["parts"]["components.vector"]  # type: ignore[index]


@pytest.mark.parametrize("factor", [1.25, 1.5, 3.0])
def test_does_a_vector_unit_grow_with_its_lanes_and_its_buffer(factor: float) -> None:
    """More of either is a larger unit, though not by as much as the lanes: the other part stays."""
    given = load_component("vector", 1, "vector-128-10nm", {})
    lanes = load_component("vector", 1, "vector-128-10nm", {"lanes": int(128 * factor)})
    both = load_component(
        "vector",
        1,
        "vector-128-10nm",
        {"lanes": int(128 * factor), "buffer_capacity": f"{given.parameters.buffer_capacity.value * factor:.0f} B"},
    )
    assert 1 < lanes.area_m2 / given.area_m2 < factor
    assert both.area_m2 / given.area_m2 == pytest.approx(factor, rel=1e-6)
