"""Clipping as torch.nn.utils does it, on gradients drawn from a seed. Prints every element bit by bit."""

import json

import torch

SHAPES = [[3, 4], [5], [], [7, 2, 2]]


def parameters(seed):
    torch.manual_seed(seed)
    parameters = []
    for shape in SHAPES:
        parameter = torch.zeros(shape, requires_grad=True)
        parameter.grad = torch.randn(shape)
        parameters.append(parameter)
    return parameters


def bits(tensor):
    return tensor.flatten().view(torch.int32).tolist()


def main():
    results = []
    for seed in range(20):
        for norm_type in (2.0, 1.0, 3.0, float("inf")):
            clipped = parameters(seed)
            norm = torch.nn.utils.clip_grad_norm_(clipped, 0.7, norm_type)
            results.append([bits(norm)] + [bits(p.grad) for p in clipped])
        clamped = parameters(seed)
        torch.nn.utils.clip_grad_value_(clamped, 0.3)
        results.append([bits(p.grad) for p in clamped])
    print(json.dumps(results))


if __name__ == "__main__":
    main()
