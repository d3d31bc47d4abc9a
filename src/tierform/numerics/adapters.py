"""Adapters that absorb the noise: LoRA through PEFT beside frozen, noisy crossbars.

The base weights sit in cells and never change; the adapters are digital and noise-free.  A frozen part of them may take
the largest weights over, so that the cells' range, and with it their errors, are small
(:mod:`tierform.numerics.remainder`).  In training the chip instance is drawn anew every `resample_every` steps, so
that they learn to work on any instance rather than on one (noise injection, as in ReSNA and HaLoRA).  Training computes
with the weight in the cells and an error of the size that the ADCs' rounding has (fidelity ``surrogate``); what is
reported is measured on other instances, conversion by conversion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from tierform.errors import MissingDependency, fail
from tierform.numerics.emulation import crossbar_layers, new_chip_instance, set_fidelity
from tierform.numerics.layer import CrossbarLinear
from tierform.numerics.placement import StaticLinear, static_linears
from tierform.numerics.remainder import Peaks, take_peaks
from tierform.numerics.tasks import TaskSet, one_cycle

if TYPE_CHECKING:
    from torch import Tensor

TRAINING_INSTANCES = 10_000  # chip instances from this number on are for training, those below for measuring


@dataclass(frozen=True, slots=True)
class Adapting:
    """How adapters are attached and trained (:func:`attach_lora`, :func:`train_adapters`), `batch` examples a step.

    `rank` is trained; `peak_rank` more are frozen and hold the large weights (0: the cells do).
    """

    steps: int = 200
    batch: int = 32
    learning_rate: float = 1e-3
    rank: int = 8
    alpha: float | None = None
    targets: tuple[str, ...] = ("q", "v")
    train_norms: bool = False
    resample_every: int = 10
    fidelity: str = "surrogate"
    peak_rank: int = 0

    def peaks(self, model: nn.Module) -> dict[str, Peaks]:
        """What the adapters of an emulated model take over, by layer; nothing where `peak_rank` is 0."""
        return take_peaks(model, self.peak_rank, self.targets) if self.peak_rank else {}

    def attach(self, model: nn.Module, seed: int, peaks: Mapping[str, Peaks] | None = None) -> nn.Module:
        """The model with untrained adapters; `peaks` is what they take over where the model is not emulated."""
        return attach_lora(
            model,
            rank=self.rank,
            alpha=self.alpha,
            targets=self.targets,
            train_norms=self.train_norms,
            seed=seed,
            peaks=self.peaks(model) if peaks is None else peaks,
        )

    def train(self, model: nn.Module, task: TaskSet, *, noisy: bool, seed: int) -> list[float]:
        """Train a model's adapters on a task; the losses."""
        return train_adapters(
            model,
            task.batches(self.batch, seed),
            steps=self.steps,
            learning_rate=self.learning_rate,
            resample_every=self.resample_every,
            noisy=noisy,
            fidelity=self.fidelity,
            seed=seed,
        )


