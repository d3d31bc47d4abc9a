"""Links between dies as a chip's drivers make them, beside a standard and published silicon.

Each point goes through a chip that is varied as users vary it: `atleus-2.5d` with a driver of the rate and pitch, its
network's links then as long as the published channel.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from tierform.chip.description import load_chip
from tierform.files import read_text
from tierform.network import AnalyticNetwork
from tierform.network.topology import INTERPOSER
from tierform.simulation.package_network import network_of
from tierform.validation.ledger import Evidence, Point, Tolerance

CHIP = "atleus-2.5d"
_FITTED = Tolerance(relative=0.01)


def interposer_links(path: Path) -> Iterator[Point]:
    """Energy of a bit, and bandwidth of both ways over the area of one end."""
    chip = load_chip(CHIP)
    for row in csv.DictReader(line for line in read_text(path).splitlines() if not line.startswith("#")):
        driver = {"rate": f"{row['rate_Gb_per_s']} Gb/s"}
        if row["pitch_um"]:
            driver["pitch"] = f"{row['pitch_um']} um"
        found = network_of(chip.vary({"network.interposer.driver": driver}))
        assert found is not None
        network, over = found[0], found[0].topology.link_kind == INTERPOSER
        length = np.where(over, float(row["length_mm"]) * 1e-3, network.topology.link_length_m)
        as_long = AnalyticNetwork(
            replace(network.topology, link_length_m=length),
            network.routing,
            network.router,
            network.clock_Hz,
            network.energy,
        )
        # A directed link has an end on each of two dies; a die has as many senders as receivers.
        density = network.clock_Hz / (network.energy.interposer_area_m2_per_bit / 2)
        for quantity, unit, reference, ours in (
            ("energy of a bit between dies", "pJ", row["energy_pJ"], as_long.link_J_per_B[over][0] / 8 * 1e12),
            ("density of bandwidth between dies", "Tb/s/mm2", row["density"], density * 1e-18),
        ):
            if not reference:
                continue
            yield Point(
                case=f"{row['name']}, {row['rate_Gb_per_s']} Gb/s, {row['length_mm']} mm"
                + (f", {row['node_nm']} nm" if row["node_nm"] else ""),
                quantity=quantity,
                unit=unit,
                reference=float(reference),
                ours=float(ours),
                tolerance=_FITTED if row["fitted"] == "1" else None,
                source=row["source"],
                evidence=cast(Evidence, row["evidence"]),
                fitted=row["fitted"] == "1",
            )
