"""Do links between chiplets cost what their drivers, lengths and bumps say, and are published links met?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tierform.chip.description import load_chip
from tierform.chip.laws import laws
from tierform.errors import TierformError
from tierform.network import AnalyticNetwork
from tierform.network.topology import INTERPOSER
from tierform.simulation.package_network import network_of
from tierform.validation import interposer_links

CHIP = load_chip("atleus-2.5d")
TABLE = Path(interposer_links.__file__).parent / "tables" / "laws_interposer.csv"


def network(**driver: object) -> AnalyticNetwork:
    found = network_of(CHIP.vary({"network.interposer.driver": driver}))
    assert found is not None
    return found[0]


def over(made: AnalyticNetwork) -> np.ndarray:
    return made.topology.link_kind == INTERPOSER


def test_does_a_bit_cost_what_drivers_and_wire_take() -> None:
    # 0.25 pJ/bit over 2 mm, of which 2 * 0.04 are the wire's: 0.17 + 0.04 * mm within 2 mm, 0.121 pJ/(bit mm) on dies.
    made = network()
    mm = made.topology.link_length_m[over(made)] * 1e3
    pj = made.link_J_per_B[over(made)] / 8 * 1e12
    assert pj == pytest.approx(0.17 + 0.04 * np.minimum(mm, 2) + 0.121 * np.maximum(mm - 2, 0))
    # At twice the knee drivers take 2^0.372 = 1.294 of it: 0.22 pJ/bit, 0.3 with the wire.
    fast = network(rate="32 Gb/s")
    assert fast.energy.interposer_J_per_bit == pytest.approx(0.22e-12, rel=2e-3)
    assert network(rate="8 Gb/s").energy.interposer_J_per_bit == pytest.approx(0.17e-12)
    # Where no driver is named everything is as the library gives it.
    plain = network_of(CHIP)
    assert plain is not None and plain[0].energy.interposer_J_per_bit == pytest.approx(0.25e-12)
    assert plain[0].energy.interposer_area_m2_per_bit == 0


def test_do_bumps_take_area_by_rate_and_pitch() -> None:
    # 1 GHz over 16 Gb/s is a sixteenth of a wire for each bit; 1.46 bumps of 45 um at both ends: 2 * 1.46 / 16 * 2025
    # = 369.6 um2 a bit; atleus-2.5d has 4 x 4 links of 128 bit, each way.
    made = network()
    assert made.energy.interposer_area_m2_per_bit == pytest.approx(369.6e-12, rel=1e-3)
    none = network_of(CHIP)
    assert none is not None
    assert over(made).sum() == 32
    assert made.area_m2 - none[0].area_m2 == pytest.approx(32 * 128 * 369.6e-12, rel=1e-3)
    assert network(pitch="90 um").energy.interposer_area_m2_per_bit == pytest.approx(4 * 369.6e-12, rel=1e-3)
    assert network(rate="32 Gb/s").energy.interposer_area_m2_per_bit == pytest.approx(369.6e-12 / 2, rel=1e-3)


@pytest.mark.parametrize(("mm", "cycles"), [(1.0, 3), (2.0, 3), (3.6, 3), (3.7, 4)])
def test_do_long_links_take_more_cycles(mm: float, cycles: int) -> None:
    # 2 ns and 6.6 ps/mm up to 2 mm: 2.0132 ns; 0.6 ns/mm beyond: 2.9732 ns for 3.6 mm, 3.0332 for 3.7.
    seconds = laws().interposer.latency_s(np.array([mm * 1e-3]), 2e-3)[0]
    assert np.ceil(seconds * 1e9) == cycles


def test_are_cycles_of_a_driver_used_unless_the_file_gives_them() -> None:
    given = network()
    assert set(given.topology.link_latency_cycles[over(given)]) == {4}  # as the file says
    changes = {"network.interposer.driver": {}, "network.interposer.latency_cycles": None}
    for more in ({}, {"network.links": {"kind": "torus"}}):  # links of one grid, and a graph
        found = network_of(CHIP.vary({**changes, **more}))
        assert found is not None
        made = found[0]
        length = made.topology.link_length_m[over(made)]
        expected = np.ceil(1e9 * (2e-9 + 6.6e-9 * np.minimum(length, 2e-3) + 0.6e-6 * np.maximum(length - 2e-3, 0)))
        assert made.topology.link_latency_cycles[over(made)].tolist() == expected.tolist()
    faster = network_of(CHIP.vary({**changes, "network.clock": "2 GHz"}))
    assert faster is not None
    assert (faster[0].topology.link_latency_cycles[over(faster[0])] > expected[0]).all()


def test_is_it_said_what_was_taken_and_where_the_sources_end() -> None:
    assert network().energy.assumptions[-1].value.endswith("370 um2 a bit of width")
    told = network(rate="64 Gb/s", pitch="100 um").energy.assumptions[-1]
    assert told.value.endswith(", outside 4 to 32 Gb/s and 25 to 55 um of the sources")
    assert told.source == "dickson-2012" and told.kind == "fitted"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network.interposer.driver.rate": "0 Gb/s"}, "greater than 0"),
        ({"network.interposer.driver.rate": "16 GHz"}, "rate"),
        ({"network.interposer.driver.speed": "16 Gb/s"}, "speed"),
    ],
)
def test_are_wrong_drivers_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(TierformError, match=message):
        CHIP.vary(changes)


def test_have_vertical_links_no_drivers() -> None:
    with pytest.raises(TierformError, match="only interposer links have drivers"):
        load_chip("atleus").vary({"network.vertical.driver.rate": "16 Gb/s"})


def test_are_published_links_met_in_the_median() -> None:
    points = list(interposer_links.interposer_links(TABLE))
    silicon = [p for p in points if p.evidence == "measured" and p.quantity == "energy of a bit between dies"]
    assert len(silicon) == 6 and not any(p.fitted for p in silicon)
    assert np.median([abs(p.relative_error) for p in silicon]) <= 0.20
    assert max(abs(p.relative_error) for p in silicon) <= 0.70
    standard = [p for p in points if p.source == "ucie-2022"]
    assert len(standard) == 6 and all(abs(p.relative_error) <= 0.11 for p in standard)
