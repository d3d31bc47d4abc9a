"""What do kernels take in a decoding step that they do not take alone?  One reference decoder, measured and simulated.

`calibrate` measures kernels one by one.  The software that decodes here (transformers, operator by operator) makes a
normalization or a rotation of several small kernels, calls modules, joins caches; and a product finds what the others
left in the caches.  Both are measured on a decoder that is nobody's application, of sizes that were chosen before
anything was compared, over one to eight tokens: once as it is, once with products that give a ready result.  From the
second comes the factor on kernels that are no products, which is written as a runtime file
(:mod:`tierform.simulation.runtime`); from the difference a factor on products with weights for each number of rows,
between which libraries change their kernels, which belongs to the chip (`few_rows.in_step`).

Limits: one sequence, a short context, weights that caches do not hold; products of activations count as they are alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, fsum
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from tierform.chip.description import load_chip
from tierform.compression.target import weight_products
from tierform.decoding.loop import Stepper
from tierform.decoding.measure import fed_s
from tierform.files import write_json
from tierform.simulation.runtime import IDEAL
from tierform.simulation.simulate import simulate
from tierform.workload import Model, load_model
from tierform.workload.task import SequenceGroup, Step

HIDDEN, INNER, HEADS, KV_HEADS, VOCABULARY, CONTEXT = 640, 1792, 10, 2, 8192, 48
LEAST_B = 384 * 2**20  # of weights, as those of the products that were measured alone
MOST = 8
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds of a step over 1, 2, ... tokens: as it is, and what is left of it without products with weights."""

    whole_s: tuple[float, ...]
    without_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class InStep:
    """Factors on kernels alone: of products with weights over 1, 2, ... tokens, and of kernels that are no products.

    `error` is the largest relative error of the reference steps with both.
    """

    products: tuple[float, ...]
    light_time: float
    error: float


def _config(layers: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }


def reference_decoder(form: str, least_B: int = LEAST_B) -> tuple[Any, dict[str, Any]]:
    """The decoder and its configuration: as many layers as hold `least_B` of weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    wide = TYPES[form]
    head = HIDDEN // HEADS
    layer = HIDDEN * (2 * HIDDEN + 2 * KV_HEADS * head + 3 * INNER)
    config = _config(max(1, ceil(least_B / (layer * wide.itemsize))))
    torch.manual_seed(0)
    given = {key: value for key, value in config.items() if key not in ("model_type", "architectures")}
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **given))  # type: ignore[no-untyped-call]
    return model.to(wide).eval(), config


def measure_rounds(
    model: Any, rounds: int, beside: Callable[[int], float] | None = None
) -> tuple[list[StepTimes], list[tuple[float, ...]]]:
    """Rounds, each of which measures steps as they are and without their products.

    `beside` (of the number of tokens) is measured right after each, on a machine whose speed changes by the minute.
    """
    context = list(range(1, CONTEXT + 1))
    stepper = Stepper(model)
    stepper.feed(context)
    found, others = [], []
    for _ in range(rounds):
        whole, without, other = [], [], []
        for tokens in range(1, MOST + 1):
            whole.append(fed_s(stepper, context[:tokens]))
            with _ReadyProducts(model):
                without.append(fed_s(stepper, context[:tokens]))
            other.append(beside(tokens) if beside is not None else 0.0)
        found.append(StepTimes(tuple(whole), tuple(without)))
        others.append(tuple(other))
    return found, others


def median_of(rounds: Sequence[StepTimes]) -> StepTimes:
    """The medians over rounds."""
    whole, without = ([getattr(one, side) for one in rounds] for side in ("whole_s", "without_s"))
    return StepTimes(*(tuple(map(median, zip(*side, strict=True))) for side in (whole, without)))


class _ReadyProducts:
    """Linear layers that give a ready result of the right shape, for as long as it is open."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = [module for module in model.modules() if isinstance(module, nn.Linear)]

    def __enter__(self) -> None:
        for layer in self.layers:
            layer.forward = _ready(layer)  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        for layer in self.layers:
            vars(layer).pop("forward", None)


def _ready(layer: nn.Linear) -> Any:
    known: dict[torch.Size, torch.Tensor] = {}

    def forward(x: torch.Tensor) -> torch.Tensor:
        found = known.get(x.shape)
        if found is None:
            found = known[x.shape] = torch.zeros((*x.shape[:-1], layer.out_features), dtype=x.dtype)
        return found

    return forward


@dataclass(frozen=True, slots=True)
class Simulated:
    """Seconds of a step as it is simulated of kernels alone: products with weights, light kernels, other products."""

    products_s: float
    light_s: float
    rest_s: float

    def seconds(self, product: float, light: float) -> float:
        """Of the step with these factors on products with weights and on light kernels."""
        return product * self.products_s + light * self.light_s + self.rest_s


def simulated_steps(chip: Path, model: Model, context: int) -> list[Simulated]:
    """Steps over 1, 2, ... tokens after a context, of kernels alone."""
    loaded = load_chip(chip)
    plain = replace(IDEAL, fuses_operators=False, fuses_attention=False)
    found = []
    for tokens in range(1, MOST + 1):
        task = Step((SequenceGroup(1, tokens, context),), logits="all")
        result = simulate(model, task, loaded, runtime=plain, thermal="none")
        slower = simulate(model, task, loaded, runtime=replace(plain, light_time=2.0), thermal="none")
        names = weight_products(model, task)
        products = fsum(row.busy_s for row in result.operators if (row.block, row.name) in names)
        light = slower.latency_s - result.latency_s
        found.append(Simulated(products, light, result.latency_s - products - light))
    return found


def reference_steps(chip: Path, config: dict[str, Any]) -> list[Simulated]:
    """The reference steps as they are simulated of kernels alone."""
    with TemporaryDirectory(prefix="tierform-step-") as folder:
        write_json(Path(folder) / "config.json", config)
        model = load_model(folder)
    return simulated_steps(chip, model, CONTEXT)


def in_step(steps: Sequence[Simulated], times: StepTimes) -> InStep:
    """The factors, from the reference steps simulated and measured."""
    light = median(
        max(0.0, without - one.rest_s) / one.light_s for without, one in zip(times.without_s, steps, strict=True)
    )
    products = tuple(
        max(whole - without, 1e-3 * whole) / one.products_s
        for whole, without, one in zip(times.whole_s, times.without_s, steps, strict=True)
    )
    errors = [
        abs(one.seconds(product, light) / whole - 1)
        for whole, one, product in zip(times.whole_s, steps, products, strict=True)
    ]
    return InStep(products, light, max(errors))


def calibrate_steps(chip: Path, form: str, rounds: int) -> InStep:
    """Measure the reference decoder and simulate it on a chip that was just calibrated in this format."""
    model, config = reference_decoder(form)
    rows, _ = measure_rounds(model, rounds)
    return in_step(reference_steps(chip, config), median_of(rows))


def runtime_text(found: InStep, name: str, device: str) -> str:
    """The runtime file of decoding by transformers on the chip `name`."""
    evidence = "kind: measured, source: calibration"
    return f"""# Decoding by transformers on {device}; the reference steps are met within {found.error * 100:.0f} %.
schema: tierform.runtime/1
name: {name}-decoding
description: "Transformers, eager PyTorch, on the processor that the chip {name} was calibrated on"
fuses_operators: false
light_time: {{value: {found.light_time:.4g}, {evidence}, note: "several kernels and calls each"}}
"""
