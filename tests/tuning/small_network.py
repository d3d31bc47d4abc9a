"""A network small enough to train in a test, its loss and its batches."""

import torch
from torch import nn


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.q_linear, self.v_linear = nn.Linear(width, width), nn.Linear(width, width)
        self.out, self.dropout = nn.Linear(width, width), nn.Dropout(0.1)

    def forward(self, x):
        return x + self.dropout(self.out(torch.tanh(self.q_linear(x)) * self.v_linear(x)))


class Small(nn.Module):
    def __init__(self, width=16, layers=3):
        super().__init__()
        self.start = nn.Linear(4, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))
        self.end = nn.Linear(width, 1)

    def forward(self, x):
        x = self.start(x)
        for layer in self.layers:
            x = layer(x)
        return self.end(x)


def mse(model, batch):
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def small_batch(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 4, generator=generator)
    return x, torch.sin(x.sum(1, keepdim=True)) + 0.3 * torch.randn(16, 1, generator=generator)
