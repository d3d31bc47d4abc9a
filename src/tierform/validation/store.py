"""The plane store's ledger: bytes for k planes, lossless compression, errors of partial reads, proportional energy.

References are closed forms (k/16), the published lossless footprint of weights (arXiv 2503.18869: 25.2 %), and errors
of partial reads computed apart from the store, with NumPy on 2 million Gaussian samples.  With `folder`, the file
``weights.csv`` there replaces the built-in figures: lines of ``case,quantity,value,tolerance``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tierform.errors import fail
from tierform.files import read_text
from tierform.validation.ledger import EngineLedger, Evidence, Point, Tolerance

WEIGHTS = 2**20
# bits: relative root-mean-square error of (truncate, midpoint, round) on Gaussian bf16 weights
PARTIAL_ERRORS = {14: (0.0107, 0.0071, 0.0070), 12: (0.0489, 0.0268, 0.0266), 10: (0.181, 0.110, 0.104)}
_OWN = "NumPy reference, 2 million samples"
_PAPER = "compression-aware-2025"


def ledger(folder: Path | None = None) -> EngineLedger:
    """Every point, computed anew."""
    from tierform.studies.smartquant_device import proportionality

    measured = _measure()
    references = _references(folder)
    points = [
        Point(
            case=case,
            quantity=quantity,
            unit="",
            reference=value,
            ours=measured[case, quantity],
            tolerance=Tolerance(absolute=tolerance),
            source=source,
            evidence=evidence,
        )
        for (case, quantity), (value, tolerance, source, evidence) in references.items()
    ]
    if folder is None:
        from tierform.memory import load_memory

        device: Any = load_memory("cxl-ddr5-x8")
        for layout in ("adjacent", "plane-major"):
            table, _ = proportionality(device, layout)
            for row in table.rows:
                ideal = float(row[1]) / 100  # type: ignore[arg-type]
                for quantity, value in (("DRAM energy saved", row[2]), ("load time saved", row[4])):
                    ours = float(value) / 100  # type: ignore[arg-type]
                    case = f"{row[0]} of 16 planes, {layout}"
                    points.append(
                        Point(
                            case=case,
                            quantity=quantity,
                            unit="",
                            reference=ideal,
                            ours=ours,
                            tolerance=Tolerance(absolute=0.02),
                            source="1 - k/16",
                            evidence="closed form",
                        )
                    )
    remarks = [
        "The published 25.2 % is of real weights; Gaussian ones of any standard deviation come near it, because what "
        "compresses are the exponent's upper planes.",
    ]
    return EngineLedger("store", points, remarks)


def _references(folder: Path | None) -> dict[tuple[str, str], tuple[float, float, str, Evidence]]:
    result: dict[tuple[str, str], tuple[float, float, str, Evidence]] = {}
    for bits in (4, 8, 12, 16):
        # the index adds at most a hundredth of what is read
        result[f"{bits} of 16 planes", "share of the bytes read"] = (bits / 16, bits / 1600, "k/16", "closed form")
    result["Gaussian bf16", "lossless saving"] = (0.252, 0.018, _PAPER, "published")
    for bits, errors in PARTIAL_ERRORS.items():
        for fill, error in zip(("truncate", "midpoint", "round"), errors, strict=True):
            result[f"{bits} bits, {fill}", "relative error"] = (error, 0.02 * error, _OWN, "closed form")
    if folder is None:
        return result
    path = folder / "weights.csv"
    for number, line in enumerate(read_text(path).splitlines()[1:], 2):
        parts = [part.strip() for part in line.split(",")]
        try:
            key, value, tolerance = (parts[0], parts[1]), float(parts[2]), float(parts[3])
        except (IndexError, ValueError):
            fail("a line is case,quantity,value,tolerance", file=str(path), line=number, value=line)
        if key not in result:
            fail("no such case and quantity", file=str(path), line=number, value=key[0], choices=[k[0] for k in result])
        result[key] = (value, tolerance, path.name, "measured")
    return result


def _measure() -> dict[tuple[str, str], float]:
    from tierform.store import PackOptions, pack_tensors
    from tierform.store import open as open_store
    from tierform.store.bench import gaussian_bf16

    codes = gaussian_bf16(WEIGHTS)
    found: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as name:
        plain, small = Path(name) / "plain.tfs", Path(name) / "small.tfs"
        pack_tensors({"w": codes}, plain, elements={"w": "bf16"})
        pack_tensors({"w": codes}, small, PackOptions(codec="zstd"), elements={"w": "bf16"})
        found["Gaussian bf16", "lossless saving"] = 1 - small.stat().st_size / codes.nbytes
        for bits in (4, 8, 12, 16):
            with open_store(plain) as store:
                store.codes("w", bits)
                read = store.count.planes_B + store.count.index_B
            found[f"{bits} of 16 planes", "share of the bytes read"] = read / codes.nbytes
        with open_store(plain) as store:
            exact = store.read("w").astype(np.float64)
            for bits in PARTIAL_ERRORS:
                for fill in ("truncate", "midpoint", "round"):
                    wrong = store.read("w", bits, fill=fill) - exact
                    error = float(np.sqrt((wrong**2).mean() / (exact**2).mean()))
                    found[f"{bits} bits, {fill}", "relative error"] = error
    return found
