"""Trains a small network with each optimizer, from the same weights as the tests in Rust.

optimizers.py reference FOLDER   reads cases.json and start.pt, writes reference-<case>.pt
optimizers.py resume FOLDER      reads the state that Rust saved after 20 steps, trains on, writes resumed-<case>.pt
"""

import json
import sys
from pathlib import Path

import torch


class Lion(torch.optim.Optimizer):
    """Algorithm 2 of https://arxiv.org/abs/2302.06675."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, maximize=False):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay, maximize=maximize))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                g = -p.grad if group["maximize"] else p.grad
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                c = beta1 * m + (1 - beta1) * g
                p.sub_(group["lr"] * (torch.sign(c) + group["weight_decay"] * p))
                m.copy_(beta2 * m + (1 - beta2) * g)


def make(case, params):
    cls = Lion if case["class"] == "Lion" else getattr(torch.optim, case["class"])
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in case["options"].items()}
    if case["groups"] is None:
        return cls(list(params.values()), **options)
    groups = []
    for group in case["groups"]:
        group = dict(group, params=[params[name] for name in group["params"]])
        groups.append({k: tuple(v) if k == "betas" else v for k, v in group.items()})
    return cls(groups, **options)


def network_loss(case, start, params, step):
    hidden = torch.tanh(start["x"] @ params["w1"] + params["b1"])
    # The gain is a parameter that has a gradient only now and then.
    if not case["partial"] or step % 3 == 1:
        hidden = hidden * params["gain"]
    return ((hidden @ params["w2"] + params["b2"] - start["y"]) ** 2).mean()


def convex_loss(start, params):
    output = start["x"] @ params["w1"].narrow(1, 0, 4) + params["b2"]
    bowl = (params["w1"] - 0.1) ** 2 + params["w1"] ** 4
    return ((output - start["y"]) ** 2).mean() + bowl.sum() * 0.1


def train(case, start, params, optimizer, steps):
    for step in steps:
        if step == 10:
            for group in optimizer.param_groups:
                group["lr"] *= 0.8
        sign = -1.0 if case["options"].get("maximize") else 1.0

        def closure():
            optimizer.zero_grad()
            loss = (convex_loss(start, params) if case["class"] == "LBFGS" else network_loss(case, start, params, step)) * sign
            loss.backward()
            return loss

        if case["class"] == "LBFGS":
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()


def copy(params):
    return {name: p.detach().clone() for name, p in params.items()}


def leaves(values):
    return {name: v.detach().clone().requires_grad_() for name, v in values.items()}


def plain(state):
    """What weights_only loading takes; also a snapshot."""
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {k: plain(v) for k, v in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(plain(v) for v in state)
    return state


def main():
    torch.set_num_threads(1)
    mode, folder = sys.argv[1], Path(sys.argv[2])
    single = torch.load(folder / "start.pt", weights_only=True)
    double = {name: single[name].double() for name in "xy"}
    double["params"] = {name: p.double() for name, p in single["params"].items()}
    for case in json.loads((folder / "cases.json").read_text()):
        name = case["name"]
        start = double if case["double"] else single
        if mode == "reference":
            params = leaves(start["params"])
            optimizer = make(case, params)
            train(case, start, params, optimizer, range(20))
            out = {"params20": copy(params), "state20": plain(optimizer.state_dict())}
            train(case, start, params, optimizer, range(20, 50))
            out |= {"params50": copy(params), "state50": plain(optimizer.state_dict())}
            torch.save(out, folder / f"reference-{name}.pt")
        else:
            ours = torch.load(folder / f"ours-{name}.pt", weights_only=True)
            params = leaves(ours["params"])
            optimizer = make(case, params)
            optimizer.load_state_dict(ours["state"])
            train(case, start, params, optimizer, range(20, 50))
            torch.save({"params50": copy(params)}, folder / f"resumed-{name}.pt")
    print(json.dumps("done"))


main()
