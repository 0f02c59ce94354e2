"""Layers, losses and initial values of `torch.nn`: `nn.py FOLDER` computes the cases of nn_cases.py and nn_sequences.py.

Prints what can be said of each in JSON, and writes its tensors to FOLDER/tensors.pt, one dict for each case.

A layer is created after `torch.manual_seed`, and run twice in training and once in evaluation, each time after a seed and with inputs
of its own. Each run has the gradients of inputs and parameters for given gradients of the outputs.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

import nn_cases
import nn_sequences
from nn_cases import generator

SEED = 7
PASSES = ("train", "train", "eval")


def plain(value):
    """An option for JSON; weights of classes have their numbers there."""
    if isinstance(value, torch.Tensor):
        return {"shape": list(value.shape), "values": value.flatten().tolist()}
    return list(value) if isinstance(value, tuple) else value


def flattened(output):
    """The tensors of an output, in order."""
    if isinstance(output, torch.Tensor):
        return [output]
    return [] if output is None else [tensor for part in output for tensor in flattened(part)]


def run(module, case, mode, seed):
    inputs = [x if x is None else x.to(case.dtype) if x.is_floating_point() else x for x in case.inputs()]
    for x in inputs[: case.differentiable]:
        if x is not None and x.is_floating_point():
            x.requires_grad_()
    given = [x if x is None else x.detach().clone() for x in inputs]
    module.train(mode == "train")
    # On the other side gradients of zeros stay.
    module.zero_grad(set_to_none=False)
    torch.manual_seed(seed)
    outputs = flattened(case.call(module, *inputs))
    drawn = torch.rand(2)
    cotangents = [torch.randn(y.shape, generator=generator).to(y.dtype) if y.requires_grad else None for y in outputs]
    pairs = [(y, g) for y, g in zip(outputs, cotangents) if g is not None]
    if pairs:
        torch.autograd.backward(*zip(*pairs))
    dense = lambda g: g.to_dense() if g.is_sparse else g.clone()
    return {
        "inputs": given,
        "outputs": [y.detach() for y in outputs],
        "cotangents": cotangents,
        "input_gradients": [None if x is None else x.grad for x in inputs],
        "gradients": {name: dense(p.grad) for name, p in module.named_parameters() if p.grad is not None},
        "drawn": drawn,
    }


def state(module):
    """A state dict. The weights of a loss are buffers in PyTorch, and options on the other side."""
    if isinstance(module, nn.modules.loss._Loss):
        return {}
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def compute(case):
    said = {
        "name": case.name,
        "args": [plain(value) for value in case.args],
        "options": {name: plain(value) for name, value in case.options.items()},
        "call": case.said,
        "dtype": str(case.dtype)[6:],
    }
    tensors = {}
    try:
        torch.manual_seed(SEED)
        module = case.create()
        tensors["drawn"] = torch.rand(2)
        tensors["initial"] = state(module)
        said["repr"] = repr(module)
        module.to(case.dtype)
        said["parameters"] = [name for name, _ in module.named_parameters()]
        tensors["passes"] = []
        for at, mode in enumerate(PASSES):
            tensors["passes"].append(run(module, case, mode, SEED + at))
        tensors["final"] = state(module)
    except Exception as error:
        if not case.fails:
            raise RuntimeError(f"{said}") from error
        said["error"] = f"{type(error).__name__}: {error}"[:200]
        tensors.setdefault("passes", []).append({"inputs": case.inputs()})
    return said, tensors


def initialize(function, shape, options):
    said = {"function": function, "shape": list(shape), "options": options}
    tensor = torch.full(shape, 7.0)
    torch.manual_seed(SEED)
    try:
        getattr(nn.init, function)(tensor, **options)
    except Exception as error:
        said["error"] = f"{type(error).__name__}: {error}"[:200]
    return said, {"values": tensor, "drawn": torch.rand(2)}


def packed(tree):
    """The same tensors as views of one for each kind, as a file of many is slow to write and to read."""
    found = {}

    def collect(x):
        if isinstance(x, torch.Tensor):
            found.setdefault(x.dtype, []).append(x)
        elif isinstance(x, (dict, list)):
            for part in x.values() if isinstance(x, dict) else x:
                collect(part)

    def replaced(x):
        if isinstance(x, torch.Tensor):
            return next(views[x.dtype])
        if isinstance(x, dict):
            return {key: replaced(part) for key, part in x.items()}
        return [replaced(part) for part in x] if isinstance(x, list) else x

    collect(tree)
    views = {}
    for dtype, tensors in found.items():
        flat = torch.cat([x.detach().flatten() for x in tensors]).split([x.numel() for x in tensors])
        views[dtype] = iter([part.view(x.shape) for part, x in zip(flat, tensors)])
    return replaced(tree)


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    layers = [compute(case) for case in nn_cases.cases + nn_sequences.cases]
    inits = [initialize(*case) for case in nn_cases.initializations()]
    gains = [[name, slope, nn.init.calculate_gain(name, slope)] for name, slope in nn_cases.gains]
    tensors = {"layers": [tensors for _, tensors in layers], "inits": [tensors for _, tensors in inits]}
    torch.save(packed(tensors), Path(sys.argv[1]) / "tensors.pt")
    print(json.dumps({"layers": [said for said, _ in layers], "inits": [said for said, _ in inits], "gains": gains}))


if __name__ == "__main__":
    main()
