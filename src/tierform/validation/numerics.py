"""The values engine against published fits, closed forms and a simulator's quantization error.

Two independent fits of one RRAM chip's programming error are held against each other where both are valid; thermal
noise against Johnson and Nyquist's formula worked out by hand; the emulated tile against the integer product; and the
error of 8-bit weights and inputs against CrossSim's (same sizes and distributions, another random draw).
"""

from __future__ import annotations

import csv
from pathlib import Path

from tierform.validation.ledger import EngineLedger, Point, Tolerance

TABLE = Path(__file__).parent / "tables" / "numerics.csv"


def ledger(folder: Path | None = None) -> EngineLedger:
    """Every point; `folder` may hold another ``numerics.csv`` of the same columns."""
    file = folder / "numerics.csv" if folder is not None else TABLE
    from tierform.files import read_text

    lines = [line for line in read_text(file).splitlines() if line and not line.startswith("#")]
    points: list[Point] = []
    remarks = []
    for row in csv.DictReader(lines):
        ours = _ours(row["case"], float(row["at"]))
        if ours is None:
            remarks.append(f"{row['case']} at {row['at']} needs torch, which is not installed: left out.")
            continue
        points.append(
            Point(
                case=f"{row['case']} at {row['at']} {row['at_unit']}",
                quantity=row["quantity"],
                unit=row["unit"],
                reference=float(row["reference"]),
                ours=ours,
                tolerance=Tolerance(relative=float(row["tolerance"])),
                source=row["source"],
                evidence=row["evidence"],  # type: ignore[arg-type]
            )
        )
    remarks.append(
        "The two fits of the NeuRRAM chip differ by up to 20 % between 5 and 30 uS, the cubic one being the larger; "
        "below 5 and above 35 uS they part, so neither is evidence there."
    )
    return EngineLedger("numerics", points, tuple(remarks))


def _ours(case: str, at: float) -> float | None:
    if case == "programming error":
        import numpy as np

        from tierform.numerics.noise import load_noise

        mechanism = load_noise("rram-wan-2022").sources[0]
        return float(mechanism.sigma_S(np.array(at * 1e-6), 1.0)) * 1e6
    try:
        import torch  # noqa: F401
    except ImportError:
        return None
    return {"thermal noise": thermal_share, "integer product": integer_difference, "quantization": rounding_error}[
        case
    ](at)


def thermal_share(kelvin: float) -> float:
    """Thermal noise of one read of a cell of 1/3 mS at 0.2 V and 10 MHz, relative to its conductance."""
    import torch

    from tierform.numerics.chip_view import CrossbarFormat
    from tierform.numerics.layer import CrossbarLinear
    from tierform.numerics.mechanisms import Device
    from tierform.numerics.noise import Noise, load_noise

    found = load_noise("thermal-shot")
    device = Device.model_validate({"g_max": "0.33333333 mS", "g_min": "0.0033 mS"})
    noise = Noise(found.names, device, found.sources, found.homes)
    form = CrossbarFormat(rows=1, cell_bits=2, dac_bits=1, weight_bits=2, input_bits=2, adc_bits=0)
    layer = CrossbarLinear(torch.nn.Parameter(torch.ones(1, 1)), None, form, noise=noise, temperature_K=kelvin)
    idle = torch.zeros(1, 1)
    variance = noise._variance(idle, idle, layer, 0, 1, weights=None)  # no voltage: no shot noise
    return float(variance.sqrt()) * device.span_S / 3 / device.g_max.value


def integer_difference(rows: float) -> float:
    """Largest difference between the tile's totals, lossless ADC, and the integer product, over the encodings."""
    import torch

    from tierform.numerics.chip_view import ENCODINGS, CrossbarFormat
    from tierform.numerics.layer import CrossbarLinear

    generator = torch.Generator().manual_seed(0)
    worst = 0
    for encoding in ENCODINGS:
        form = CrossbarFormat(rows=int(rows), adc_bits=14, encoding=encoding)  # type: ignore[arg-type]
        weight = torch.nn.Parameter(torch.randn(20, 300, generator=generator))
        layer = CrossbarLinear(weight, None, form)
        x = torch.randint(-127, 128, (7, 300), generator=generator).float()
        exact = torch.stack([x[:, a:b].long() @ layer.integers[:, a:b].long().T for a, b in layer.blocks])
        worst = max(worst, int((layer.block_sums(x).long() - exact).abs().max()))
    return float(worst)


def rounding_error(bits: float) -> float:
    """Relative Frobenius error, 768 x 768: weights N(0, 0.02), inputs uniform in [-1, 1], one scale for each."""
    import torch

    from tierform.numerics.chip_view import CrossbarFormat
    from tierform.numerics.formats import Quantizer
    from tierform.numerics.layer import CrossbarLinear

    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(0.02 * torch.randn(768, 768, generator=generator))
    form = CrossbarFormat(rows=768, adc_bits=0, encoding="differential", weight_bits=int(bits), input_bits=int(bits))
    layer = CrossbarLinear(weight, None, form, quantizer=Quantizer(f"int{int(bits)}", "tensor"))
    layer.full_scale = 1.0
    x = 2 * torch.rand(128, 768, generator=generator) - 1
    with torch.no_grad():
        exact = x @ weight.T
        return float((layer(x) - exact).norm() / exact.norm())
