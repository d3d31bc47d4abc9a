"""What the training benchmark trains: the wind application, an electricity series, a language model, a ViT.

Each case has samples to learn from, a slice of them to search learning rates on (`select=True` leaves it out of what is
learned from and tests on it), and test samples that nothing but the final error is taken from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tierform.tuning.applications import ALSO_TRAIN, SpatioTemporalTransformer, build
from tierform.tuning.feeding import ShuffledBatches, error_on, squared_error
from tierform.tuning.lowrank import LowRank
from tierform.tuning.tables import Samples, Split, read_series, series_samples
from tierform.workload.models import load_model


@dataclass(frozen=True)
class Case:
    """One seed of a task: model, loss, batches by step, quick and whole test, low-rank mode, yardsticks."""

    title: str
    unit: str
    model: torch.nn.Module
    loss: Callable[[Any, Any], torch.Tensor]
    batches: Callable[[int], Any]
    quick: Callable[[Any], float]
    whole: Callable[[Any], float]
    low: LowRank
    yardsticks: dict[str, float]


def _some(samples: Samples, count: int) -> Samples:
    rows = np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)
    return Samples(samples.inputs[rows], samples.targets[rows], samples.scale, samples.unit)


def _regression(title: str, model: torch.nn.Module, split: Split, seed: int, sizes: tuple[int, int]) -> Case:
    quick, whole = (_some(split.test, size) for size in sizes)

    def repeated(samples: Samples) -> float:
        return float(samples.scale * np.sqrt(np.mean((samples.inputs[:, :, -1] - samples.targets) ** 2)))

    return Case(
        title,
        split.test.unit,
        model,
        squared_error,
        ShuffledBatches(split.train, 1, seed),
        lambda one: error_on(one, quick)["rmse"],
        lambda one: error_on(one, whole)["rmse"],
        LowRank(also_train=ALSO_TRAIN),
        {
            "the last value repeated": repeated(whole),
            "the mean of the training rows": float(split.test.scale * np.sqrt(np.mean(whole.targets**2))),
        },
    )


def wind(files: list[str], seed: int, select: bool, layers: int = 12, sizes: tuple[int, int] = (64, 384)) -> Case:
    """57 stations, 12 hours to the next, the published test rows; the last 600 rows select learning rates."""
    series = read_series(files[0], 57)
    split = (
        series_samples(series[2120:], 12, slice(-600, None), unit="m/s")
        if select
        else series_samples(series, 12, slice(480, 2120), unit="m/s")
    )
    model = build("wind", seed)
    model.layers = model.layers[:layers]
    return _regression(f"wind, 57 stations, {layers} layers of width 512", model, split, seed, sizes)


def ett(files: list[str], seed: int, select: bool) -> Case:
    """ETTh1: seven columns, 12 hours to the next; 16 months learned, 4 tested; 4 layers of the wind architecture."""
    series = read_series(files[0], 7)[: 20 * 30 * 24]
    series = (series - series[:8640].mean(0)) / series[:8640].std(0)
    split = (
        series_samples(series[:11520], 12, slice(8640, None))
        if select
        else series_samples(series, 12, slice(11520, None))
    )
    shape = replace(
        load_model("hpt-wind"),
        name="ett",
        layers=4,
        hidden_size=128,
        head_dim=16,
        ffn_size=256,
        fixed_tokens=7,
        embedding_widths=(64,),
        reduction_widths=(64, 32),
        decoder_widths=(64, 32, 7),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SpatioTemporalTransformer(shape)
    case = _regression("ETTh1, seven columns, 4 layers of width 128", model, split, seed, (500, 2880))
    return replace(case, batches=ShuffledBatches(split.train, 8, seed))


def lm(files: list[str], seed: int, select: bool) -> Case:
    """Bytes of WikiText-2: a decoder of 3 layers of width 128, sequences of 64."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def read(name: str) -> torch.Tensor:
        return torch.frombuffer(bytearray(Path(name).read_bytes()), dtype=torch.uint8).long()

    learned, tested = read(files[0]), read(files[1])
    cut = len(learned) * 9 // 10
    if select:
        learned, tested = learned[:cut], learned[cut:]
    length = 64

    def batch(step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed * 10**7 + step)
        starts = torch.randint(len(learned) - length, (8,), generator=generator)
        return torch.stack([learned[s : s + length] for s in starts])

    def loss(model: Any, ids: torch.Tensor) -> torch.Tensor:
        return model(input_ids=ids, labels=ids).loss  # type: ignore[no-any-return]

    pieces = tested[: len(tested) // length * length].view(-1, length)

    def bits(count: int) -> Callable[[Any], float]:
        rows = pieces[torch.linspace(0, len(pieces) - 1, count).long()]

        def measure(model: Any) -> float:
            model.eval()
            with torch.no_grad():
                parts = [float(loss(model, one)) for one in rows.split(64)]
            return float(np.mean(parts)) / np.log(2)

        return measure

    config = LlamaConfig(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=length,
    )
    torch.manual_seed(seed)
    share = torch.bincount(learned, minlength=256).double() / len(learned)
    entropy = float(-(share * torch.log2(share.clamp_min(1e-12))).sum())
    low = LowRank(targets=("q_proj", "v_proj"), also_train=("model.embed_tokens", "lm_head"))
    return Case(
        "byte-level language model, 3 layers of width 128",
        "bits per byte",
        LlamaForCausalLM(config),
        loss,
        batch,
        bits(128),
        bits(1024),
        low,
        {"entropy of single bytes": entropy},
    )


def vit(files: list[str], seed: int, select: bool) -> Case:
    """scikit-learn's 8 x 8 digits: a vision transformer of 4 layers of width 96, patches of 2 x 2."""
    from sklearn.datasets import load_digits
    from transformers import ViTConfig, ViTForImageClassification

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = torch.tensor(digits.images[order] / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(digits.target[order])
    learned = slice(0, 1000 if select else 1300)
    tested = slice(1000, 1300) if select else slice(1300, None)

    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed * 10**7 + step)
        rows = torch.randint(learned.stop, (16,), generator=generator)
        return images[rows], labels[rows]

    def loss(model: Any, batch: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(pixel_values=batch[0]).logits, batch[1])

    def wrong(model: Any) -> float:
        model.eval()
        with torch.no_grad():
            return 100 * float((model(pixel_values=images[tested]).logits.argmax(1) != labels[tested]).float().mean())

    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=384,
        num_labels=10,
    )
    torch.manual_seed(seed)
    model = ViTForImageClassification(config)
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    targets = ("query", "value") if "query" in names else ("q_proj", "v_proj")
    low = LowRank(targets=targets, also_train=("classifier", "vit.embeddings"))
    return Case(
        "vision transformer on 8 x 8 digits, 4 layers of width 96",
        "test error in %",
        model,
        loss,
        batch,
        wrong,
        wrong,
        low,
        {"chance": 90.0},
    )


CASES: dict[str, Callable[..., Case]] = {
    "wind": wind,
    "wind-4": partial(wind, layers=4),
    "ett": ett,
    "lm": lm,
    "vit": vit,
}
