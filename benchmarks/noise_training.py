"""What noise in the training of adapters gains on a real model: SmolLM2-135M on Atleus' noisy crossbars.

LoRA (rank 8, every layer, the adapters digital) is trained on next tokens twice from the same start, on the same
batches: once with a new noisy chip in every second step, once on exact cells.  Both are then measured on chips that no
training saw, and on a chip without noise.  Three trainings each; intervals are Student's t at 95 % over trainings
(each the mean of its chips), so that the chips of one training do not count as trainings.  Every run is written when
it ends, and a run that is there already is not repeated.  Products multiply bf16 factors, where the processor can.

    tierform models get smollm2-135m
    python benchmarks/noise_training.py TRAIN.txt TEST.txt RESULTS.json [STEPS]
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tierform.compression.checkpoints.folder import load_language_model
from tierform.numerics.accuracy import interval
from tierform.numerics.adapters import attach_lora, train_adapters
from tierform.numerics.digital import DigitalShare
from tierform.numerics.emulation import crossbar_layers, describe, emulate, new_chip_instance

NOISE, RANK, RATE, LENGTH, BATCH = "programming-2pct", 8, 1e-3, 128, 2
TRAININGS, CHIPS, WINDOWS, WINDOW, NEW_CHIP_EVERY = 3, 3, 4, 256, 2
# name: (what shares a scale, digital channels of each layer, share of single weights that are digital)
CASES = {
    "a scale by column": ("column", 0, 0.0),
    "a scale by crossbar": ("crossbar", 0, 0.0),
    "a scale by column, 8 channels and 0.5 % of the weights digital": ("column", 8, 0.005),
}


def score(model: Any, windows: torch.Tensor) -> tuple[float, float]:
    """Nats a token, and the share of first choices that are right."""
    lost, right, count = 0.0, 0, 0
    with torch.no_grad():
        for window in windows:
            logits = model(input_ids=window[None]).logits[0, :-1].float()
            lost += float(torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
            right += int((logits.argmax(-1) == window[1:]).sum())
            count += len(logits)
    return lost / count, right / count


def begin_again(model: Any, seed: int) -> None:
    """Adapters as they are before any training: A drawn from the seed, B zero."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                bound = 1 / math.sqrt(parameter.shape[1])
                parameter.copy_((2 * torch.rand(parameter.shape, generator=draw) - 1) * bound)
            elif "lora_B" in name:
                parameter.zero_()


def measured(model: Any, windows: torch.Tensor) -> dict[str, Any]:
    """Scores on every chip, and on exact cells."""
    chips = []
    for number in range(1, CHIPS + 1):
        new_chip_instance(model, number)
        chips.append(score(model, windows))
    kept = [(layer, layer.noise) for layer in crossbar_layers(model)]
    for layer, _ in kept:
        layer.noise = None
        layer.program()
    ideal = score(model, windows)
    for layer, noise in kept:
        layer.noise = noise
        layer.program()
    return {"chips": chips, "ideal": ideal}


def run(train: str, test: str, file: Path, steps: int) -> dict[str, Any]:
    """All trainings that `file` does not hold yet."""
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"steps": steps, "runs": {}}
    model, tokenizer = load_language_model("smollm2-135m")

    def tokens(path: str, count: int) -> torch.Tensor:
        return torch.tensor(tokenizer(Path(path).read_text()[: 12 * count], add_special_tokens=False)["input_ids"])

    need = TRAININGS * steps * BATCH * LENGTH
    windows = tokens(test, WINDOWS * WINDOW)[: WINDOWS * WINDOW].view(WINDOWS, WINDOW)
    text = tokens(train, need)[:need].view(TRAININGS, steps, BATCH, LENGTH)
    found.setdefault("float", score(model, windows))
    for case, (scale, channels, single) in CASES.items():
        adapted: Any = None
        for training in range(TRAININGS):
            for noisy in (True, False):
                key = f"{case} / {training} / {'with' if noisy else 'without'} noise"
                if key in found["runs"]:
                    continue
                if adapted is None:
                    emulated = emulate(
                        model,
                        "atleus",
                        noise=NOISE,
                        fidelity="weights",
                        scale=scale,
                        digital=DigitalShare(channels, single),
                        calibration=lambda network: network(input_ids=text[0, 0]),
                    )
                    rows = describe(emulated)
                    products = sum(row["outputs"] * row["inputs"] for row in rows)
                    beside = sum(row["digital_products"] + RANK * (row["outputs"] + row["inputs"]) for row in rows)
                    adapted = attach_lora(emulated, rank=RANK, targets=("all",))
                    begin_again(adapted, 0)
                    if case not in found:
                        found[case] = {"digital": beside / products, "untrained": measured(adapted, windows)}
                begin = time.process_time()
                begin_again(adapted, training)
                train_adapters(
                    adapted,
                    [{"input_ids": batch, "labels": batch} for batch in text[training]],
                    steps=steps,
                    learning_rate=RATE,
                    resample_every=NEW_CHIP_EVERY,
                    noisy=noisy,
                    fidelity="weights",
                    seed=training,
                )
                found["runs"][key] = measured(adapted, windows)
                file.write_text(json.dumps(found, indent=1))
                print(f"{key}: {found['runs'][key]} ({time.process_time() - begin:.0f} s)", flush=True)
    return found


def table(found: dict[str, Any]) -> None:
    """Nats and points lost: by training, and with against without noise."""
    for case in CASES:
        means: dict[str, list[tuple[float, float]]] = {}
        for way in ("with", "without"):
            for training in range(TRAININGS):
                one = found["runs"].get(f"{case} / {training} / {way} noise")
                if one is not None:
                    chips = one["chips"]
                    nats = sum(chip[0] for chip in chips) / len(chips) - one["ideal"][0]
                    points = 100 * (one["ideal"][1] - sum(chip[1] for chip in chips) / len(chips))
                    means.setdefault(way, []).append((nats, points))
        if not means:
            continue
        print(f"{case} ({100 * found[case]['digital']:.1f} % digital with the adapters)")
        for way, values in means.items():
            nats, points = (interval([value[at] for value in values]) for at in (0, 1))
            print(
                f"  {way} noise: {nats[0]:.3f} +- {nats[1]:.3f} nats, {points[0]:.2f} +- {points[1]:.2f} points lost "
                "against the same adapters on exact cells"
            )
        if {"with", "without"} <= set(means):
            for at, unit in ((0, "nats"), (1, "points")):
                gained = []
                for training in range(min(len(one) for one in means.values())):
                    runs = [found["runs"][f"{case} / {training} / {way} noise"] for way in ("without", "with")]
                    a, b = (sum(chip[at] for chip in one["chips"]) / CHIPS for one in runs)
                    gained.append(a - b if at == 0 else 100 * (b - a))
                mean, half = interval(gained)
                print(f"  noise in training gains {mean:.3f} +- {half:.3f} {unit}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("medium")
    table(run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 40))
