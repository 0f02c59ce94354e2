"""DistributedDataParallel on two processes with Gloo. Prints each case's losses of both ranks, and the final weights."""

import json
import os
import socket
import subprocess
import sys

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

RANKS = 2
STEPS = 10
SAMPLES = 16

CASES = {
    "sgd": {},
    "adam": {},
    "small_buckets": {"ddp": {"bucket_cap_mb": 0.0005}},
    "bucket_views": {"ddp": {"gradient_as_bucket_view": True}},
    "find_unused": {"ddp": {"find_unused_parameters": True}},
    "static_graph": {"ddp": {"static_graph": True}},
    "fp16": {"hook": default_hooks.fp16_compress_hook},
    "bf16": {"hook": default_hooks.bf16_compress_hook},
    "no_sync": {"accumulate": 2},
}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        shapes = [(8, 40), (40,), (40, 3), (3,)]
        self.weights = torch.nn.ParameterList([torch.nn.Parameter(torch.randn(shape) * 0.3) for shape in shapes])

    def forward(self, x):
        a, b, c, d = self.weights
        return (x @ a + b).tanh() @ c + d


def samples():
    torch.manual_seed(8)
    return torch.randn(STEPS, RANKS * SAMPLES, 8), torch.randn(STEPS, RANKS * SAMPLES, 3)


def train(name, rank, ddp=None, hook=None, accumulate=1):
    net = Net()
    model = DistributedDataParallel(net, **(ddp or {}))
    if hook:
        model.register_comm_hook(None, hook)
    parameters = list(net.parameters())
    if name == "adam":
        optimizer = torch.optim.Adam(parameters, lr=0.01)
    else:
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    losses = []
    xs, ys = samples()
    for step in range(STEPS):
        share = slice(rank * SAMPLES, (rank + 1) * SAMPLES)
        syncs = (step + 1) % accumulate == 0
        model.require_backward_grad_sync = syncs
        loss = (model(xs[step, share]) - ys[step, share]).square().mean()
        loss.backward()
        losses.append(loss.item())
        if syncs:
            optimizer.step()
            optimizer.zero_grad()
    return losses, torch.cat([p.detach().flatten() for p in parameters]).tolist()


def work(rank, port):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    results = {name: train(name, rank, **options) for name, options in CASES.items()}
    dist.destroy_process_group()
    print(json.dumps(results))


def main():
    if len(sys.argv) > 1:
        work(int(sys.argv[1]), int(sys.argv[2]))
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__]
    processes = [
        subprocess.Popen([*command, str(rank), str(port)], stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
        for rank in range(RANKS)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a rank failed")
    ranks = [json.loads(output.splitlines()[-1]) for output in outputs]
    print(json.dumps({name: {"losses": [r[name][0] for r in ranks], "weights": ranks[0][name][1]} for name in CASES}))


if __name__ == "__main__":
    main()
