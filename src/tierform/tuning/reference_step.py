"""How much longer do kernels take in a training step than alone?  One reference step, measured and simulated.

Kernels that `calibrate` measures one by one find their neighbours' tensors in caches and the allocator warm; in a step
each finds what the others left.  The ratio of a measured step to the simulated one of the same chip is written into the
chip (`in_step_time`).  The step is of two post-normalized encoder layers that are nobody's application: its sizes were
chosen before anything was compared, and never after.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tierform.chip.description import Chip, load_chip
from tierform.chip.gpu.measure import Pace
from tierform.simulation.simulate import simulate
from tierform.tuning.lowrank import LowRank, attach, target_modules
from tierform.tuning.predict import step_of
from tierform.tuning.side import optimizer

WIDTH, HEADS, INNER, LAYERS, TOKENS, BATCH = 256, 4, 1024, 2, 96, 2
REPEATS, WAITS = 21, 300


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Attention and FFN, each followed by residual and normalization."""
        batch, tokens, _ = x.shape
        q, k, v = (f(x).view(batch, tokens, HEADS, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = self.dropout(torch.softmax(q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5, -1))
        x = self.first(x + self.dropout(self.o((weights @ v).transpose(1, 2).reshape(x.shape))))
        y: Tensor = self.second(x + self.dropout(self.down(nn.functional.gelu(self.up(x)))))
        return y


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer() for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        """All layers."""
        for layer in self.layers:
            x = layer(x)
        return x


def _loss(model: nn.Module, batch: Tensor) -> Tensor:
    loss: Tensor = (model(batch) ** 2).mean()
    return loss


def in_step_ratio(chip: Path | Chip, pace: Pace | None = None) -> float:
    """Measured over simulated seconds of the reference step, full and low-rank together, of a chip just calibrated.

    `pace` is that of the chip's calibration, whose quiet moments count here, too.
    """
    torch.manual_seed(0)
    loaded = load_chip(chip) if isinstance(chip, Path) else chip
    full, low = _Net(), _Net()
    settings = LowRank(targets=("q", "v"))
    attach(low, settings, dict.fromkeys(target_modules(low, settings.targets), 8))
    batch = torch.randn(BATCH, TOKENS, WIDTH)
    pace = pace or Pace.of_processor()
    measured = simulated = 0.0
    for module in (full, low):
        measured += _measured_s(module, batch, pace)
        step = step_of(module, _loss, batch, "adamw", loaded)
        simulated += simulate(step, None, loaded, thermal="none").latency_s
    return measured / simulated


def _measured_s(module: nn.Module, batch: Tensor, pace: Pace) -> float:
    made = optimizer("adamw", 1e-5)([one for one in module.parameters() if one.requires_grad])
    module.train()

    def step() -> None:
        _loss(module, batch).backward()  # type: ignore[no-untyped-call]
        made.step()
        made.zero_grad(set_to_none=True)

    for _ in range(3):
        step()
    return pace.median_s(step, least=REPEATS, waits=WAITS)