def attach_lora(
    model: nn.Module,
    *,
    rank: int = 8,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Sequence[str] = ("q", "v"),
    train_head: bool = True,
    train_norms: bool = False,
    seed: int = 0,
    peaks: Mapping[str, Peaks] | None = None,
) -> nn.Module:
    """The model with LoRA on the layers that hold one of the parts `targets` (q, k, v, o, gate, up, down, or ``all``).

    Works on an emulated model and on a plain one.  `train_head` also trains the output head (and a pooler),
    `train_norms` the gains and offsets of normalizations and the biases of linear layers: all of them are digital.
    `peaks` (:func:`tierform.numerics.take_peaks`, all of one rank) is what adapters take over from the layers of these
    names: it is taken off the layer's weight, in place, and held by further columns of the adapter, which get no
    gradient (weight decay would still shrink them).
    TierformError when no layer has such a part.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingDependency("peft", "low-rank adapters", "train") from None
    if rank < 1:
        fail("the rank must be at least 1", key="rank", value=rank)
    wanted = set(targets)
    chosen = [item for item in static_linears(model) if "all" in wanted or item.parts & wanted]
    names = [item.name for item in chosen]
    if not names:
        fail(
            "no layer holds any of these parts",
            key="targets",
            value=sorted(wanted),
            fix="Parts are q, k, v, o, gate, up, down, or all.",
        )
    extra = _common_rank(peaks, chosen) if peaks else 0
    if extra and dropout:
        fail("the part that holds large weights cannot be dropped", key="dropout", value=dropout)
    total = (2.0 * rank if alpha is None else alpha) * (rank + extra) / rank
    heads = sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, part in model.named_modules()
            if isinstance(part, nn.Linear) and name.rsplit(".", 1)[-1] in ("classifier", "score", "qa_outputs")
        }
    )
    config = LoraConfig(
        r=rank + extra,
        lora_alpha=cast(int, int(total) if total.is_integer() else total),
        lora_dropout=dropout,
        target_modules=names,
        modules_to_save=heads if train_head and heads else None,
        bias="none",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = cast(nn.Module, get_peft_model(cast(Any, model), config))
    for name, part in adapted.named_modules():
        if train_norms and (isinstance(part, nn.LayerNorm) or type(part).__name__.endswith("RMSNorm")):
            part.requires_grad_(True)
        bias = getattr(part, "bias", None)
        if train_norms and isinstance(part, nn.Linear) and isinstance(bias, nn.Parameter) and "lora_" not in name:
            bias.requires_grad_(True)
        if train_head and name.rsplit(".", 1)[-1] == "pooler":
            part.requires_grad_(True)
    for item in chosen if peaks else ():
        transposed = item.module.transposed if isinstance(item.module, CrossbarLinear) else item.transposed
        _hand_over(adapted.get_submodule(f"base_model.model.{item.name}"), cast(Any, peaks)[item.name], transposed)
    return adapted


def _common_rank(peaks: Mapping[str, Peaks], chosen: Sequence[StaticLinear]) -> int:
    """The rank of what is taken over, which must fit all layers with adapters."""
    rank = next(iter(peaks.values())).rank
    for item in chosen:
        shape = tuple(cast(nn.Parameter, item.module.weight).shape)
        part = peaks.get(item.name)
        if part is None or part.rank != rank or part.shape not in (shape, shape[::-1]):
            fail(
                "what an adapter is to take over has another size",
                key=item.name,
                value={"weight": shape, "rank": rank, "given": part and (*part.shape, part.rank)},
            )
    return rank


def _hand_over(adapter: Any, peaks: Peaks, transposed: bool) -> None:
    """Put `peaks` into the adapter's last columns, frozen, and take them off the weight."""
    layer, scaling = adapter.base_layer, adapter.scaling["default"]
    down, up = adapter.lora_A["default"].weight, adapter.lora_B["default"].weight
    rank = peaks.rank
    with torch.no_grad():
        down[-rank:] = peaks.down / scaling**0.5
        up[:, -rank:] = peaks.up / scaling**0.5
        product = scaling * (up[:, -rank:] @ down[-rank:])
        layer.weight.sub_(product.T if transposed else product)
    trained_down, trained_up = torch.ones_like(down), torch.ones_like(up)
    trained_down[-rank:], trained_up[:, -rank:] = 0.0, 0.0
    down.register_hook(lambda gradient: gradient * trained_down)
    up.register_hook(lambda gradient: gradient * trained_up)
    if isinstance(layer, CrossbarLinear):
        layer.program()


def train_adapters(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    *,
    steps: int,
    learning_rate: float = 1e-3,
    resample_every: int = 20,
    noisy: bool = True,
    fidelity: str = "surrogate",
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train what requires a gradient on batches that the model takes as keywords and returns a loss for; the losses.

    `resample_every` steps pass between two chip instances (0: the instance stays).  `noisy` False trains on the cells'
    exact weights: the adapters of an ideal device.  `fidelity` is that of :func:`tierform.numerics.set_fidelity`.
    `on_step(step, loss)` reports progress.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        fail("nothing is left to train: attach adapters first", key="model")
    if steps < 1 or resample_every < 0:
        fail("training needs at least one step", key="steps", value=(steps, resample_every))
    kept = [(layer, layer.noise) for layer in crossbar_layers(model)]
    fidelities = [(layer, layer.fidelity, layer.fresh) for layer, _ in kept]
    if not noisy:
        _set_noise(kept, None)
    set_fidelity(model, fidelity)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    schedule = one_cycle(optimizer, learning_rate, steps)
    losses: list[float] = []
    model.train()
    source = iter(batches)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            for step in range(steps):
                if noisy and resample_every and step % resample_every == 0:
                    new_chip_instance(model, TRAINING_INSTANCES + seed * 100_003 + step)
                try:
                    batch = next(source)
                except StopIteration:
                    fail("there are fewer batches than steps", key="steps", value=steps)
                loss = model(**batch).loss
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                schedule.step()
                losses.append(float(loss.detach()))
                if on_step is not None:
                    on_step(step, losses[-1])
        finally:
            model.eval()
            if not noisy:
                for layer, noise in kept:
                    layer.noise = noise
                    layer.program()
            for layer, fidelity, fresh in fidelities:
                layer.fidelity, layer.fresh = fidelity, fresh
    return losses


def _set_noise(layers: list[tuple[Any, Any]], noise: object) -> None:
    for layer, _ in layers:
        layer.noise = noise
        layer.program()
