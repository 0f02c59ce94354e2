"""Lightning's model summary, and torch's FLOP counts, of models that the Rust side builds too."""

import json
import logging
import warnings

import torch
from lightning.fabric.utilities.throughput import measure_flops
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_summary import ModelSummary
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten


def count_attention_on_cpu():
    """PyTorch 2.11 counts attention on GPUs alone; later versions count it on CPUs as well, and so do we."""

    def forward(query, key, value, *args, **kwargs):
        return sdpa_flop_count(*(x.shape for x in (query, key, value)))

    def backward(grad_out, query, key, value, *args, **kwargs):
        return sdpa_backward_flop_count(*(x.shape for x in (grad_out, query, key, value)))

    flop_registry.setdefault(aten._scaled_dot_product_flash_attention_for_cpu, forward)
    flop_registry.setdefault(aten._scaled_dot_product_flash_attention_for_cpu_backward, backward)


count_attention_on_cpu()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(32, 96)
        self.out = nn.Linear(32, 32)

    def forward(self, x):
        q, k, v = (part.unflatten(2, (4, 8)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.attn = Attention()

    def forward(self, x):
        return x + self.attn(self.norm(x))


class Mlp(LightningModule):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 128)
        self.fc2 = nn.Linear(128, 10, bias=False)
        self.scale = nn.Parameter(torch.ones(3))
        self.fc1.requires_grad_(False)
        self.example_input_array = torch.zeros(32, 784)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class Cnn(LightningModule):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, groups=2, bias=False)
        self.up = nn.ConvTranspose2d(16, 4, 4, stride=2)
        self.head = nn.Linear(4 * 14 * 14, 10)
        self.example_input_array = torch.zeros(2, 1, 14, 14)

    def forward(self, x):
        return self.head(self.up(torch.relu(self.conv2(self.norm(self.conv1(x))))).flatten(1))


class Gpt(LightningModule):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(50, 32)
        self.block = Block()
        self.head = nn.Linear(32, 50, bias=False)
        self.example_input_array = torch.zeros(2, 7, dtype=torch.int64)

    def forward(self, x):
        return self.head(self.block(self.wte(x)))


class Layers(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 4)
        )
        self.dropout = nn.Dropout(0.1)
        self.rnn = nn.LSTM(4, 8, num_layers=2)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.GELU(), nn.Linear(8, 2)))
        self.dropout.eval()


def layers(depth):
    """What layers are, of which some have no parameters, and their modes."""
    summary = ModelSummary(Layers(), max_depth=depth)
    return {
        "layers": [
            [name, layer.layer_type, layer.num_parameters, "train" if layer.training else "eval"]
            for name, layer in summary._layer_summary.items()
        ],
        # Without the operations, which nobody counted.
        "footer": str(summary).split("\n")[-7:-1],
    }


def rows(model, depth):
    summary = ModelSummary(model, max_depth=depth)
    modules = dict(model.named_modules())
    return {
        "layers": [
            {
                "name": name,
                "type": layer.layer_type if not any(True for _ in modules[name].children()) else None,
                "params": layer.num_parameters,
                "flops": sum(summary.flop_counts[name].values()),
                "in": layer.in_size,
                "out": layer.out_size,
            }
            for name, layer in summary._layer_summary.items()
        ],
        # The rows differ in names of containers and in modes; these lines are to be the same.
        "footer": str(summary).split("\n")[-7:],
        "header": [cell.strip() for cell in str(summary).split("\n")[0].split("|")],
    }


def main():
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    results = {}
    for name, make in (("mlp", Mlp), ("cnn", Cnn), ("gpt", Gpt)):
        model = make()
        results[name] = {
            "summary": rows(model, -1),
            "forward": measure_flops(model, lambda: model(model.example_input_array)),
            "both": measure_flops(model, lambda: model(model.example_input_array), lambda y: y.sum()),
        }
    results["layers"] = [layers(depth) for depth in (1, 2, -1)]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
