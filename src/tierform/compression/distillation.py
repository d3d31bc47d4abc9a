"""A model with fewer layers that learns from the whole one: the teacher's probabilities are what it is trained on.

The student begins as the teacher without some layers (evenly taken; the first and last stay) and learns by AdamW on
the Kullback-Leibler divergence from the teacher's next-token probabilities; embeddings and head stay as they are.
Source: Hinton et al. (2015); Sanh et al., DistilBERT (2019), for beginning with the teacher's own layers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tierform.compression.sites import anatomy
from tierform.errors import fail
from tierform.numerics.tasks import one_cycle


def kept_layers(layers: int, kept: int) -> list[int]:
    """Which of `layers` layers stay: evenly spread, the first and the last among them."""
    if not 1 < kept < layers:
        fail(f"2 to {layers - 1} of the {layers} layers can stay", key="--layers", value=kept)
    return [round(index * (layers - 1) / (kept - 1)) for index in range(kept)]


def shallow(model: Any, kept: int) -> Any:
    """A copy of the model with `kept` of its layers."""
    parts = anatomy(model)
    chosen = kept_layers(len(parts.layers), kept)
    student = copy.deepcopy(model)
    layers = student.get_submodule(parts.prefix)
    student.set_submodule(parts.prefix, nn.ModuleList([layers[index] for index in chosen]))
    for number, layer in enumerate(student.get_submodule(parts.prefix)):
        for part in layer.modules():
            if hasattr(part, "layer_idx"):
                part.layer_idx = number
    config = student.config
    config.num_hidden_layers = kept
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[index] for index in chosen]
    return student


def distill(
    teacher: nn.Module,
    student: nn.Module,
    windows: Tensor,
    *,
    steps: int,
    batch: int = 4,
    learning_rate: float = 3e-4,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Train the student's layers, in place, on windows (count, length) of text."""
    if steps < 1:
        fail("at least one step is needed", key="--steps", value=steps)
    layers = anatomy(student).layers
    for parameter in student.parameters():
        parameter.requires_grad_(False)
    trained = list(layers.parameters())
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.01)
    schedule = one_cycle(optimizer, learning_rate, steps)
    generator = torch.Generator().manual_seed(seed)
    student.train()
    for step in range(steps):
        ids = windows[torch.randint(len(windows), (batch,), generator=generator)]
        with torch.no_grad():
            wanted = teacher(input_ids=ids).logits[:, :-1].float().log_softmax(-1)
        given = student(input_ids=ids).logits[:, :-1].float().log_softmax(-1)
        loss = (wanted.exp() * (wanted - given)).sum(-1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, float(loss.detach()))
    student.eval().requires_grad_(False)
