"""safetensors in both directions: `tensor_files.py OURS THEIRS TIED`.

Reads OURS, and prints for each tensor its kind, shape and values as doubles, and the metadata; writes THEIRS with
`save_file`, and TIED with `save_model` of a module whose two layers share their weight.
"""

import json
import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file, save_model

KINDS = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.float8_e5m2,
    torch.float8_e4m3fn,
]


def values(tensor):
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.to(torch.float64).flatten().tolist()


def main():
    ours, theirs, tied = sys.argv[1:]
    with safe_open(ours, "pt") as file:
        metadata = file.metadata()
    read = {name: [str(t.dtype), list(t.shape), values(t)] for name, t in load_file(ours).items()}
    base = torch.tensor([[0.0, 1.0, 2.0], [-4.0, 0.5, 100.0]])
    tensors = {str(kind): base.abs().to(kind) for kind in KINDS}
    save_file({**tensors, "number": torch.tensor(2.5)}, theirs, metadata={"format": "pt"})
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[1].weight = model[0].weight
    save_model(model, tied)
    print(json.dumps({"read": read, "metadata": metadata, "tied": values(model[0].weight)}))


if __name__ == "__main__":
    main()
