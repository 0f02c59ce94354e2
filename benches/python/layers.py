"""The same as in `src/layers.rs`: `layers.py LAYER WARMUP BLOCKS STEPS_PER_BLOCK RESULT`."""

import sys

import torch
from torch import nn

from stopwatch import Stopwatch


class Lstm(nn.LSTM):
    def forward(self, x):
        return super().forward(x)[0]


class Block(nn.Sequential):
    def forward(self, x):
        return (super().forward(x) + x).relu()


def lstm():
    return Lstm(64, 128, num_layers=2, batch_first=True), (32, 50, 64)


def encoder():
    layer = nn.TransformerEncoderLayer(128, 4, dim_feedforward=512, batch_first=True)
    return nn.TransformerEncoder(layer, 2), (16, 64, 128)


def resnet():
    conv, norm = (lambda: nn.Conv2d(64, 64, 3, padding=1, bias=False)), (lambda: nn.BatchNorm2d(64))
    return Block(conv(), norm(), nn.ReLU(), conv(), norm()), (16, 64, 28, 28)


def main():
    name, *plan, result = sys.argv[1:]
    torch.manual_seed(1)
    layer, size = {"lstm": lstm, "encoder": encoder, "resnet": resnet}[name]()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    x = torch.randn(size)
    stopwatch = Stopwatch(*map(int, plan))
    for _ in range(stopwatch.total_steps):
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        optimizer.step()
        stopwatch.step_ended()
    stopwatch.write(result)


if __name__ == "__main__":
    main()
