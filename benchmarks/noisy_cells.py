"""What noisy cells and all their conversions take from SmolLM2-135M on Atleus, and what gives it back untrained.

    tierform models get smollm2-135m
    python benchmarks/noisy_cells.py TRAIN.txt TEST.txt [--part cells|conversions] [--chips 3] [--first-chip 1]

`cells` counts the cells' errors alone (fidelity ``weights``): a scale by crossbar against a scale by column with eight
digital input channels and 0.5 % of the weights digital, and with as many products in channels by their influence.
`conversions` computes every conversion (``bits``) for each
`--case CHANNELS,WEIGHTS,RANK,ADC BITS,RANGE`: digital input channels of a layer (below 1: a share of all products, as
channels of any layer by their influence on the loss), share of single digital weights, rank of a frozen digital product
that holds large weights (both by two calibration windows of TRAIN), converter bits, and the greatest column sum that it
represents (``chip``: as the chip's file says).
``--fidelity surrogate`` draws the conversions' error instead, which takes a fraction of the time; ``weights`` has none.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tierform.compression.checkpoints.folder import load_language_model
from tierform.compression.text import windows_of
from tierform.numerics.accuracy import interval
from tierform.numerics.adapters import attach_lora
from tierform.numerics.digital import DigitalShare
from tierform.numerics.emulation import describe, emulate, new_chip_instance, set_fidelity
from tierform.numerics.influence import share_by_influence
from tierform.numerics.layer import FIDELITIES
from tierform.numerics.remainder import Peaks, take_peaks
from tierform.studies import atleus_mechanisms

MODEL, CHIP, NOISE = "smollm2-135m", "atleus", "programming-2pct"
CASES = ("0.099,0,0,9,192.5", "0.099,0,0,8,chip", "8,0,29,9,255.5", "8,0,29,8,chip")


def score(model: nn.Module, windows: Tensor) -> tuple[float, float]:
    """Nats a token, and the share of first choices that are right; window by window."""
    lost, right = 0.0, 0
    with torch.no_grad():
        for window in windows:
            logits = model(input_ids=window[None]).logits[0, :-1].float()
            lost += float(nn.functional.cross_entropy(logits, window[1:]))
            right += int((logits.argmax(-1) == window[1:]).sum())
    return lost / len(windows), right / (len(windows) * (windows.shape[1] - 1))


def nats(model: nn.Module, windows: Tensor) -> Tensor:
    """The loss of all tokens, with a gradient."""
    logits = model(input_ids=windows).logits[:, :-1].float()
    return nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="sum")


def emulated(
    model: nn.Module, case: str, calibration: Tensor, known: dict[str, dict[str, Peaks]]
) -> tuple[nn.Module, float]:
    """The model as a case has it, and the share of its products that is digital; `known` keeps what adapters hold."""
    channels, single, rank, bits, reach = case.split(",")
    digital = DigitalShare(0 if float(channels) < 1 else int(channels), float(single))
    if 0 < float(channels) < 1:
        digital = share_by_influence(model, lambda network: nats(network, calibration), float(channels), beside=digital)
    changes: dict[str, Any] = {} if reach == "chip" else {"adc_range": float(reach)}
    found: nn.Module = emulate(
        model,
        CHIP,
        noise=NOISE,
        fidelity="weights",
        scale="column",
        digital=digital,
        calibration=lambda network: network(input_ids=calibration),
        adc_bits=int(bits),
        **changes,
    )
    rows = describe(found)
    held = int(rank)
    trained = 1 if held else 0  # a column of zeros: what adapters would learn
    if held:
        if (key := f"{channels}, {single}, {rank}") not in known:
            torch.set_float32_matmul_precision("medium")  # a search: bf16 factors, where the processor can
            known[key] = take_peaks(found, held)
            torch.set_float32_matmul_precision("highest")
        found = attach_lora(found, rank=trained, targets=("all",), peaks=known[key])
    beside = sum(one["digital_products"] + (held + trained) * (one["outputs"] + one["inputs"]) for one in rows)
    return found, beside / sum(one["outputs"] * one["inputs"] for one in rows)


def conversions(
    model: nn.Module, calibration: Tensor, windows: Tensor, chips: range, cases: list[str], fidelity: str
) -> None:
    """Nats and points of first choices lost on each chip, and in the mean."""
    exact = score(model, windows)
    print(f"as it is: {exact[0]:.4f} nats, {100 * exact[1]:.2f} % right", flush=True)
    known: dict[str, dict[str, Peaks]] = {}
    for case in cases:
        begin = time.process_time()
        found, digital = emulated(model, case, calibration, known)
        set_fidelity(found, fidelity)
        lost, points = [], []
        for number in chips:
            new_chip_instance(found, number)
            one = score(found, windows)
            lost.append(one[0] - exact[0])
            points.append(100 * (exact[1] - one[1]))
            print(f"  {case}, chip {number}: {lost[-1]:.4f} nats, {points[-1]:.2f} points lost", flush=True)
        (mean, half), (fewer, fewer_half) = interval(lost), interval(points)
        print(
            f"{case}: {100 * digital:.2f} % digital, {mean:.3f} +- {half:.3f} nats, {fewer:.2f} +- {fewer_half:.2f} "
            f"points lost ({fidelity}, {time.process_time() - begin:.0f} s)",
            flush=True,
        )


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--part", action="append", choices=["cells", "conversions"])
    parser.add_argument("--chips", type=int, default=3)
    parser.add_argument("--first-chip", type=int, default=1, help="conversions: the number of the first chip.")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--case", action="append", help="Of conversions; see above.")
    parser.add_argument("--fidelity", default="bits", choices=FIDELITIES)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load_language_model(MODEL)
    calibration = windows_of(given.train, tokenizer, 2, 256)
    windows = windows_of(given.test, tokenizer, given.windows, 256)
    parts = given.part or ["cells", "conversions"]
    if "cells" in parts:
        steps = (atleus_mechanisms.STEPS[0], *atleus_mechanisms.STEPS[3:])
        table = atleus_mechanisms.regained(
            model, calibration, windows, CHIP, chips=given.chips, say=lambda _: None, steps=steps
        )
        print(", ".join(table.head))
        for row in table.rows:
            print(*(f"{cell:.2f}" if isinstance(cell, float) else cell for cell in row))
    if "conversions" in parts:
        chips = range(given.first_chip, given.first_chip + given.chips)
        conversions(model, calibration, windows, chips, given.case or list(CASES), given.fidelity)


if __name__ == "__main__":
    main()
