"""The three models, the same as in `src/models.rs`."""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

VOCABULARY, CONTEXT, WIDTH, HEADS, LAYERS = 256, 128, 128, 4, 4
DISTINCT_BATCHES = 8


def classifier(*layers):
    net = nn.Sequential(*layers)
    net.loss = lambda batch: F.cross_entropy(net(batch[0]), batch[1])
    net.batch = lambda: (torch.randn(64, 1, 28, 28), torch.randint(10, (64,)))
    return net


def mlp():
    return classifier(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def cnn():
    convolutions = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return classifier(*convolutions, nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.projection = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def attention(self, x):
        batch, time, width = x.size()
        heads = (part.view(batch, time, HEADS, width // HEADS).transpose(1, 2) for part in self.qkv(x).split(width, 2))
        y = F.scaled_dot_product_attention(*heads, is_causal=True)
        return self.projection(y.transpose(1, 2).contiguous().view(batch, time, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.size(1)))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def loss(self, batch):
        return F.cross_entropy(self(batch[0]).view(-1, VOCABULARY), batch[1].view(-1))

    def batch(self):
        text = torch.randint(VOCABULARY, (16, CONTEXT + 1))
        return text[:, :-1].contiguous(), text[:, 1:].contiguous()


MODELS = {"mlp": mlp, "cnn": cnn, "gpt": Gpt}


def batches(model, count):
    """So many batches: a few distinct ones in turn."""
    distinct = [model.batch() for _ in range(DISTINCT_BATCHES)]
    return list(itertools.islice(itertools.cycle(distinct), count))
