"""The four applications of HpT as PyTorch modules: stations as tokens, a regression over all of them.

Sizes come from the library's models (hpt-swe, hpt-weather, hpt-covid, hpt-wind), so a module and the library's
description of it cannot drift apart.  Features of each station pass through dense layers to the width, sinusoids mark
the stations, then post-normalized ReLU encoder layers; the embedded input joins the stack's output (concatenated or
added), dense layers narrow every token, a dense decoder reads all of them.  The published code's accidents of tensor
shapes (one position for all tokens; attention over a batch of single stations) are not repeated: each sample is one
sequence of all stations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from tierform.errors import fail
from tierform.registry import Registry
from tierform.tuning.lowrank import LowRank
from tierform.workload.models import Model, load_model


@dataclass(frozen=True, slots=True)
class Application:
    """One of HpT's applications: its library model, and how it is trained.

    `window` is the check window in steps, `layer` the layer whose query and value weights are watched; learning rates
    are of the full and of the low-rank phase; `decay` is (epochs, factor) of the full phase's step schedule, if any.
    """

    name: str
    model: str
    window: int
    layer: int
    epochs: int
    steps_per_epoch: int | None
    learning_rate: float
    low_learning_rate: float
    optimizer: str
    decay: tuple[int, float] | None = None


ALSO_TRAIN = ("embedding", "reduction", "decoder")
_ALL = (
    Application(
        name="swe",
        model="hpt-swe",
        window=365,
        layer=11,
        epochs=24,
        steps_per_epoch=3510,
        learning_rate=1e-4,
        low_learning_rate=1e-4,
        optimizer="adamw",
        decay=(3, 0.6),
    ),
    Application(
        name="weather",
        model="hpt-weather",
        window=8000,
        layer=11,
        epochs=22,
        steps_per_epoch=None,
        learning_rate=1e-4,
        low_learning_rate=1e-4,
        optimizer="adamw",
        decay=(3, 0.6),
    ),
    Application(
        name="covid",
        model="hpt-covid",
        window=720,
        layer=0,
        epochs=20,
        steps_per_epoch=None,
        learning_rate=1e-5,
        low_learning_rate=1e-5,
        optimizer="adam",
    ),
    Application(
        name="wind",
        model="hpt-wind",
        window=480,
        layer=0,
        epochs=24,
        steps_per_epoch=None,
        learning_rate=1e-6,
        low_learning_rate=1e-4,
        optimizer="adam",
    ),
)

APPLICATIONS = Registry("application", "tierform.applications", {})
for _one in _ALL:
    APPLICATIONS.register(_one.name, _one)


def low_rank_settings(**changes: object) -> LowRank:
    """Low-rank mode as in the published code: rank 8, alpha 64, dropout 0.1 on queries and values, dense ends learn."""
    return LowRank(**{"also_train": ALSO_TRAIN, **changes})  # type: ignore[arg-type]


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear, self.k_linear = nn.Linear(width, width), nn.Linear(width, width)
        self.v_linear, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        shape = (batch, tokens, self.heads, width // self.heads)
        q, k, v = (f(x).view(shape).transpose(1, 2) for f in (self.q_linear, self.k_linear, self.v_linear))
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)
        values = self.dropout(torch.softmax(scores, dim=-1)) @ v
        joined: Tensor = self.out(values.transpose(1, 2).reshape(batch, tokens, width))
        return joined


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.attention = _Attention(width, heads, dropout)
        self.up, self.down = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_1(x + self.dropout(self.attention(x)))
        y: Tensor = self.norm_2(x + self.dropout(self.down(self.dropout(torch.relu(self.up(x))))))
        return y


class SpatioTemporalTransformer(nn.Module):
    """Input (batch, stations, features), output (batch, outputs of the decoder)."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        if model.family != "hpt":
            fail("a spatio-temporal encoder is needed", key="model", value=model.name, fix="One of the hpt- models.")
        width, self.skip = model.hidden_size, model.skip
        self.tokens, self.features = model.fixed_tokens, model.input_size
        self.embedding = _dense(model.input_size, (*model.embedding_widths, width))
        layers = [_Layer(width, model.heads, model.ffn_size, model.dropout) for _ in range(model.layers)]
        self.layers = nn.ModuleList(layers)
        joined = width if model.skip == "add" else 2 * width
        self.reduction = _dense(joined, model.reduction_widths)
        self.decoder = _dense(model.fixed_tokens * model.reduction_widths[-1], model.decoder_widths)
        self.dropout = nn.Dropout(model.embedding_dropout)
        self.places: Tensor
        self.register_buffer("places", sinusoids(model.fixed_tokens, width), persistent=False)

    def forward(self, stations: Tensor) -> Tensor:
        """The decoder's outputs for a batch."""
        embedded = stations
        for dense in self.embedding:
            embedded = functional.gelu(dense(embedded))
        x: Tensor = self.dropout(embedded + self.places)
        for layer in self.layers:
            x = layer(x)
        x = x + embedded if self.skip == "add" else torch.cat((x, embedded), dim=-1)
        for dense in self.reduction:
            x = torch.relu(dense(x))
        x = x.flatten(1)
        for index, dense in enumerate(self.decoder):
            x = dense(x)
            if index + 1 < len(self.decoder):
                x = functional.gelu(x)
        return x


def _dense(inputs: int, widths: tuple[int, ...]) -> nn.ModuleList:
    sizes = (inputs, *widths)
    return nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))


def sinusoids(tokens: int, width: int) -> Tensor:
    """Sines and cosines of a token's number, shape (tokens, width)  (Vaswani et al., 2017)."""
    place = torch.arange(tokens, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    table = torch.zeros(tokens, width)
    table[:, 0::2], table[:, 1::2] = torch.sin(place * rate), torch.cos(place * rate)
    return table


def build(name: str, seed: int = 0) -> SpatioTemporalTransformer:
    """The module of a registered application, its weights drawn from `seed`."""
    application: Application = APPLICATIONS.get(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SpatioTemporalTransformer(load_model(application.model))
