"""The ledger of exploration: placements against proven optima, chiplet costs and searches against published ones.

``exploration_qaplib.json``: QAPLIB instances on tile grids with proven optima (Burkard, Karisch and Rendl, J. Global
Optim. 10, 1997).  ``exploration_placeit.json``: designs and costs published with PlaceIT (Iff et al., arXiv
2502.01449).  With `folder`: its files ``placement_qaplib.json``, ``placeit.json`` and ``traffic/*.json``, of which
those that are there are run; traffic is held against the loads of a whole simulation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tierform.errors import fail
from tierform.exploration.chiplet_placement import FIGURES, ChipletCase, chiplet_cost, place_chiplets
from tierform.exploration.network_search import search_places
from tierform.exploration.placement import assign, manhattan
from tierform.exploration.traffic_file import problem_of
from tierform.files import read_json
from tierform.validation.ledger import EngineLedger, Point, Tolerance

TABLES = Path(__file__).parent / "tables"
_EQUAL = Tolerance(relative=1e-12)


def ledger(folder: Path | None = None) -> EngineLedger:
    """Every point, computed anew."""
    points: list[Point] = []
    if folder is None:
        points += _qaplib(read_json(TABLES / "exploration_qaplib.json").content)
        points += _placeit(_own_placeit(read_json(TABLES / "exploration_placeit.json").content))
    else:
        for name, read in (("placement_qaplib.json", _qaplib), ("placeit.json", _placeit)):
            if (folder / name).is_file():
                points += read(read_json(folder / name).content)
        for path in sorted((folder / "traffic").glob("*.json")):
            points += _traffic(read_json(path).content)
        if not points:
            fail("no case was found", file=str(folder), fix="Give a folder with placement_qaplib.json or placeit.json.")
    return EngineLedger(
        "exploration", points, ("Optima that the search reaches are not proven by it; those of QAPLIB are.",)
    )


def _qaplib(content: dict[str, Any]) -> list[Point]:
    points = []
    for name, case in content["cases"].items():
        flow = np.array(case["flow_upper_or_full"], np.float64)
        found = assign(flow, manhattan(*case["tiles"]), target=case["optimum"], seed=1)
        points.append(
            Point(
                case=name,
                quantity="cost of the placement",
                unit="",
                reference=float(case["optimum"]),
                ours=found.cost,
                tolerance=Tolerance(relative=0.0 if len(flow) <= 30 else 0.002),
                source=content["source"],
                evidence="published",
            )
        )
    return points


def _own_placeit(content: dict[str, Any]) -> dict[str, Any]:
    designs = {
        name: {"best": d["cost"], "best_grid": d["grid"], "best_ports": d["ports"]}
        for name, d in content["designs"].items()
    }
    case = {**designs, "parameters": content["parameters"]}
    return {"source": content["source"], "cases": {"32 cores": case}}


def _placeit(content: dict[str, Any]) -> list[Point]:
    points = []
    for case_name, given in content["cases"].items():
        parameters = given["parameters"]
        case = _chiplets(parameters)
        best = np.inf
        for name, design in given.items():
            if not isinstance(design, dict) or "best_grid" not in design:
                continue
            best = min(best, design["best"])
            found = chiplet_cost(case, design["best_grid"], design["best_ports"])
            points.append(
                Point(
                    case=f"{case_name}, {name}",
                    quantity="cost of a published design",
                    unit="",
                    reference=design["best"],
                    ours=found.cost,
                    tolerance=_EQUAL,
                    source=content["source"],
                    evidence="published",
                )
            )
        found = place_chiplets(case, steps=250_000)
        points.append(
            Point(
                case=case_name,
                quantity="best published cost, reached by search",
                unit="",
                reference=best,
                ours=max(best, found.cost),
                tolerance=Tolerance(relative=1e-9),
                source=content["source"],
                evidence="published",
            )
        )
    return points


def _chiplets(parameters: dict[str, Any]) -> ChipletCase:
    weights, normalizers = (
        np.array([parameters[key][figure] for figure in FIGURES], np.float64)
        for key in ("cf_weights", "cf_normalizers")
    )
    ports = parameters.get("ports_per_type", {"C": 4, "M": 1, "I": 1})
    return ChipletCase(
        rows=parameters["rows"],
        columns=parameters["cols"],
        counts=(parameters["n_compute"], parameters["n_memory"], parameters["n_io"]),
        relay_phy_link=(parameters["L_relay"], parameters["L_phy"], parameters["L_link"]),
        weights=weights,
        normalizers=normalizers,
        ports=(ports["C"], ports["M"], ports["I"]),
    )


def _traffic(content: dict[str, Any]) -> list[Point]:
    problem = problem_of(content)
    mesh = search_places(problem, steps=1)[0]
    told = content["result"]
    return [
        Point(
            case=content["case"],
            quantity=quantity,
            unit="B",
            reference=reference,
            ours=float(ours),
            tolerance=Tolerance(relative=1e-6),
            source=content["from"],
            evidence="simulator",
        )
        for quantity, reference, ours in (
            ("bytes on all links", told["link_bytes_sum"], mesh.loads.sum()),
            ("bytes on the busiest link", told["link_bytes_max"], mesh.loads.max()),
        )
    ]
