"""A task in the published form without any file: a ViT pre-trained without labels, then fine-tuned on tilted digits.

scikit-learn's 1,797 scanned digits (8 x 8, real images) are tilted by up to 20 degrees, shifted by up to half a pixel,
scaled, made fainter and given pixel noise: `copies` draws of each image.  1,000 images are for training, 297 for
choosing settings (`valid`), 500 for testing; copies of one image are never in two parts.  A small ViT first learns from
the training images, without labels, to give back the image as it was before (a denoising autoencoder, its class token
the code).  Then the first `labelled` of them are for fine-tuning: as usual there are fewer labels than examples.  The
head for the ten digits is new and is what fine-tuning trains beside the adapters.

Limits: the copies of an image are not independent examples.  Sources: Vincent et al. (ICML 2008), for the objective.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tierform.errors import fail
from tierform.numerics.tasks import TaskSet, one_cycle, scanned_digits

if TYPE_CHECKING:
    from transformers import ViTConfig


TRAINING, CHOOSING = 1000, 297


def distort(images: Tensor, copies: int, generator: torch.Generator, *, noise: float = 0.1) -> Tensor:
    """`copies` distorted draws of images (N, 1, 8, 8) in [-1, 1], copy after copy: (copies * N, 1, 8, 8)."""
    many = images.repeat(copies, 1, 1, 1)
    count = len(many)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle, size = uniform(-20, 20) * math.pi / 180, uniform(0.9, 1.15)
    turn = torch.stack([angle.cos() * size, -angle.sin() * size, angle.sin() * size, angle.cos() * size], 1)
    shift = torch.stack([uniform(-0.125, 0.125), uniform(-0.125, 0.125)], 1)  # half a pixel; the width is 2
    grid = nn.functional.affine_grid(
        torch.cat([turn.view(-1, 2, 2), shift[:, :, None]], 2), list(many.shape), align_corners=False
    )
    # Ink is counted from 0, so that what comes in from outside is paper.
    ink = nn.functional.grid_sample((many + 1) / 2, grid, align_corners=False)
    ink = ink * uniform(0.6, 1.0)[:, None, None, None]
    return 2 * ink - 1 + noise * torch.randn(many.shape, generator=generator)


def tilted_digits(*, layers: int = 4, hidden: int = 64, copies: int = 4, labelled: int = 200) -> TaskSet:
    """Which digit is in a distorted 8 x 8 image?"""
    images, labels = scanned_digits()
    generator = torch.Generator().manual_seed(1)

    def part(first: int, last: int, times: int) -> dict[str, Tensor]:
        return {
            "pixel_values": distort(images[first:last], times, generator),
            "labels": labels[first:last].repeat(times),
        }

    ends = TRAINING, TRAINING + CHOOSING
    if not 1 <= labelled <= TRAINING:
        fail("so many images have labels", key="labelled", value=labelled, fix=f"1 to {TRAINING}.")
    known = torch.arange(4 * copies * TRAINING) % TRAINING < labelled
    train = {key: values[known] for key, values in part(0, ends[0], 4 * copies).items()}

    def config(**more: Any) -> ViTConfig:
        from transformers import ViTConfig

        return ViTConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=4 * hidden,
            image_size=8,
            patch_size=2,
            num_channels=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **more,
        )

    def pretrained(steps: int, seed: int, on_step: Callable[[int, float], None] | None) -> nn.Module:
        from transformers import ViTForImageClassification

        model = ViTForImageClassification(config(num_labels=10))
        restore(model.vit, nn.Linear(hidden, 64), images[:TRAINING], steps, seed, on_step)
        return model

    return TaskSet(
        "tilted-digits",
        "images",
        train,
        part(ends[1], len(labels), copies),
        learning_rate=2e-3,
        valid=part(*ends, copies),
        pretrained=pretrained,
    )


def restore(
    model: nn.Module,
    decoder: nn.Module,
    images: Tensor,
    steps: int,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
    *,
    batch: int = 64,
    learning_rate: float = 3e-3,
) -> None:
    """Train a ViT whose class token, read by a linear `decoder`, is the image before it was distorted."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [*model.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    schedule = one_cycle(optimizer, learning_rate, steps)
    model.train()
    for step in range(steps):
        clean = images[torch.randint(len(images), (batch,), generator=generator)]
        seen = model(pixel_values=distort(clean, 1, generator)).last_hidden_state[:, 0]
        loss: Any = nn.functional.mse_loss(decoder(seen), clean.flatten(1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step, float(loss.detach()))
