"""Tasks: what is done with a model.

:class:`Inference` (prefill, decode with a growing KV cache, or both), :class:`FineTuning` and :class:`Training`, with
the method that says which parameters learn: :class:`Full`, :class:`LoRA`, :class:`QLoRA`, :class:`Adapters`,
:class:`BitFit`, :class:`LastLayers`.  A training task is one optimizer step; `steps` scales totals and lifetime.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from tierform.errors import Problem, TierformError, nearest
from tierform.workload.precision import PrecisionPlan

TARGETS = ("q", "k", "v", "o", "up", "gate", "down")
SAVABLE = ("embedding", "head", "normalization")
OPTIMIZERS = ("adamw", "sgd", "sgd-momentum")
RECOMPUTATIONS = ("none", "selective", "full")


@dataclass(frozen=True, slots=True)
class Full:
    """Every parameter learns."""


@dataclass(frozen=True, slots=True)
class LoRA:
    """Low-rank adapters beside frozen matrices: W x + B A x with A (rank, in), B (out, rank)  (Hu et al., 2021).

    `modules_to_save` names parts that learn fully beside the adapters: embedding, head, normalization.
    """

    rank: int = 8
    targets: tuple[str, ...] = ("q", "v")
    modules_to_save: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_positive(self, "rank")
        _check_targets(self.targets)
        for name in self.modules_to_save:
            _check_choice(name, SAVABLE, "modules_to_save")


@dataclass(frozen=True, slots=True)
class QLoRA:
    """LoRA beside weights quantized to `weights`, dequantized for each product  (Dettmers et al., 2023)."""

    rank: int = 8
    targets: tuple[str, ...] = ("q", "v")
    weights: str = "nf4"

    def __post_init__(self) -> None:
        _check_positive(self, "rank")
        _check_targets(self.targets)


@dataclass(frozen=True, slots=True)
class Adapters:
    """Two bottleneck layers in every block, after attention and after the FFN  (Houlsby et al., 2019)."""

    bottleneck: int = 64

    def __post_init__(self) -> None:
        _check_positive(self, "bottleneck")


@dataclass(frozen=True, slots=True)
class BitFit:
    """Only biases (and normalization shifts) learn  (Ben Zaken et al., 2021)."""


@dataclass(frozen=True, slots=True)
class LastLayers:
    """Only the last `layers` blocks and the head learn; nothing propagates below them."""

    layers: int = 2

    def __post_init__(self) -> None:
        _check_positive(self, "layers")


Method = Full | LoRA | QLoRA | Adapters | BitFit | LastLayers


@dataclass(frozen=True, slots=True)
class Inference:
    """`batch` prompts of `sequence` tokens, then `decode` generated tokens each; `prefill` may be left out."""

    batch: int = 1
    sequence: int = 512
    decode: int = 0
    prefill: bool = True
    precision: PrecisionPlan = field(default_factory=lambda: PrecisionPlan(master_weights=None))

    def __post_init__(self) -> None:
        _check_positive(self, "batch", "sequence")
        _check_positive(self, "decode", minimum=0)


@dataclass(frozen=True, slots=True)
class FineTuning:
    """One optimizer step of adapting a trained model, on `batch` sequences of `sequence` tokens."""

    method: Method = field(default_factory=Full)
    batch: int = 1
    sequence: int = 512
    steps: int = 1
    optimizer: Literal["adamw", "sgd", "sgd-momentum"] = "adamw"
    gradient_accumulation: int = 1
    recomputation: Literal["none", "selective", "full"] = "none"
    precision: PrecisionPlan = field(default_factory=PrecisionPlan)

    def __post_init__(self) -> None:
        _check_positive(self, "batch", "sequence", "steps", "gradient_accumulation")
        _check_choice(self.optimizer, OPTIMIZERS, "optimizer")
        _check_choice(self.recomputation, RECOMPUTATIONS, "recomputation")


@dataclass(frozen=True, slots=True)
class Training(FineTuning):
    """One optimizer step of training from random weights; the same computation as full fine-tuning."""


Task = Inference | FineTuning | Training


def is_training(task: Task) -> bool:
    """True for tasks with a backward pass."""
    return isinstance(task, FineTuning)


def _check_positive(owner: object, *names: str, minimum: int = 1) -> None:
    problems = []
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            problems.append(Problem(f"must be a whole number of at least {minimum}", key=name, value=value))
    if problems:
        raise TierformError(problems)


def _check_targets(targets: tuple[str, ...]) -> None:
    unknown = [target for target in targets if target not in TARGETS]
    if unknown or not targets:
        raise TierformError(
            [
                Problem(
                    "not a matrix that can be a target",
                    key="targets",
                    value=target,
                    nearest=nearest(str(target), TARGETS),
                    fix=f"Targets: {', '.join(TARGETS)}.",
                )
                for target in unknown
            ]
            or [Problem("at least one target is needed", key="targets", fix=f"Targets: {', '.join(TARGETS)}.")]
        )


def _check_choice(value: str, choices: tuple[str, ...], key: str) -> None:
    if value not in choices:
        raise TierformError(
            [
                Problem(
                    "not a known choice",
                    key=key,
                    value=value,
                    nearest=nearest(str(value), choices),
                    fix=f"Choose one of {', '.join(choices)}.",
                )
            ]
        )


def describe(task: Task) -> dict[str, object]:
    """The task as plain data, for reports and JSON."""
    result: dict[str, object] = {"task": type(task).__name__}
    for item in fields(task):
        value = getattr(task, item.name)
        if hasattr(value, "__dataclass_fields__"):
            value = {"name": type(value).__name__, **{f.name: getattr(value, f.name) for f in fields(value)}}
        result[item.name] = value
    return result
