"""Optimizers on the sparse gradients of an embedding: 12 steps, with the state after 6 of them in files."""

import json
import sys
from pathlib import Path

import torch

folder, phase = Path(sys.argv[1]), sys.argv[2]
cases = json.loads(sys.argv[3])
for _, options in cases.values():
    if "betas" in options:
        options["betas"] = tuple(options["betas"])


def train(table, optimizer, steps, maximize):
    for step in steps:
        indices = torch.tensor([step * 2 % 6, (step * 3 + 1) % 6, step % 2])
        optimizer.zero_grad()
        rows = torch.nn.functional.embedding(indices, table, sparse=True)
        loss = (rows * torch.tensor([1.0, 0.5, -0.25]) - 0.3).pow(2).sum()
        (-loss if maximize else loss).backward()
        optimizer.step()


tables = {}
for name, (cls, options) in cases.items():
    # Our momentum is dense, which PyTorch's adds to a sparse gradient in every case but this one.
    if phase == "continue" and options.get("nesterov"):
        continue
    table = torch.nn.Parameter(torch.arange(18, dtype=torch.float32).view(6, 3) / 10 - 0.5)
    optimizer = getattr(torch.optim, cls)([table], **options)
    maximize = options.get("maximize", False)
    if phase == "train":
        train(table, optimizer, range(6), maximize)
        # PyTorch's sparse momentum cannot be saved by every reader of its files.
        if cls != "SGD":
            torch.save({"table": table.detach(), "optimizer": optimizer.state_dict()}, folder / f"{name}-theirs.pt")
        train(table, optimizer, range(6, 12), maximize)
    else:
        saved = torch.load(folder / f"{name}-ours.pt")
        with torch.no_grad():
            table.copy_(saved["table"])
        optimizer.load_state_dict(saved["optimizer"])
        train(table, optimizer, range(6, 12), maximize)
    tables[name] = table.flatten().tolist()
print(json.dumps(tables))
