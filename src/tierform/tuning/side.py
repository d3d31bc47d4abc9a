"""One model in training: module, optimizer and schedule, and how they are kept, restored and let go.

A trainer holds one side, or two during a trial.  Optimizers are made by functions, so that each side gets its own; on
CPU and CUDA PyTorch's fused kernels are used, which pass once over weights, gradients and states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from tierform.errors import fail
from tierform.tuning.checkpoint_check import plain_state

MakeOptimizer = Callable[[Any], torch.optim.Optimizer]
MakeSchedule = Callable[[torch.optim.Optimizer], Any]


def optimizer(kind: str = "adamw", learning_rate: float = 1e-4, **options: Any) -> MakeOptimizer:
    """A maker of an adamw, adam or sgd optimizer, with PyTorch's fused kernel unless `options` say otherwise."""
    kinds: dict[str, Any] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    if kind not in kinds:
        fail("not a known optimizer", key="optimizer", value=kind, choices=kinds, fix=f"Known: {', '.join(kinds)}.")

    def make(parameters: Any) -> torch.optim.Optimizer:
        listed = list(parameters)
        one_kernel = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in listed)
        return kinds[kind](listed, lr=learning_rate, **({"fused": one_kernel} | options))  # type: ignore[no-any-return]

    return make


ADAMW = optimizer()  # AdamW at 1e-4


class Side:
    """One model in training: the plain module, its wrapped form, optimizer and schedule."""

    def __init__(
        self, plain: nn.Module, wrapped: Any, optimizer: torch.optim.Optimizer, schedule: LRScheduler | None
    ) -> None:
        self.plain, self.wrapped, self.optimizer, self.schedule = plain, wrapped, optimizer, schedule

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "model": self.plain.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": plain_state(self.schedule),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.plain.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None and state["schedule"] is not None:
            self.schedule.load_state_dict(state["schedule"])

    def release(self) -> None:
        """Let go of gradients and optimizer states."""
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self.optimizer.param_groups.clear()


def on_device(batch: object, device: torch.device) -> Any:
    """A batch of tensors, dicts, lists and tuples of them, on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: on_device(one, device) for key, one in batch.items()}
    if isinstance(batch, (list, tuple)):
        return tuple(on_device(one, device) for one in batch)
    return batch


def fingerprint(model: nn.Module) -> str:
    """A digest of the names, shapes and types of a module's parameters."""
    text = repr([(name, tuple(one.shape), str(one.dtype)) for name, one in model.named_parameters()])
    return hashlib.sha256(text.encode()).hexdigest()


def accelerated() -> Any:
    """Accelerate's way to devices and processes; mixed precision is refused."""
    from accelerate import Accelerator

    made = Accelerator()
    if made.mixed_precision != "no":
        fail(
            "mixed precision is not accelerate's affair here",
            key="mixed_precision",
            value=made.mixed_precision,
            fix="Use torch.autocast inside the loss function.",
        )
    return made


def mean(value: Tensor, accelerator: Any) -> float:
    """A loss, its mean over all processes."""
    value = value.detach().float()
    if accelerator.num_processes > 1:
        value = accelerator.reduce(value, "mean")
    return float(value)
