"""What gives back the accuracy that noisy cells take from a real pre-trained model, without any training.

SmolLM2-135M (where it has been fetched) on Atleus' crossbars with a 2 % error of every cell's range: one scale for each
crossbar, one for each crossbar column, then a few input channels and single weights that stay digital, or as many
products as channels of any layer by their influence on the loss.  The share of
the lost nats and of the lost first choices that each regains is counted against the scale by crossbar, over chips that
differ; the digital share is that of all multiplications.
Limits: the cells' errors alone (no ADC); windows of 256 tokens of Python's own language reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tierform.studies.study import Cell, StudyOptions, Table

TITLE = "What regains what noisy cells take (SmolLM2-135M)"
HEAD = (
    "",
    "perplexity",
    "first choice right (%)",
    "nats lost",
    "+-",
    "nats regained (%)",
    "regained (%)",
    "digital (%)",
)
NOISE, LENGTH = "programming-2pct", 256
# name, what shares a scale, digital channels of each layer (below 1: a share of all products), single digital weights
STEPS: tuple[tuple[str, str, float, float], ...] = (
    ("a scale by crossbar", "crossbar", 0, 0.0),
    ("a scale by column", "column", 0, 0.0),
    ("and 8 digital channels", "column", 8, 0.0),
    ("and 0.5 % digital weights", "column", 8, 0.005),
    ("a scale by column, channels by influence", "column", 0.017, 0.0),
)
ABSENT = "Not computed: noisy cells on a real model (fetch one: tierform models get smollm2-135m)."


def mechanisms(options: StudyOptions, chip: str) -> tuple[Table | None, str]:
    """The table where the model has been fetched and a long run is wanted, and a remark."""
    from tierform.compression.checkpoints.packages import fetched_folder

    if options.quick:
        return None, "Left out of the quick run: noisy cells on a real model."
    if fetched_folder("smollm2-135m") is None:
        return None, ABSENT
    from tierform.compression.checkpoints.folder import load_language_model

    model, tokenizer = load_language_model("smollm2-135m")
    from pydoc_data.topics import topics

    text = "\n".join(topics[key] for key in sorted(topics))
    ids = tokenizer(text[: 12 * 4 * LENGTH], add_special_tokens=False)["input_ids"]
    import torch

    windows = torch.tensor(ids[: 4 * LENGTH]).view(4, LENGTH)
    return regained(model, windows[:2], windows[2:], chip, chips=3, say=options.say), "No training is in these figures."


def regained(
    model: Any,
    calibration: Any,
    windows: Any,
    chip: str,
    *,
    chips: int,
    say: Any,
    steps: tuple[tuple[str, str, float, float], ...] = STEPS,
) -> Table:
    """The table of a language model: `calibration` and `windows` are (count, length) token numbers.

    What `steps` regain is counted against the first of them.
    """
    import torch

    from tierform.numerics.accuracy import interval
    from tierform.numerics.digital import DigitalShare
    from tierform.numerics.emulation import describe, emulate, new_chip_instance
    from tierform.numerics.influence import share_by_influence

    def score(network: Any) -> tuple[float, float]:
        with torch.no_grad():
            logits = network(input_ids=windows).logits[:, :-1].float()
        right = (logits.argmax(-1) == windows[:, 1:]).float().mean()
        return float(torch.nn.functional.cross_entropy(logits.transpose(1, 2), windows[:, 1:])), float(right)

    exact = score(model)
    rows: list[tuple[Cell, ...]] = [("as it is", float(np.exp(exact[0])), 100 * exact[1], 0.0, 0.0, None, None, 0.0)]
    worst: Any = None
    for name, scale, channels, single in steps:
        digital = DigitalShare(int(channels), single)
        if 0 < channels < 1:
            digital = share_by_influence(
                model, lambda network: network(input_ids=calibration, labels=calibration).loss, channels, beside=digital
            )
        emulated = emulate(
            model,
            chip,
            noise=NOISE,
            fidelity="weights",
            scale=scale,
            digital=digital,
            calibration=lambda network: network(input_ids=calibration),
        )
        scores = []
        for number in range(1, chips + 1):
            say(f"noisy cells, {name}, chip {number} of {chips}")
            new_chip_instance(emulated, number)
            scores.append(score(emulated))
        found = np.array(scores) - exact
        lost, half = interval(found[:, 0].tolist())
        mean = found.mean(0)
        worst = mean if worst is None else worst
        layers = describe(emulated)
        share = sum(one["digital_products"] for one in layers) / sum(one["outputs"] * one["inputs"] for one in layers)
        back = 1 - mean / worst
        rows.append(
            (
                name,
                float(np.exp(exact[0] + lost)),
                100 * (exact[1] + float(mean[1])),
                lost,
                half,
                100 * float(back[0]),
                100 * float(back[1]),
                100 * share,
            )
        )
    note = f"{NOISE}, cells' errors alone, {chips} chips; +- is a 95 % interval over chips."
    return Table(TITLE, HEAD, tuple(rows), note)
